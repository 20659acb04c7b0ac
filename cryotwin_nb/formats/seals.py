"""Checksums of zip archives (.npz, .pt), stored in the archive comment, which other programs ignore.

Zip archives contain a checksum of each member, but PyTorch does not compare it, NumPy compares it only for members read
to their end, and it does not cover the names, sizes and positions of the members. The seal covers every byte.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

_END, _END_BYTES = b"PK\x05\x06", 22  # record at the end of an archive, without a comment; its last two bytes are 0
_DIGEST_BYTES = 64


class Damaged(ValueError):
    """The content of a file does not match its checksum."""


def seal(file: BinaryIO, note: str = "") -> None:
    """Append a note and the SHA-256 of the whole content to a zip archive that is open for reading and writing."""
    size = file.seek(0, os.SEEK_END)
    comment = note.encode()
    file.seek(size - 2)
    file.write((len(comment) + _DIGEST_BYTES).to_bytes(2, "little") + comment)
    file.write(_digest(file, size + len(comment)))


def seal_file(path: Path, note: str = "") -> None:
    """Seal the archive at `path`; see `seal`."""
    with open(path, "r+b") as file:
        seal(file, note)


def sealed_note(path: Path) -> str | None:
    """Return the note in the seal of an archive, after comparing its checksum; None if there is no seal.

    Archives written before seals were introduced have none.

    Raises
    ------
    Damaged
        If the content was changed since the archive was sealed.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES))
        end = file.read()
        if end.startswith(_END) and end.endswith(b"\0\0"):
            return None
        start = max(0, size - _DIGEST_BYTES)
        if _digest(file, start) != file.read():
            raise Damaged("its contents do not match its checksum")
        file.seek(max(0, start - 2**16))
        return file.read(start - file.tell()).rpartition(_END)[2][_END_BYTES - len(_END) :].decode()


def _digest(file: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of the first `size` bytes, as hexadecimal digits, and leave the file positioned after them."""
    file.seek(0)
    digest = hashlib.sha256()
    while size and (chunk := file.read(min(size, 2**20))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()
