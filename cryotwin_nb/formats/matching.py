"""Match of particles between two files: by cryoSPARC's uid, or by stack name and image number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.cryosparc import listed_images, open_table, require_images
from cryotwin_nb.formats.files import DEEPEST
from cryotwin_nb.formats.joining import describe_join, lookup, require_once, uids_of
from cryotwin_nb.formats.stacks import IMAGES_PER_STACK
from cryotwin_nb.formats.star import read_rows
from cryotwin_nb.formats.star_text import image_names

_LONGEST_PATH = 4096  # of an existing file, characters
_PREFIX = re.compile(r"^\d+_")  # cryoSPARC puts the uid of a micrograph or stack before its name


class Listing(NamedTuple):
    """Particles listed in a file.

    Attributes
    ----------
    path : Path
        The file.
    uids : callable or None
        Returns cryoSPARC's uids (n,); None if the file is not from cryoSPARC.
    images : callable
        Returns stacks, stack number (n,) and image number (n,), as in `Metadata`; raises `InputError` if the file does
        not list images.
    """

    path: Path
    uids: Callable[[], np.ndarray] | None
    images: Callable[[], tuple[Sequence[str], np.ndarray, np.ndarray]]


def listing_of(path: Path, table: Any = None) -> Listing:
    """Return the particles listed in a .cs or .star file, given with its rows if they have been read."""
    if path.suffix.lower() != ".cs":
        return Listing(path, None, lambda: image_names(read_rows(path, [])[0] if table is None else table, path)[:3])
    opened = open_table(path) if table is None else table

    def images() -> tuple[Sequence[str], np.ndarray, np.ndarray]:
        require_images(opened, path)
        return listed_images(opened)

    return Listing(path, lambda: uids_of(opened, path), images)


def match(ours: Listing, theirs: Listing, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Find our particles in another file: by uid between two .cs files, otherwise by stack name and image number.

    Parameters
    ----------
    ours, theirs : Listing
        Particles of the two files.
    notes : list of str
        Receives the numbers of rows, if some are in one file only, and a pair of stack names, if these differ.

    Returns
    -------
    place : (n,) int64
        Row of each of our n particles in the other file.
    there : (n,) bool
        Whether it is there; if not, `place` is arbitrary.

    Raises
    ------
    InputError
        If the other file lists a particle twice, stack names are ambiguous, or no particle is in both files.
    """
    if ours.uids is not None and theirs.uids is not None:
        keys = theirs.uids()
        require_once(keys, theirs.path)
        place, there = lookup(ours.uids(), keys)
    else:
        (stacks, stack_number, image_number), (names, name_number, position) = ours.images(), theirs.images()
        _require_each_once(names, name_number, position, theirs.path)
        pairs = pair_stacks(stacks, names, ours.path, theirs.path, notes)
        if not pairs:
            found = f"no stack of {ours.path} (here {names[0][:200]!r}, there {stacks[0][:200]!r})"
            raise InputError(theirs.path, found, "the same stacks", "Pass files of the same particles.")
        paired = np.full(len(names), -1)
        paired[list(pairs)] = list(pairs.values())
        keys = paired[name_number] * IMAGES_PER_STACK + position  # negative without a partner
        place, there = lookup(stack_number * IMAGES_PER_STACK + image_number, keys)
    describe_join(ours.path, theirs.path, len(keys), place, there, notes)
    return place, there


def _require_each_once(stacks: Sequence[str], stack_number: np.ndarray, image_number: np.ndarray, path: Path) -> None:
    images, count = np.unique(stack_number * IMAGES_PER_STACK + image_number, return_counts=True)
    if len(images) < len(stack_number):
        stack, number = divmod(int(images[count.argmax()]), IMAGES_PER_STACK)
        found = f"image {number + 1} of {stacks[stack]} {count.max()} times"
        raise InputError(path, found, "each image once", "Remove the duplicates, or pass the file of one refinement.")


def pair_stacks(
    ours: Sequence[str], theirs: Sequence[str], path: Path, other: Path, notes: list[str]
) -> dict[int, int]:
    """Return our stack (its index) for each of their stacks that has the same name.

    Names are compared in full, and if none agree, by ever shorter tails: without leading folders and without suffix,
    then without the uid that cryoSPARC puts before a file name. The first comparison that finds a pair is used for all.

    Raises
    ------
    InputError
        If several stacks of one file have the same tail, and so could be the same stack of the other.
    """
    for our_key, their_key in _comparisons(min(DEEPEST, max(map(_depth, (*ours, *theirs)), default=0))):
        left, right = [our_key(name) for name in ours], [their_key(name) for name in theirs]
        common = set(left) & set(right)
        if not common:
            continue
        for keys, names, where in ((left, ours, path), (right, theirs, other)):
            twice = [key for key, count in Counter(keys).items() if count > 1 and key in common]
            if twice:
                several = [name for name, key in zip(names, keys, strict=True) if key == twice[0]]
                found = f"the stacks {several[0]!r} and {several[1]!r}"
                expected = f"one stack that can be {twice[0]!r} of {other if where == path else path}"
                raise InputError(where, found, expected, "Give the stacks the same names in both files.")
        number = {key: i for i, key in enumerate(left)}
        pairs = {i: number[key] for i, key in enumerate(right) if key in common}
        first = min(pairs)
        if ours[pairs[first]] != theirs[first]:
            text = f"assuming that {theirs[first][:200]!r} is {ours[pairs[first]][:200]!r}, and the others likewise"
            notes.append(f"{path} and {other} name the stacks differently; {text}.")
        return pairs
    return {}


def _comparisons(depth: int) -> Iterator[tuple[Callable[[str], str], Callable[[str], str]]]:
    """Yield pairs of functions of a stack name, for our names and theirs, the strictest first."""
    yield str, str
    for length in range(depth, 0, -1):
        tail = partial(_tail, length=length)
        yield tail, tail
    last, bare = partial(_tail, length=1), lambda name: _PREFIX.sub("", _tail(name, 1))
    yield bare, last
    yield last, bare
    yield bare, bare


def _depth(name: str) -> int:
    return len(PurePosixPath(name[-_LONGEST_PATH:]).parts)


def _tail(name: str, length: int) -> str:
    """Return the last `length` parts of a path, without the suffix .mrc or .mrcs."""
    return re.sub(r"\.mrcs?$", "", "/".join(PurePosixPath(name[-_LONGEST_PATH:]).parts[-length:]))
