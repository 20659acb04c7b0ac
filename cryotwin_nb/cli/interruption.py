"""Ctrl-C and SIGTERM at any moment: one line, exit status 130 or 143, and no hidden file is left."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

from cryotwin_nb.runtime.leaving import remove_hidden_files

INTERRUPTED, TERMINATED = 130, 143
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LINE = "Interrupted. `train --resume` and `prepare` resume where they stopped."


class Terminated(KeyboardInterrupt):
    """Raised when the process receives SIGTERM."""


def report(number: int) -> int:
    """Remove the hidden files of this process, print the line, and return the exit status for a signal."""
    remove_hidden_files()
    if is_main():
        print(_LINE, file=sys.stderr)
    return _status(number)


def is_main() -> bool:
    """Return whether this process is the only one, or the first of those started by torchrun."""
    return os.environ.get("RANK", "0") == "0"


def _status(number: int) -> int:
    return TERMINATED if number == signal.SIGTERM else INTERRUPTED


def end_at_once(number: int, frame: FrameType | None = None) -> NoReturn:
    """Handle a signal while nothing has been started, or a second signal: no exception that an import could swallow."""
    remove_hidden_files()
    if is_main():
        os.write(2, f"\r{_LINE}\n".encode())  # print cannot be called while it is running
    os._exit(_status(number))


def handled_by(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> dict[int, Any]:
    """Set the handler of both signals, where possible, and return the former ones; ignored signals stay ignored."""
    former: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                former[number] = signal.signal(number, handler)
    return former


class Interruptible:
    """Context in which the first signal raises `KeyboardInterrupt`, and the second one ends the process.

    Attributes
    ----------
    number : int
        The signal that was received; 0 if none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._former: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    def __enter__(self) -> Interruptible:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._former = handled_by(self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            end_at_once(self.number)
        self.number = number
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _unraisable(self, found: Any) -> None:
        """Repeat an interruption that Python had to ignore because it was raised within a destructor."""
        if not isinstance(found.exc_value, KeyboardInterrupt):
            self._hook(found)
            return
        number, self.number = self.number, 0
        main = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, [main, number or signal.SIGINT]).start()
