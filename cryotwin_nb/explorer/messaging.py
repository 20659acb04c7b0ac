"""What the handlers of the browser's messages share, and checks of what messages hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.packing import Packing

if TYPE_CHECKING:
    from cryotwin_nb.explorer.search import PathAnswer

_MOST_PICTURE = 3_000_000  # bytes
_PNG = b"\x89PNG\r\n\x1a\n"


class Messages:
    """What the handlers of all messages share: the explorer, its session, its jobs, and the answers to the browser."""

    def __init__(self, explorer: Any) -> None:
        self._explorer, self._session, self._jobs = explorer, explorer.session, explorer.jobs
        self._send = explorer.send_message

    def _shown(self, message: dict) -> tuple[PathAnswer, int]:
        """Return the result that a message is about; raise `InputError` if it is not the one shown by now."""
        with self._session.lock:
            answer, version = self._session.answer, self._session.version
        if answer is None:
            sentence = "There is no path yet."
            raise InputError("path", "no path", "a computed path", "Choose two stars and press Compute.", sentence)
        if message.get("version") != version:
            sentence = "Another path has been computed since."
            raise InputError("path", "another path", "the path shown", "Try again with the new path.", sentence)
        return answer, version

    def _column(self, name: Any) -> tuple[str, np.ndarray]:
        columns = self._session.model.columns
        if not isinstance(name, str) or name not in columns:
            raise InputError("colour", f"{name!r:.40}", f"one of {', '.join(columns)}", "Choose a column of the list.")
        return name, columns[name]

    def _send_single(
        self, turn: Any, title: str, volume: torch.Tensor, packing: Packing, voxel_size: float | None
    ) -> None:
        maps = packing.described(voxel_size)
        self._send(kind="single", turn=turn, title=title, maps=maps, buffers=[packing.pack(volume)])


def text_of(value: Any, default: str | None = None) -> str:
    """Return the name of a file or folder that a message holds; raise `InputError` unless it is a text of one."""
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or not len(value) <= 1000 or "\0" in value:
        raise InputError("file", f"{value!r:.40}", "a file or folder", "Enter a name.")
    return value.strip()


def png_of(buffers: list[bytes]) -> bytes:
    """Return the picture that a message holds; raise `InputError` unless it is a PNG of at most 3 MB."""
    if len(buffers) != 1 or not buffers[0].startswith(_PNG) or len(buffers[0]) > _MOST_PICTURE:
        raise InputError("picture", "something else", "a PNG of at most 3 MB", "Reload the page.")
    return buffers[0]
