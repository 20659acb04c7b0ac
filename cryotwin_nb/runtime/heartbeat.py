"""Progress display for commands that print nothing: bars are redrawn, or the elapsed time is shown."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_SILENCE = 1.0  # seconds without output before progress is shown


class _Watched:
    """A stream that notes when it was last written to."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.last = stream, time.monotonic()

    def write(self, text: str) -> int:
        self.last = time.monotonic()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


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
    out, err = _Watched(sys.stdout), _Watched(sys.stderr)
    before, done = (sys.stdout, sys.stderr), threading.Event()
    sys.stdout, sys.stderr = out, err
    thread = threading.Thread(target=_beat, args=(doing, out, err, done), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        sys.stdout, sys.stderr = before


def _beat(doing: str, out: _Watched, err: _Watched, done: threading.Event) -> None:
    shown, due = "", 0.0
    while not done.wait(0.25):
        now, printed = time.monotonic(), max(out.last, err.last)
        if now - printed < _SILENCE:
            shown = ""
        elif now >= due:
            due = now + _SILENCE
            bars = sys.modules.get("tqdm.std")
            active = [bar for bar in list(getattr(bars.tqdm, "_instances", [])) if not bar.disable] if bars else []
            for bar in active:
                bar.refresh()
            if not active:
                shown = f"\r{doing}: {now - printed:.0f} s "
                err.stream.write(shown)
                err.stream.flush()
    if shown:
        err.stream.write("\r" + " " * len(shown) + "\r")
        err.stream.flush()
