"""Output folders: no two explorers of a session write into one."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from pathlib import Path

from cryotwin_nb.errors import InputError

DEFAULT = "pathway"
_OWNERS: dict[Path, weakref.ref] = {}
_LOCK = threading.Lock()


def claim(folder: str | os.PathLike, owner: object) -> Path:
    """Reserve a folder for an explorer.

    Raises
    ------
    InputError
        If it belongs to another explorer that is in use.
    """
    folder = Path(folder)
    with _LOCK:
        other = _OWNERS.get(folder.resolve(), lambda: None)()
        if other is not None and other is not owner:
            sentence = f"Another explorer of this session writes to {folder}."
            raise InputError(folder, "a folder of another explorer", "another folder", "Choose another name.", sentence)
        _OWNERS[folder.resolve()] = weakref.ref(owner)
    return folder


def claim_new(owner: object) -> Path:
    """Create a default folder for an explorer, with a number if others have its name; return it if there is one."""
    with _LOCK:
        own = [folder for folder, other in _OWNERS.items() if other() is owner and _is_default(folder)]
    if own:
        return Path(os.path.relpath(own[0]))
    for number in itertools.count(1):
        folder = Path(DEFAULT if number == 1 else f"{DEFAULT}_{number}")
        try:
            os.mkdir(folder)
        except FileExistsError:
            continue
        except OSError:  # reported when the files are written
            pass
        return claim(folder, owner)
    raise AssertionError("the numbers do not end")


def release(owner: object) -> None:
    """Let other explorers use the folders of an explorer."""
    with _LOCK:
        for folder in [folder for folder, other in _OWNERS.items() if other() in (None, owner)]:
            del _OWNERS[folder]


def _is_default(folder: Path) -> bool:
    return folder.parent == Path.cwd() and folder.name.partition("_")[0] == DEFAULT
