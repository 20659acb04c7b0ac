"""Hidden partial files of atomic writing: their names, and the removal of those that killed runs left behind."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from cryotwin_nb.runtime.leaving import remove_on_leaving
from cryotwin_nb.runtime.writers import HOST, is_running

_PARTIAL = re.compile(r"\..*\.(?:([0-9a-f]{8})-)?(\d+)\.partial(?:\.[^.]*)?", re.DOTALL)


def partial_path(path: Path) -> Path:
    """Return the hidden file next to `path` that this process writes before it renames it to `path`."""
    stem = path.stem
    if len(os.fsencode(stem)) > 100:  # a longer name than that of `path` might not fit
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()
    partial = path.with_name(f".{stem}.{HOST}-{os.getpid()}.partial{path.suffix}")
    remove_on_leaving(partial, partial.unlink)
    return partial


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files of processes of this machine that no longer run; those that cannot be removed are kept.

    Names without a machine are from earlier builds; they count as from this machine.
    """
    with suppress(OSError):
        for file in list(folder.glob(".*.partial*")):
            found = _PARTIAL.fullmatch(file.name)
            if found and found[1] in (None, HOST) and not is_running(int(found[2])) and not file.is_dir():
                with suppress(OSError):
                    file.unlink()
