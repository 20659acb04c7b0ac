"""Stacks without metadata: a .mrcs file, or a .txt list of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import locate_stacks
from cryotwin_nb.formats.metadata import Metadata
from cryotwin_nb.formats.mrc import read_stack_header


def listed(path: Path, datadir: str | os.PathLike | None) -> list[Path]:
    """Return the stacks listed in a .txt file, one per line, as paths relative to it."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(path, "binary data", "one stack per line", "Pass a plain text file.") from error
    if not any(names):
        raise InputError(path, "an empty list", "one stack per line", "Add the names of the stacks to the file.")
    located = locate_stacks(filter(None, names), path, datadir)
    found = [located[name] for name in names if name]
    repeated = [stack for stack, count in Counter(stack.resolve() for stack in found).items() if count > 1]
    if repeated:
        raise InputError(path, f"{repeated[0]} more than once", "each stack once", "Remove the duplicate lines.")
    return found


def bare_stacks(path: Path, stacks: list[Path]) -> Metadata:
    """Return the metadata of all images in some stacks, with the pixel size from the headers."""
    headers = [read_stack_header(stack) for stack in stacks]
    for header in headers:
        if header.is_volume and header.path.suffix.lower() == ".mrc":
            found = f"a cubic map of {header.shape[0]} voxels a side (space group 1)"
            remedy = "Pass the particle stack or its STAR file. If these are particle images, rename the file to .mrcs."
            sentence = f"{header.path} looks like {found}, not like a particle stack."
            raise InputError(header.path, found, "a particle stack", remedy, sentence)
    lengths = [header.shape[0] for header in headers]
    number = np.repeat(np.arange(len(headers)), lengths)
    return Metadata(
        path,
        tuple(str(header.path.resolve()) for header in headers),
        number,
        np.concatenate([np.arange(length) for length in lengths]),
        np.array([header.voxel_size for header in headers])[number],
        np.array([header.shape[-1] for header in headers])[number],
        np.zeros(len(number), dtype=np.int64),
        notes=tuple(note for header in headers for note in header.notes),
    )
