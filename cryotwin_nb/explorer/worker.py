"""Work beside the kernel for the explorer's controls: one job at a time, its progress and its errors said there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from cryotwin_nb.explorer.controls import Controls
from cryotwin_nb.explorer.job import Job, Report

_T = TypeVar("_T")


class Worker:
    """Runs jobs, and tells the controls how they go."""

    def __init__(self, controls: Controls) -> None:
        self._controls, self._loop = controls, _running_loop()
        self._job: Job | None = None

    def run(self, work: Callable[[Report], _T], show: Callable[[_T], None]) -> None:
        """Do work beside the kernel and show what it gave; while other work is under way, do nothing."""
        if self._job is not None and not self._job.wait(0):
            return
        given: list[_T] = []

        def finished(error: BaseException | None) -> None:
            self._controls.idle()
            if error is None:
                show(given[0])
            else:
                self._controls.say_error(error)

        report, done = self._later(self._controls.progress), self._later(finished)
        self._job = Job(lambda report: given.append(work(report)), report, done)

    def stop(self) -> None:
        """Stop the work under way, if any."""
        if self._job is not None:
            self._job.stop()

    def _later(self, function: Callable) -> Callable:
        """The function, to be called from a thread: it runs in the kernel's loop, where there is one."""
        loop = self._loop
        return function if loop is None else lambda *args: loop.call_soon_threadsafe(function, *args)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
