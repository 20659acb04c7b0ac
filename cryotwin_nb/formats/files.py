"""File checks, lookup of stacks, and atomic writing (files are written completely or not at all)."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.journals import JOURNALS, settle
from cryotwin_nb.formats.leftovers import partial_path, remove_leftovers
from cryotwin_nb.formats.sets import set_of, written_path

DEEPEST = 64  # longest tail of a stack name that is tried, in folders: a damaged name can have thousands
_POINTER = b"version https://git-lfs.github.com"


def require_file(path: str | os.PathLike, what: str = "file") -> Path:
    """Return `path` as a Path if it is an existing file, not a stand-in for one, else raise `InputError`."""
    path = Path(path)
    if os.path.isdir(path.parent / JOURNALS):
        settle(path.parent, path.name)
    here = path if path.is_file() else written_path(path)
    if path.is_dir():
        sentence = f"{path} is a folder (expected: {what})."
        raise InputError(path, "a folder", f"{what}", "Pass a file in that folder.", sentence)
    if not here.is_file():
        sentence = f"{path} does not exist (expected: {what})."
        raise InputError(path, "no such file", f"an existing {what}", "Check the path and its spelling.", sentence)
    _refuse_stand_in(here)
    return path


def _refuse_stand_in(path: Path) -> None:
    """Raise `InputError` if a file is a Git LFS pointer or a web page instead of the data it is named after."""
    with open(path, "rb") as file:
        beginning = file.read(64).lstrip().lower()
    if beginning.startswith(_POINTER):
        sentence = f"{path} is a Git LFS pointer; the file itself was not downloaded."
        raise InputError(path, "a Git LFS pointer", "the file itself", "Run `git lfs pull` in its folder.", sentence)
    if beginning.startswith((b"<!doctype html", b"<html")):
        sentence = f"{path} is a web page, probably the error message of a failed download."
        raise InputError(path, "a web page", "the file itself", "Download the file again.", sentence)


def require_suffix(path: str | os.PathLike, *suffixes: str) -> Path:
    """Return `path` as a Path if its name ends in one of `suffixes`, else raise `InputError`."""
    path = Path(path)
    name = path.name.encode(errors="replace")
    if b"\0" in name or len(name) > 200 or name.decode() != path.name:
        expected = "a name of at most 200 bytes, without characters that file systems refuse"
        raise InputError(name[:60].decode(errors="replace"), "this name", expected, "Choose another name.")
    if path.suffix.lower() not in suffixes:
        expected = " or ".join(suffixes)
        raise InputError(path, f"the suffix {path.suffix!r}", expected, "Rename the file or choose another format.")
    return path


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it is renamed to `path` on success and deleted on failure.

    Within a `sets.file_set` of this folder, it is renamed together with the other files of the set.

    Raises
    ------
    InputError
        If the folder does not exist or is not writable.
    """
    path = Path(path)
    if not path.parent.is_dir():
        sentence = f"{path} cannot be written: the folder {path.parent} does not exist."
        raise InputError(path, "no such folder", "an existing folder", f"Create {path.parent} first.", sentence)
    if path.is_dir():
        sentence = f"{path} cannot be written: it is a folder."
        raise InputError(path, "a folder of that name", "a file name", "Choose another name.", sentence)
    partial, files = partial_path(path), set_of(path)
    try:
        yield partial
        if files is None:
            os.replace(partial, path)
        else:
            files.add(partial, path)
    except OSError as error:
        remedy = "Free space on the disk, or choose a folder that you can write to."
        sentence = f"{path} cannot be written: {error}."
        raise InputError(path, f"{error}", "a file that can be written", remedy, sentence) from error
    finally:
        if files is None or not files.holds(partial):
            with suppress(OSError):  # there is none, or the disk is read-only: the error above names the cause
                partial.unlink()


def array_headers(path: str | os.PathLike) -> dict[str, tuple[tuple[int, ...], str, int]]:
    """Return shape, kind and item size of each array in an .npz file, reading only the headers.

    The arrays are compressed, so a small file can expand beyond the available memory; check the sizes before reading.
    """
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[read_magic(member)]
                shape, _, dtype = read(member)
                headers[name.removesuffix(".npy")] = (shape, dtype.kind, dtype.itemsize)
    return headers


