"""Files of one output change together: after any interruption, readers find all former files or all new ones.

1. Each new file is written under a hidden name beside its target; the former files stay as they are.
2. When all new files are on disk, a journal lists their final names. From the moment in which the journal takes its own
   name, the new output is the valid one.
3. The new files are renamed, files that only the former output had are removed, and last the journal. If the process is
   stopped here, the next reader completes it (`journals.settle`).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.journals import JOURNALS, complete, settle, supersede, tidy, write_journal
from cryotwin_nb.runtime.leaving import forget, remove_on_leaving


class FileSet:
    """New and removed files of one folder, which change together.

    Attributes
    ----------
    folder : Path
        The folder, resolved.
    journal : Path
        Journal, which exists while the new output is valid but not complete.
    new : dict of Path to Path
        Hidden file by its final path.
    """

    def __init__(self, folder: Path, journal: Path) -> None:
        self.folder, self.journal, self.new = folder, journal, dict[Path, Path]()
        self._removed, self._kept = set[Path](), set[Path]()

    def add(self, hidden: Path, path: Path, keep: bool = False) -> None:
        """Let a complete hidden file take its final name with the others; if they fail, delete it unless `keep`."""
        self.new[self.folder / path.name] = self.folder / hidden.name
        self._kept |= {self.folder / hidden.name} if keep else set()
        remove_on_leaving(self, self.discard)

    def remove(self, path: Path) -> None:
        """Remove a file when the others take their names."""
        self._removed.add(self.folder / path.name)

    def holds(self, hidden: Path) -> bool:
        """Return whether a hidden file was added."""
        return self.folder / hidden.name in self.new.values()

    def discard(self) -> None:
        """Delete the hidden files, unless the new output is the valid one."""
        for hidden in set() if self.journal.exists() else set(self.new.values()) - self._kept:
            with suppress(OSError):
                hidden.unlink()

    def publish(self) -> None:
        """Make the new output the valid one, and complete it."""
        removed = {path for path in self._removed if path not in self.new and path.is_file()}
        if self.new or removed:
            write_journal(self.journal, self.new, removed)
            complete(self.journal)
            supersede(self.journal.parent, {path.name for path in [*self.new, *removed]})


_CURRENT: ContextVar[FileSet | None] = ContextVar("current", default=None)


@contextmanager
def file_set(folder: str | os.PathLike) -> Iterator[FileSet]:
    """Let all files change together that are written to `folder` with `files.atomic`, or removed with `remove_file`.

    Within another set of the same folder, the files belong to that one.

    Raises
    ------
    InputError
        If the files cannot be written; then the former ones are unchanged.
    """
    place = Path(os.path.realpath(folder))
    outer = _CURRENT.get()
    if outer is not None and outer.folder == place:
        yield outer
        return
    settle(place)
    journal = place / JOURNALS / f"{uuid.uuid4().hex}.json"
    files = FileSet(place, journal)
    token = _CURRENT.set(files)
    try:
        yield files
        try:
            files.publish()
        except (OSError, ValueError) as error:
            remedy = "Free space on the disk, or choose a folder that you can write to."
            sentence = f"The files in {folder} cannot be written: {error}."
            raise InputError(folder, f"{error}", "files that can be written", remedy, sentence) from error
    finally:
        _CURRENT.reset(token)
        forget(files)
        if not journal.exists():  # completed, or failed before the new output became the valid one
            files.discard()
            tidy(journal.parent)


def set_of(path: Path) -> FileSet | None:
    """Return the set that a file to be written to `path` belongs to, if any; hidden files belong to none."""
    files = _CURRENT.get()
    inside = files is not None and not path.name.startswith(".") and Path(os.path.realpath(path.parent)) == files.folder
    return files if inside else None


def written_path(path: Path) -> Path:
    """Return where the contents of `path` are at present: in a hidden file if it was written in the current set."""
    files = _CURRENT.get()
    return path if files is None else files.new.get(Path(os.path.realpath(path.parent)) / path.name, path)


def remove_file(path: Path) -> None:
    """Remove a file, if it exists, together with the changes of the current set, if any."""
    files = set_of(path)
    if files is None:
        path.unlink(missing_ok=True)
    else:
        files.remove(path)
