"""Hidden partial files of atomic writing: their names, and the removal of those that killed runs left behind."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

_NUMBERS = "/proc/self/ns/pid"  # on Linux, identifies the machine or container whose process ids these are


def _host() -> str:
    """Identify this machine or container: folders are shared, and elsewhere the same id is another process."""
    numbers = os.readlink(_NUMBERS) if os.path.lexists(_NUMBERS) else ""
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


_HOST = _host()
_PARTIAL = re.compile(r"\..*\.(?:([0-9a-f]{8})-)?(\d+)\.partial(?:\.[^.]*)?", re.DOTALL)


def partial_path(path: Path) -> Path:
    """Return the hidden file next to `path` that this process writes before it renames it to `path`."""
    stem = path.stem
    if len(os.fsencode(stem)) > 100:  # a longer name than that of `path` might not fit
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()
    return path.with_name(f".{stem}.{_HOST}-{os.getpid()}.partial{path.suffix}")


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files of processes of this machine that no longer run; those that cannot be removed are kept.

    Names without a machine are from earlier builds; they count as from this machine.
    """
    with suppress(OSError):
        for file in list(folder.glob(".*.partial*")):
            found = _PARTIAL.fullmatch(file.name)
            if found and found[1] in (None, _HOST) and not _is_running(int(found[2])) and not file.is_dir():
                with suppress(OSError):
                    file.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends no signal
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        pass
    return True
