"""One writer per output: a hidden lock file beside it, locked with `fcntl` and stamped with the time every 30 s.

The lock of `fcntl` ends with its process. Some file systems lack it, or keep it within one machine, so the file also
names its writer. A writer on another machine counts as running while its stamp is younger than 5 minutes. Stamps are
compared with that of a new file in the same folder, since the clocks of machines differ.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.runtime import writers
from cryotwin_nb.runtime.leaving import forget, remove_on_leaving
from cryotwin_nb.runtime.writers import UNKNOWN, Writer, is_at, lock_file

_RENEWAL, _POLL, _SETTLING = 30.0, 0.05, 0.2  # seconds
_NOT_OURS = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)  # writing reports these itself
_HELD: dict[Path, _Lock] = {}


@contextmanager
def writing(*outputs: str | os.PathLike, wait: float = 0.0) -> Iterator[None]:
    """Hold the locks of outputs, so that no other command or thread writes to them; a thread can hold one repeatedly.

    If no lock can be made, a warning is given and the work goes on.

    Parameters
    ----------
    *outputs : path-like
        Files to write; of several files that belong together, one.
    wait : float
        How long to wait for another writer, s.

    Raises
    ------
    InputError
        If another process or thread is writing to one of them.
    """
    deadline = time.monotonic() + wait
    with ExitStack() as locks:
        for output in sorted({_absolute(output) for output in outputs}):  # in one order: no two wait for each other
            locks.enter_context(_one(output, deadline))
        yield


@contextmanager
def _one(output: Path, deadline: float) -> Iterator[None]:
    path = lock_path(output)
    lock = _HELD.get(path)
    if lock is not None and lock.thread == threading.get_ident():
        yield  # held by a caller
        return
    lock = _wait_for(path, output, deadline)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def lock_path(output: Path) -> Path:
    """Return the lock file of an output."""
    name = output.name
    if len(os.fsencode(name)) > 150:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return output.with_name(f".{name}.lock")


def _absolute(output: str | os.PathLike) -> Path:
    """Return the same path for all spellings of an output; a link is replaced by writing, so it is not followed."""
    folder, name = os.path.split(output)
    return Path(os.path.realpath(folder), name)


def _wait_for(path: Path, output: Path, deadline: float) -> _Lock | None:
    """Return the lock once it is free; None, with a warning, if there can be none."""
    warned, unnamed_until = False, time.monotonic() + 1
    while True:
        try:
            found = _HELD[path].writer if path in _HELD else _try(path)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                warn_user(f"{output} cannot be locked ({error}): make sure that no other command writes to it.")
            return None
        if isinstance(found, _Lock):
            return found
        now = time.monotonic()
        if found.process or now > unnamed_until:  # otherwise, its name is about to be written
            if now >= deadline:
                raise _refusal(output, found)
            if not warned:
                warn_user(f"Waiting until {found}, has written {output}.")
            warned = True
        time.sleep(0.5 if warned else _POLL)


def _refusal(output: Path, writer: Writer) -> InputError:
    sentence = f"{output} is being written by {writer}."
    remedy = "Choose another output, or wait until that process has ended: the commands do with --wait SECONDS."
    return InputError(output, f"another writer, {writer}", "one writer", remedy, sentence)


def _try(path: Path) -> _Lock | Writer:
    """Take a lock, or return its present writer, who may be unknown for a moment."""
    file, created = _open(path)
    try:
        free = lock_file(file, patience=1.0 if created else 0.0)
        if free is False:
            return writers.read_writer(file)
        if not is_at(file, path):  # its writer removed it before we had it
            return UNKNOWN
        writer = writers.this_process()
        if created:
            _sign(file, writer, bool(free))
        else:
            before = writers.read_writer(file)
            if writers.is_alive(before, path, bool(free)):
                return before
            file, old = _replace(path, writer), file
            os.close(old)
            if writers.writer_at(path).token != writer.token:  # another process replaced it, too
                return UNKNOWN
        return _Lock(path, file, writer)
    except BaseException:
        if created and is_at(file, path):
            path.unlink()
        raise
    finally:
        if path not in _HELD:
            os.close(file)


def _open(path: Path) -> tuple[int, bool]:
    """Create the file, or open the existing one; return whether it was created."""
    with suppress(FileExistsError):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    try:
        return os.open(path, os.O_RDWR), False
    except PermissionError:  # of another user
        return os.open(path, os.O_RDONLY), False
    except FileNotFoundError:  # removed in this moment
        return _open(path)


def _sign(file: int, writer: Writer, locked: bool) -> None:
    try:
        writers.write_writer(file, writer)
    except OSError:
        if not locked:  # on a full disk, the lock of `fcntl` is enough
            raise


def _replace(path: Path, writer: Writer) -> int:
    """Replace the file of a writer that no longer runs, and wait for others who do the same: the last one has it."""
    partial = path.with_name(f"{path.name}.{writer.token}")
    remove_on_leaving(partial, partial.unlink)
    file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _sign(file, writer, bool(lock_file(file)))
        os.replace(partial, path)
    except BaseException:
        os.close(file)
        with suppress(OSError):
            partial.unlink()
        raise
    finally:
        forget(partial)
    time.sleep(_SETTLING)
    return file


class _Lock:
    """A lock that is held, and the thread that renews its stamp."""

    def __init__(self, path: Path, file: int, writer: Writer) -> None:
        self.path, self.file, self.writer = path, file, writer
        self.thread, self._done, self._guard = threading.get_ident(), threading.Event(), threading.Lock()
        remove_on_leaving(self, self._remove)
        _HELD[path] = self
        threading.Thread(target=self._renew, name="lock", daemon=True).start()

    def release(self) -> None:
        """Remove the file, then end the lock."""
        if self.writer.process != os.getpid():  # a fork, whose parent goes on
            return
        self._done.set()
        self._remove()
        forget(self)
        _HELD.pop(self.path, None)
        with self._guard:
            os.close(self.file)

    def _remove(self) -> None:
        if is_at(self.file, self.path):
            with suppress(OSError):
                self.path.unlink()

    def _renew(self) -> None:
        """Renew the stamp until the lock is released; the first failure is reported, and the next attempt follows."""
        warned = False
        while not self._done.wait(_RENEWAL):
            with self._guard:
                if self._done.is_set():
                    return
                try:
                    if not is_at(self.file, self.path):
                        raise OSError("it was removed or replaced")
                    os.utime(self.file)
                    continue
                except Exception as error:
                    reason = error
            if not warned:
                text = f"The lock {self.path} cannot be renewed ({reason}):"
                warn_user(f"{text} make sure that no other command writes to this output.")
            warned = True


def _forked() -> None:
    """Close the files in a new process: its parent holds the locks."""
    for lock in _HELD.values():
        with suppress(OSError):
            os.close(lock.file)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
