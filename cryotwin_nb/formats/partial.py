"""Resumable writing of a stack, in chunks and by several workers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.mrc import HEADER_BYTES
from cryotwin_nb.formats.mrc_writing import create_stack
from cryotwin_nb.formats.outputs import require_room
from cryotwin_nb.formats.sets import FileSet

Work = Callable[[np.ndarray], tuple[np.ndarray, dict[str, list]]]
"""Function from row numbers (m,) to images (m, D, D) and the values that the journal stores for each image."""


class OtherAttempt(InputError):
    """An unfinished stack has another input or other options."""


class PartialStack:
    """Unfinished stack and its journal, two hidden files next to the final stack.

    The first line of the journal records the input and the options. Each further line records a chunk that is on disk,
    with the values stored for its images. A line is written after its images, so the process can be killed at any time.

    Parameters
    ----------
    path : Path
        The final .mrcs file.
    n_images, box_size, pixel_size, dtype
        As in `mrc_writing.create_stack`.
    chunk : int
        Number of images per chunk.
    """

    def __init__(
        self, path: Path, n_images: int, box_size: int, pixel_size: float, dtype: type, chunk: int = 256
    ) -> None:
        self.target, self.shape, self.pixel_size = path, (n_images, box_size, box_size), pixel_size
        self.dtype, self.chunk = np.dtype(dtype), chunk
        self.stack = path.with_name(f".{path.stem}.unfinished.mrcs")
        self.journal = path.with_name(f".{path.stem}.unfinished.jsonl")
        self.done: dict[int, dict[str, list]] = {}

    def open(self, identity: dict[str, Any], resume: bool, start: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Resume an earlier attempt or start a new one; return the values that `start` returned in the first attempt.

        Parameters
        ----------
        identity : dict
            Input and options (plain values), which must be unchanged to resume.
        resume : bool
            Whether to resume an earlier attempt; False starts over.
        start : callable
            Function that returns plain values, which are stored in the first line of the journal.

        Raises
        ------
        InputError
            If the earlier attempt had a different input or different options, or the disk has too little free space.
        """
        lines = self._read_journal() if resume and self.stack.is_file() else []
        if lines:
            self._require_same(lines[0]["identity"], identity)
            self.done = {line.pop("chunk"): line for line in lines[1:]}
            self._require_room()
            return lines[0]["begun"]
        self.discard()
        self._require_room()
        begun = start()
        create_stack(self.stack, *self.shape[:2], self.pixel_size, self.dtype.type)
        self._note({"identity": identity, "begun": begun})
        return begun

    def _read_journal(self) -> list[dict[str, Any]]:
        """Return the lines of the journal; an incomplete last line (after a crash) is removed."""
        lines: list[dict[str, Any]] = []
        text = self.journal.read_bytes() if self.journal.is_file() else b""
        for line in text.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            lines.append(json.loads(line))
        if sum(map(len, text.splitlines(keepends=True)[: len(lines)])) < len(text):
            with open(self.journal, "r+b") as file:
                file.truncate(sum(map(len, text.splitlines(keepends=True)[: len(lines)])))
        return lines

    def _require_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        changed = [f"{name} {now[name]} instead of {before.get(name)}" for name in now if before.get(name) != now[name]]
        if changed:
            remedy = "Use the same input and options, or start over with resume=False (--overwrite)."
            found, expected = ", ".join(changed), "the same input and options"
            sentence = f"{self.stack} cannot be resumed with {found}."
            raise OtherAttempt(self.stack, found, expected, remedy, sentence)

    def _require_room(self) -> None:
        n, size, _ = self.shape
        missing = n - sum(len(self.rows(number)) for number in self.done)
        remedy = "Free disk space, write to another disk, or choose a smaller box or float16."
        require_room(self.target.parent, missing * size**2 * self.dtype.itemsize, f"{missing} images", remedy)

    @property
    def n_chunks(self) -> int:
        return -(-self.shape[0] // self.chunk)

    def rows(self, number: int) -> np.ndarray:
        """Return the row numbers of the images in a chunk."""
        return np.arange(number * self.chunk, min((number + 1) * self.chunk, self.shape[0]))

    def fill(self, work: Work, workers: int, initializer: Callable[[], None]) -> Iterator[int]:
        """Compute the missing chunks; yield the number of images in each once it is on disk.

        Raises
        ------
        InputError
            If a chunk cannot be written (finished chunks are kept), or an image cannot be used (no chunks are kept).
        """
        missing = [number for number in range(self.n_chunks) if number not in self.done]
        with ThreadPoolExecutor(workers, initializer=initializer) as pool:
            futures = [pool.submit(self._one, number, work) for number in missing]
            try:
                for future in as_completed(futures):
                    number, kept = future.result()
                    self.done[number] = kept
                    self._note({"chunk": number} | kept)
                    yield len(self.rows(number))
            except InputError:  # unusable image: the finished chunks do not fit the next selection
                self.discard()
                raise
            except OSError as error:
                remedy = "Free disk space, then run again; finished images are kept."
                sentence = f"{self.stack} cannot be written: {error}."
                raise InputError(self.stack, f"{error}", "a writable file", remedy, sentence) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, number: int, work: Work) -> tuple[int, dict[str, list]]:
        rows = self.rows(number)
        images, kept = work(rows)
        with open(self.stack, "r+b") as file:
            file.seek(HEADER_BYTES + int(rows[0]) * images[0].nbytes)
            file.write(np.ascontiguousarray(images, dtype=self.dtype).data)
            file.flush()
            os.fsync(file.fileno())
        return number, kept

    def _note(self, line: dict[str, Any]) -> None:
        with open(self.journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def kept(self) -> dict[str, np.ndarray]:
        """Return the values that the journal stores for all images, in order, as (n,) arrays."""
        chunks = [self.done[number] for number in range(self.n_chunks)]
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def finish(self, files: FileSet) -> None:
        """Let the stack take its final name, and remove the journal, together with the other files of a set."""
        files.add(self.stack, self.target, keep=True)
        files.remove(self.journal)

    def discard(self) -> None:
        """Remove both files."""
        for path in (self.stack, self.journal):
            path.unlink(missing_ok=True)
