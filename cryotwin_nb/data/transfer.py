"""Transfer of one file over http: resumed after interruptions, and limited to the size that the manifest states."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import pooch

from cryotwin_nb.errors import InputError


def transfer(url: str, part: Path, progress: bool, size: int | None) -> None:
    """Download `url` into `part`, resuming an earlier attempt if the server supports it.

    Raises
    ------
    InputError
        If the download does not end, has more than `size` bytes, or `part` is a link.
    """
    try:
        with _opened(part) as handle:
            bounded = _Bounded(handle, url, size)

            def inspect(response: Any, **_: Any) -> None:
                if response.status_code == 200:  # the server sends the whole file; 206 would mean only the rest
                    handle.seek(0)
                    handle.truncate()
                if response.status_code in (200, 206) and response.headers.get("Content-Length", "").isdecimal():
                    bounded.require(handle.tell() + int(response.headers["Content-Length"]))

            headers = {"Accept-Encoding": "identity"}
            if handle.tell():
                headers["Range"] = f"bytes={handle.tell()}-"
            get = pooch.HTTPDownloader(progress, chunk_size=2**16, headers=headers, hooks={"response": inspect})
            get(url, bounded, None)
    except _TooLongError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:  # includes exceptions of requests and a full disk
        there = part.stat().st_size if part.exists() else 0
        response = getattr(error, "response", None)
        if response is not None and response.status_code == 416:  # no bytes beyond those already downloaded
            if response.headers.get("Content-Range") == f"bytes */{there}":
                return
            there = 0  # the partial download belongs to another file
        if there == 0:
            part.unlink(missing_ok=True)
        remedy = (
            "Check the connection and the free disk space, then call again; the download resumes where it stopped. "
            f"Or obtain the file by other means and save it as {part.with_suffix('')}."
        )
        sentence = f"{url} could not be downloaded completely: {error}."
        raise InputError(url, f"no complete download ({error})", "the whole file", remedy, sentence) from error


class _TooLongError(InputError):
    """A download has more bytes than the manifest states."""


class _Bounded:
    """File that accepts at most `size` bytes."""

    def __init__(self, handle: BinaryIO, url: str, size: int | None) -> None:
        self._handle, self._url, self._size = handle, url, size

    def require(self, total: int, at_least: str = "") -> None:
        """Raise an exception if a total number of bytes exceeds the size in the manifest."""
        if self._size is not None and total > self._size:
            remedy = "Try again, or correct the manifest. The download was discarded."
            raise _TooLongError(self._url, f"{at_least}{total} bytes", f"{self._size} bytes", remedy)

    def write(self, chunk: bytes) -> int:
        self.require(self._handle.tell() + len(chunk), "at least ")
        return self._handle.write(chunk)

    def flush(self) -> None:
        self._handle.flush()


def _opened(part: Path) -> BinaryIO:
    """Open a partial download to append to it; refuse links and special files, which lead to other places."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    found = part.lstat() if os.path.lexists(part) else None
    if found is None or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
        return os.fdopen(os.open(part, flags, 0o666), "ab")
    sentence = f"{part} is a link or a special file; a download is not written through it."
    raise InputError(part, "a link or a special file", "no file, or a partial download", "Delete it.", sentence)
