"""Progress display for commands that print nothing: bars are redrawn, or the elapsed time is shown."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_SILENCE = 1.0  # seconds without output before progress is shown


@contextmanager
def heartbeat(doing: str) -> Iterator[None]:
    """Show progress on standard error whenever nothing was printed for a second.

    Active progress bars are redrawn with their elapsed time. Without one, a line such as "states: 12 s" is updated in
    place and erased by the next output. In a file or a pipe the carriage returns remain, as with progress bars.

    Parameters
    ----------
    doing : str
        Name of the work.
    """
    before = sys.stdout, sys.stderr
    line = _Line(doing, sys.stderr)
    sys.stdout, sys.stderr = (_Watched(stream, line) for stream in before)
    thread = threading.Thread(target=line.keep_up, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        line.done.set()
        thread.join()
        line.erase()
        sys.stdout, sys.stderr = before


class _Watched:
    """A stream that erases the line of elapsed time before anything else is written."""

    def __init__(self, stream: TextIO, line: _Line) -> None:
        self.stream, self.line = stream, line

    def write(self, text: str) -> int:
        self.line.erase()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Line:
    """The line of elapsed time on a terminal."""

    def __init__(self, doing: str, stream: TextIO) -> None:
        self.doing, self.stream = doing, stream
        self.done, self.lock = threading.Event(), threading.Lock()
        self.shown, self.printed = "", time.monotonic()

    def erase(self) -> None:
        """Remove the line, and note that something else is printed."""
        with self.lock:
            if self.shown:
                self.stream.write("\r" + " " * len(self.shown) + "\r")
                self.stream.flush()
            self.shown, self.printed = "", time.monotonic()

    def keep_up(self) -> None:
        """Redraw bars, or the line if there are none, until the work is done."""
        due = 0.0
        while not self.done.wait(_SILENCE / 4):
            now = time.monotonic()
            if now - self.printed < _SILENCE or now < due:
                continue
            due = now + _SILENCE
            bars = sys.modules.get("tqdm.std")
            active = [bar for bar in list(getattr(bars.tqdm, "_instances", [])) if not bar.disable] if bars else []
            for bar in active:
                bar.refresh()
            if not active:
                with self.lock:
                    self.shown = f"\r{self.doing}: {now - self.printed:.0f} s "
                    self.stream.write(self.shown)
                    self.stream.flush()
