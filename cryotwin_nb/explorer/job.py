"""One piece of work at a time beside the kernel, which stays free for clicks: with progress, and a way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable

Report = Callable[[float | None, str], None]
"""Called with the share that is done, None where nobody can tell, and what is being done."""


class Stopped(Exception):
    """Raised where work reports after it was told to stop."""


class Job:
    """A function that runs in a thread.

    Parameters
    ----------
    work : callable
        Called with a function `report(share, text)`, which it calls now and then.
    report : callable
        Where the reports go.
    done : callable
        Called once with what ended the job: None, `Stopped` or any other exception.

    Notes
    -----
    A job that is stopped is over at once: nothing that its work still reports or gives is heard. The thread itself
    ends where the work reports next, since nothing can be broken off in the middle of a step.
    """

    def __init__(
        self, work: Callable[[Report], None], report: Report, done: Callable[[BaseException | None], None]
    ) -> None:
        self._work, self._report, self._done = work, report, done
        self._lock, self._over, self._told = threading.Lock(), threading.Event(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """End the job; a second call, or one after the end, does nothing."""
        self._end(Stopped())

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; False if it did not come in time."""
        return self._told.wait(seconds)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._work(self._heard)
        except BaseException as raised:
            error = raised
        self._end(error)

    def _heard(self, share: float | None, text: str) -> None:
        """Pass a report on, or break off the work that was stopped."""
        if self._over.is_set():
            raise Stopped
        self._report(share, text)

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            first = not self._over.is_set()
            self._over.set()
        if first:
            self._done(error)
            self._told.set()
