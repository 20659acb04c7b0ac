"""Background jobs of an explorer: at most one of each kind, a newer one replaces an older one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.job import Job, Report, Stopped

_T = TypeVar("_T")
Send = Callable[..., None]
"""Function that sends a message, given by its keywords, to the browser; `buffers` are its binary parts."""


class Jobs:
    """Run jobs in the background; their progress, result and errors are sent to the browser with the turn they answer.

    Parameters
    ----------
    send : callable
        Function that sends messages to the browser, from any thread.
    """

    def __init__(self, send: Send) -> None:
        self._send, self._lock = send, threading.Lock()
        self._running: dict[str, Job] = {}

    def start(
        self, kind: str, turn: Any, work: Callable[[Report], _T], show: Callable[[_T], str | None] = lambda _: None
    ) -> Job:
        """Run `work`, then `show` with its result, in a thread; `show` returns a sentence for the user, or None."""

        def run(report: Report) -> None:
            result = work(report)
            report(None, "")  # raises Stopped if a newer job has replaced this one
            sentences.append(show(result) or "")

        def done(error: BaseException | None) -> None:
            if error is None:
                self._send(kind="done", of=kind, turn=turn, text=sentences[0])
            else:
                self._send(kind="failed", of=kind, turn=turn, **in_words(error))

        sentences: list[str] = []
        with self._lock:
            former = self._running.get(kind)
            if former is not None:
                former.stop()
            job = self._running[kind] = Job(run, lambda share, text: self._report(kind, turn, share, text), done)
        return job

    def stop(self, kind: str | None = None) -> None:
        """Stop the running job of a kind, or all jobs."""
        with self._lock:
            jobs = [job for name, job in self._running.items() if kind in (None, name)]
        for job in jobs:
            job.stop()

    def wait(self, seconds: float = 300) -> None:
        """Wait until all jobs have ended."""
        with self._lock:
            jobs = list(self._running.values())
        for job in jobs:
            job.wait(seconds)

    def _report(self, kind: str, turn: Any, share: float | None, text: str) -> None:
        if text:
            self._send(kind="progress", of=kind, turn=turn, share=share, text=text)


def in_words(error: BaseException) -> dict[str, str]:
    """Return the heading and the text of an error."""
    if isinstance(error, Stopped):
        return {"word": "Stopped.", "text": ""}
    if isinstance(error, InputError):
        return {"word": "Not possible.", "text": str(error)}
    return {"word": "Failed.", "text": f"{type(error).__name__}: {error}"}
