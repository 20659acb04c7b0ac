"""One piece of work at a time beside the kernel, which stays free for clicks: with progress, and a way to stop it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

Report = Callable[[float | None, str], None]
"""Called with the share that is done, None where nobody can tell, and what is being done."""


class Stopped(Exception):
    """Raised inside the work when it is to stop."""


class Job:
    """A function that runs in a thread.

    Parameters
    ----------
    work : callable
        Called with a function `report(share, text)`.
    report : callable
        Where the reports go.
    done : callable
        Called with what ended the work: None, `Stopped` or any other exception.

    Notes
    -----
    Stopping raises `Stopped` in the thread between two steps of Python, so that any search and any decoder can be
    stopped without asking for it now and then; a long step of C++ ends first.
    """

    def __init__(
        self, work: Callable[[Report], None], report: Report, done: Callable[[BaseException | None], None]
    ) -> None:
        self._work, self._report, self._done = work, report, done
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._lock, self._working = threading.Lock(), True
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to end; a second call, or one after the end, does nothing."""
        with self._lock:
            if self._working and self._thread.ident is not None:
                self._working = False
                identity = ctypes.c_ulong(self._thread.ident)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(Stopped))

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; False if it did not come in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            try:
                self._work(self._report)
            finally:
                with self._lock:  # from here on nothing is raised from outside
                    self._working = False
        except BaseException as raised:
            error = raised
        self._done(error)
