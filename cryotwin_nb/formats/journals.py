"""Journals of outputs of several files: which hidden files take which names, and which former files are removed.

A journal exists only while files are renamed, see `sets`. If the process is stopped meanwhile, the next reader of one
of these files, or the next to write to the folder, completes the renaming. Several can do so at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.leftovers import partial_path, remove_leftovers

JOURNALS = ".cryotwin_nb"
_MARKED = 2**16  # bytes at each end of a file that its mark depends on: large stacks are not read again


def settle(folder: Path, name: str | None = None) -> None:
    """Complete the outputs in a folder whose writing was stopped while files were renamed.

    Parameters
    ----------
    folder : Path
        The folder.
    name : str, optional
        File in it that is to be read.

    Raises
    ------
    InputError
        If that file belongs to an output that cannot be completed.
    """
    for journal in _journals(folder / JOURNALS):
        try:
            complete(journal)
        except (OSError, ValueError) as error:
            if name is not None and name in _names(journal):
                raise _incomplete(folder / name, journal, error) from error
    tidy(folder / JOURNALS)


def _incomplete(path: Path, journal: Path, error: Exception) -> InputError:
    if isinstance(error, OSError):
        remedy = f"Repeat this command as a user who can write to {path.parent}; it then completes the output."
        sentence = f"The program that wrote {path} was stopped while it renamed files, and this cannot be completed."
    else:
        remedy = f"Write these files again. To use them as they are, delete {journal}."
        sentence = f"The program that wrote {path} was stopped while it renamed files, and {error}."
    return InputError(path, f"{error}", "a complete output", remedy, sentence)


def write_journal(journal: Path, renamed: Mapping[Path, Path], removed: Collection[Path]) -> None:
    """Write a journal, by which an output becomes the valid one.

    Parameters
    ----------
    journal : Path
        File in the folder `JOURNALS` of the output's folder; the folder is created if needed.
    renamed : dict of Path to Path
        Complete hidden file by its final path.
    removed : collection of Path
        Existing files to remove.
    """
    for hidden in renamed.values():
        _flush(hidden)
    rows = [[hidden.name, path.name, _mark(hidden)] for path, hidden in renamed.items()]
    text = json.dumps({"renamed": rows, "removed": [[path.name, _mark(path)] for path in removed]})
    partial = partial_path(journal)
    while True:
        journal.parent.mkdir(exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8")
            _flush(partial)
            os.replace(partial, journal)
            break
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
    _flush(journal.parent)


def complete(journal: Path) -> None:
    """Rename and remove the files that a journal lists, then remove the journal.

    Raises
    ------
    OSError
        If that is not possible.
    ValueError
        If the journal is damaged, or a file was changed or removed since it was written.
    """
    folder = journal.parent.parent
    try:
        renamed, removed = _read(journal)
        for hidden, name, mark in renamed:
            if mark not in (_mark(folder / hidden), _mark(folder / name)):
                raise ValueError(f"{name} is missing or was changed since")
        for hidden, name, mark in renamed:
            if _mark(folder / hidden) == mark:
                with suppress(FileNotFoundError):
                    os.replace(folder / hidden, folder / name)
        for name, mark in removed:
            if _mark(folder / name) == mark:
                (folder / name).unlink(missing_ok=True)
        _flush(folder)
        journal.unlink(missing_ok=True)
    except (OSError, ValueError):
        if journal.exists():
            raise
        # otherwise another process has completed it


def supersede(folder: Path, names: set[str]) -> None:
    """Remove the journals in `folder` that list any of these files, of which a complete output was written since."""
    for journal in _journals(folder):
        if names & _names(journal):
            journal.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove the folder of journals if there is none in it."""
    remove_leftovers(folder)
    with suppress(OSError):  # it does not exist, or is in use
        folder.rmdir()


def _journals(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith(".")]
    except OSError:  # there are none
        return []


def _read(journal: Path) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Return hidden name, final name and mark of new files, and name and mark of those to be removed."""
    text = journal.read_text(encoding="utf-8")
    try:
        plan = json.loads(text)
        renamed = [(str(hidden), str(name), str(mark)) for hidden, name, mark in plan["renamed"]]
        removed = [(str(name), str(mark)) for name, mark in plan["removed"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{journal} is damaged") from error
    names = [name for row in [*renamed, *removed] for name in row[:-1]]
    if not all(name == Path(name).name and name not in ("", "..") and "\0" not in name for name in names):
        raise ValueError(f"{journal} is damaged")
    return renamed, removed


def _names(journal: Path) -> set[str]:
    with suppress(OSError, ValueError):
        renamed, removed = _read(journal)
        return {name for _, name, _ in renamed} | {name for name, _ in removed}
    return set()


def _mark(path: Path) -> str:
    """Return the size and a digest of both ends of a file; "" if it does not exist."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            ends = b""
            for start in (0, max(0, size - _MARKED)):
                file.seek(start)
                ends += file.read(_MARKED)
    except FileNotFoundError:
        return ""
    return f"{size}:{hashlib.sha256(ends).hexdigest()[:32]}"


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    with suppress(PermissionError):  # some systems do not open folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