def make_folder(path: str | os.PathLike) -> Path:
    """Create a folder and any missing parents.

    Raises
    ------
    InputError
        If the folder cannot be created.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sentence = f"The folder {path} cannot be created: {error}."
        raise InputError(path, f"{error}", "a folder", "Choose another folder.", sentence) from error
    return Path(path)


def require_writable(folder: str | os.PathLike) -> None:
    """Create a folder if it is missing, remove what killed runs left in it, and try to write there.

    Raises
    ------
    InputError
        If no file can be written there.
    """
    try:
        with tempfile.TemporaryFile(dir=make_folder(folder)) as file:
            file.write(bytes(4096))  # on a full disk, an empty file can still be created
    except OSError as error:
        sentence = f"The folder {folder} cannot be written to: {error}."
        raise InputError(folder, f"{error}", "a writable folder", "Choose another folder.", sentence) from error
    settle(Path(folder))
    if not os.path.isdir(Path(folder, JOURNALS)):  # otherwise the hidden files may belong to a complete output
        remove_leftovers(Path(folder))


def is_file(path: Path) -> bool:
    """Return whether a file exists; False for invalid names and in folders without access permission."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def locate_stacks(names: Iterable[str], listed_in: Path, datadir: str | os.PathLike | None = None) -> dict[str, Path]:
    """Return the path of each stack that `listed_in` names.

    Below `datadir`, the full path is tried first, then the path with leading folders removed one at a time:
    "Extract/job012/a.mrcs", "job012/a.mrcs", "a.mrcs". Without a match there, a relative name is looked up in the
    folder of `listed_in` and each of its parents, one of which is the RELION or cryoSPARC project; an absolute path is
    used unchanged.

    Parameters
    ----------
    names : iterable of str
        Stack names as written in the file.
    listed_in : Path
        The STAR, .cs or .txt file.
    datadir : path-like, optional
        Folder that contains the stacks.

    Raises
    ------
    InputError
        If a stack is missing, or a shortened name leads to the same file as another name: particles of one stack would
        then get the images of the other.
    """
    found: dict[str, Path] = {}
    shortened: dict[str, bool] = {}
    for name in names:
        found[name], shortened[name] = find_stack(name, listed_in, datadir)
    changing = any(os.path.isdir(folder / JOURNALS) for folder in {path.parent for path in found.values()})
    for path in found.values() if changing else ():
        settle(path.parent, path.name)
    by_file: dict[Path, str] = {}
    for name, path in found.items():
        other = by_file.setdefault(path.resolve(), name)
        if other != name and (shortened[name] or shortened[other]):
            sentence = f"{listed_in}: the stacks {other!r} and {name!r} both lead to {path}."
            remedy = "Pass as datadir= the folder that these names are relative to, so that each leads to its own file."
            raise InputError(listed_in, "two names for one stack", "a file for each name", remedy, sentence)
    return found


def find_stacks(names: Iterable[str], listed_in: Path, datadir: str | os.PathLike | None) -> dict[str, Path | None]:
    """Return the path of each stack, None if it is missing: a diagnosis without an error; see `locate_stacks`."""
    found: dict[str, Path | None] = {}
    for name in names:
        try:
            found[name] = find_stack(name, listed_in, datadir)[0].resolve()
        except InputError:
            found[name] = None
    return found


def find_stack(name: str, listed_in: Path, datadir: str | os.PathLike | None = None) -> tuple[Path, bool]:
    """Return the path of a single stack, and whether only a tail of its name matched; see `locate_stacks`."""
    tried = []
    for candidate, shortened in _candidates(name, listed_in, datadir):
        if is_file(candidate):
            return candidate, shortened
        tried.append(candidate)
    looked = f"looked in {', '.join(str(c.parent)[:200] for c in tried[:3])} and parent folders"
    remedy = "Pass datadir=, the folder that the paths in this file are relative to, or images=False for metadata only."
    sentence = f"{listed_in} refers to the stack {name[:200]!r}, which was not found ({looked})."
    raise InputError(listed_in, f"no stack {name[:200]!r} ({looked})", "every stack that it lists", remedy, sentence)


def _candidates(name: str, listed_in: Path, datadir: str | os.PathLike | None) -> Iterator[tuple[Path, bool]]:
    """Yield each path in the order of the search, and whether it contains only a tail of the name."""
    path = Path(name)
    parts = [part for part in PurePath(name).parts if part not in (path.anchor, "..")]
    if datadir is not None:
        for first in (0, *range(max(1, len(parts) - DEEPEST), len(parts)))[: len(parts)]:
            yield Path(datadir, *parts[first:]), first > 0
    if path.is_absolute():
        yield path, False
    else:
        for folder in listed_in.resolve().parents:
            yield folder / path, False
