"""The process that writes an output, as its lock file names it, and whether that process still runs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import tempfile
import time
import uuid
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_DEAD_AFTER = 300.0  # seconds without a new stamp
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NUMBERS = "/proc/self/ns/pid"  # on Linux, identifies the machine or container whose process ids these are


def _host() -> str:
    """Identify this machine or container: folders are shared, and elsewhere the same id is another process."""
    numbers = os.readlink(_NUMBERS) if os.path.lexists(_NUMBERS) else ""
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


HOST = _host()

fcntl: Any = None
with suppress(ImportError):  # not available on Windows
    fcntl = import_module("fcntl")


class Writer(NamedTuple):
    """Content of a lock file.

    Attributes
    ----------
    host : str
        Name of the machine, for messages.
    machine : str
        Identity of the machine or container, and of its last start.
    process : int
        Process id.
    started : str
        Start time of the process, to distinguish processes of the same id; empty if unknown.
    since : str
        Local time at which the lock was taken, for messages.
    token : str
        Random name of this lock.
    """

    host: str
    machine: str
    process: int
    started: str
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}" if self.process else "another process"


UNKNOWN = Writer("", "", 0, "", "", "")


def is_alive(writer: Writer, path: Path, free: bool) -> bool:
    """Return whether the writer named in a file still runs; `free` if the file could be locked."""
    if writer.machine == _machine():
        if free:  # on one machine, the lock of a running writer is always seen
            return False
        if not is_running(writer.process) or _start_of(writer.process) != writer.started:
            return False
        if writer.started:
            return True
    if free and not writer.process:  # its process ended before it wrote its name, or is about to
        return _age(path) < 0.5
    return abs(_age(path)) < _DEAD_AFTER


def lock_file(file: int, patience: float = 0.0) -> bool | None:
    """Return whether the file could be locked; None if the file system has no locks."""
    until = time.monotonic() + patience
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
                return None
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return None


def is_running(process: int) -> bool:
    """Return whether a process of this machine runs."""
    try:
        os.kill(process, 0)  # sends no signal
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        pass
    return True


def _age(path: Path) -> float:
    """Return the age of a file, s, by the clock of its file system."""
    now = time.time()
    with suppress(OSError), tempfile.TemporaryFile(dir=path.parent) as fresh:
        fresh.write(b"\0")
        fresh.flush()
        now = os.fstat(fresh.fileno()).st_mtime
    return now - path.stat().st_mtime


def this_process() -> Writer:
    """Return this process as a new writer."""
    since, number = time.strftime("%Y-%m-%d %H:%M:%S"), os.getpid()
    return Writer(socket.gethostname(), _machine(), number, _start_of(number), since, uuid.uuid4().hex)


def _machine() -> str:
    boot = ""
    with suppress(OSError):
        boot = _BOOT.read_text()[:8]
    return f"{HOST}-{boot}"


def _start_of(process: int) -> str:
    """Return when a process started, in ticks since the start of the machine; empty if unknown."""
    with suppress(OSError, IndexError):
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]  # Z: it has ended, but its parent has not noticed
    return ""


def write_writer(file: int, writer: Writer) -> None:
    """Write the writer into an open lock file."""
    os.pwrite(file, json.dumps(writer._asdict()).encode(), 0)


def read_writer(file: int) -> Writer:
    """Return the writer that an open lock file names; `UNKNOWN` if it names none."""
    try:
        return Writer(**json.loads(os.pread(file, 4096, 0)))
    except (OSError, ValueError, TypeError):
        return UNKNOWN


def writer_at(path: Path) -> Writer:
    """Return the writer that a lock file names."""
    file = os.open(path, os.O_RDONLY)
    try:
        return read_writer(file)
    finally:
        os.close(file)


def is_at(file: int, path: Path) -> bool:
    """Return whether an open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False
