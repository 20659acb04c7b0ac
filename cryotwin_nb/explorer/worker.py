"""Background worker of the explorer: one job at a time, with progress and errors shown in the controls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from cryotwin_nb.explorer.controls import Controls
from cryotwin_nb.explorer.job import Job, Report

_T = TypeVar("_T")


class Worker:
    """Run jobs in the background and show their progress in the controls."""

    def __init__(self, controls: Controls) -> None:
        self._controls, self._loop = controls, _running_loop()
        self._job: Job | None = None

    def run(self, work: Callable[[Report], _T], show: Callable[[_T], None]) -> None:
        """Run `work` in the background, then call `show` with its result. A no-op while another job is running."""
        if self._job is not None and not self._job.wait(0):
            return
        results: list[_T] = []

        def finished(error: BaseException | None) -> None:
            self._controls.idle()
            if error is None:
                show(results[0])
            else:
                self._controls.show_error(error)

        report, done = self._later(self._controls.progress), self._later(finished)
        self._job = Job(lambda report: results.append(work(report)), report, done)

    def stop(self) -> None:
        """Stop the running job, if any."""
        if self._job is not None:
            self._job.stop()

    def _later(self, function: Callable) -> Callable:
        """Wrap a function so that a call from a thread runs it in the kernel's event loop, if there is one."""
        loop = self._loop
        return function if loop is None else lambda *args: loop.call_soon_threadsafe(function, *args)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
