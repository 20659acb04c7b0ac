"""Hidden files that must not outlive this process: they are also removed if it ends in the middle of a function."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

_REMOVALS: dict[object, Callable[[], None]] = {}


def remove_on_leaving(key: object, remove: Callable[[], None]) -> None:
    """Remember a function that removes a hidden file, until `forget` is called with the same key."""
    _REMOVALS[key] = remove


def forget(key: object) -> None:
    """Forget a file that has been removed."""
    _REMOVALS.pop(key, None)


def remove_hidden_files() -> None:
    """Remove all remembered files. Only called when the process is about to end: their writers have stopped."""
    while _REMOVALS:
        with suppress(OSError, KeyError):
            _REMOVALS.popitem()[1]()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_REMOVALS.clear)  # these are the files of the parent
