"""Stops of a call before and after each of its steps on the disk, as by SIGKILL, and what can be read afterwards.

A step is a file that is opened for writing, renamed, removed or flushed, or a folder that is created or removed.
Used by the tests and by benchmarks/stops.py.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cryotwin_nb as ct

STEPS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "fsync")
Action, State = Callable[[Path], Any], Callable[[Path], Any]


def steps(action: Action, former: Path, work: Path) -> int:
    """Return the number of steps of an action in a copy of the folder `former`."""
    return _run(action, _fresh(former, work), stop=-1)


def after_stops(
    action: Action, state: State, former: Path, work: Path, stops: Iterable[int] | None = None, again: bool = False
) -> Counter:
    """Stop an action in a copy of a folder at each step; count what the readers find.

    Parameters
    ----------
    action : callable
        Function of a folder, with a former output in it.
    state : callable
        Function of the folder that reads the output and returns all that it reads.
    former, work : Path
        Folder with the former output; place for copies of it.
    stops : iterable of int, optional
        2 k: before step k; 2 k + 1: after it. By default all.
    again : bool
        After each stop, also run the action again without a stop, and count if the new output is then found.

    Returns
    -------
    Counter
        How often the output was "old", "new", "refused" or "mixed", and "again" if running it again did not help.
    """
    old = plain(state(_fresh(former, work)))
    total = _run(action, work, stop=-1)
    new = plain(state(work))
    assert old != new, "the former and the new output are the same"
    assert plain(state(_fresh(former, work))) == old, "reading changes what is read"
    found: Counter = Counter()
    for stop in range(2 * total) if stops is None else stops:
        _run(action, _fresh(former, work), stop % (2 * total))
        result = _read(state, work)
        found["refused" if result is None else "old" if result == old else "new" if result == new else "mixed"] += 1
        if again:
            _run(action, work, stop=-1)
            found["again"] += _read(state, work) != new
    return found


def plain(value: Any) -> Any:
    """Return a value with each array as its type, shape and bytes, so that == compares bit by bit."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else repr(value)


def _fresh(former: Path, work: Path) -> Path:
    shutil.rmtree(work, ignore_errors=True)
    return Path(shutil.copytree(former, work))


def _read(state: State, folder: Path) -> Any:
    """Return what the readers find; None if they refuse it."""
    try:
        return plain(state(folder))
    except ct.InputError:
        return None


def _run(action: Action, folder: Path, stop: int) -> int:
    """Run an action in a child process that ends at a step, and return the number of steps until then."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks in processes with threads
        child = os.fork()
    if not child:
        try:
            os.close(reader)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1), os.dup2(null, 2)
            taken = _watch(stop, writer)
            action(folder)
            os.write(writer, b"%d done" % len(taken))
        except BaseException as error:
            os.write(writer, f"0 {type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        count, _, end = pipe.read().decode().partition(" ")
    os.waitpid(child, 0)
    assert end == ("done" if stop < 0 else "stopped"), end
    return int(count)


def _watch(stop: int, writer: int) -> list[str]:
    """Count the steps of this process, and end it before or after one of them; return those so far."""
    taken: list[str] = []

    def watched(name: str, plain_function: Callable, is_step: Callable[..., bool]) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not is_step(*args, **kwargs):
                return plain_function(*args, **kwargs)
            number = len(taken)
            taken.append(name)
            _end_if(2 * number == stop)
            try:
                return plain_function(*args, **kwargs)
            finally:
                _end_if(2 * number + 1 == stop)

        return call

    def _end_if(now: bool) -> None:
        if now:
            os.write(writer, b"%d stopped" % len(taken))
            os._exit(0)

    def writes(file: Any, mode: str = "r", *_: Any, **__: Any) -> bool:
        return bool(set(mode) & set("wxa+")) and file != os.devnull

    for name in STEPS:
        setattr(os, name, watched(name, getattr(os, name), lambda *_, **__: True))
    builtins.open = io.open = watched("open", io.open, writes)  # type: ignore[assignment]
    return taken
