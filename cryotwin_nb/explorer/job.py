"""Background jobs that report progress and can be stopped; the kernel stays responsive."""

from __future__ import annotations

import threading
from collections.abc import Callable

Report = Callable[[float | None, str], None]
"""Function called with the completed share (None if unknown) and a description of the current step."""


class Stopped(Exception):
    """Raised when a job reports progress after it was stopped."""


class Job:
    """Function that runs in a thread and can be stopped.

    Parameters
    ----------
    work : callable
        Function to run. It receives a function `report(share, text)`, which it should call regularly.
    report : callable
        Function that receives the progress reports.
    done : callable
        Function called once at the end with None, or with the exception that ended the job, such as `Stopped`.

    Notes
    -----
    Stopping a job takes effect at once: later reports and results are discarded. The thread itself ends at the next
    progress report, because a running step cannot be interrupted.
    """

    def __init__(
        self, work: Callable[[Report], None], report: Report, done: Callable[[BaseException | None], None]
    ) -> None:
        self._work, self._report, self._done = work, report, done
        self._lock, self._over, self._finished = threading.Lock(), threading.Event(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Stop the job. A no-op if the job has ended or was already stopped."""
        self._end(Stopped())

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the job to end; return False on a timeout."""
        return self._finished.wait(seconds)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._work(self._forward)
        except BaseException as raised:
            error = raised
        self._end(error)

    def _forward(self, share: float | None, text: str) -> None:
        """Forward a progress report, or raise `Stopped` if the job was stopped."""
        if self._over.is_set():
            raise Stopped
        self._report(share, text)

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            first = not self._over.is_set()
            self._over.set()
        if first:
            self._done(error)
            self._finished.set()
