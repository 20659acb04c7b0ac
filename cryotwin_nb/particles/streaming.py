"""Prepared images of a data set: cached in memory if they fit, else read from disk one batch ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError, warn_user, whole
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import image_quality, warn_of
from cryotwin_nb.runtime import distributed
from cryotwin_nb.runtime.memory import available

S = TypeVar("S")
T = TypeVar("T")

_CHUNK = 256  # images per chunk, if every image is used and their order does not matter
_CHUNK_PIXELS = _CHUNK * 128**2  # limits the chunks of larger images, so that slices need no more memory


def prefetched(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Yield function(item) for each item, in order; the next one is computed in a thread while the current one is used.

    An error in the function is raised here when the result for its item is due. At most one result is held in advance.
    """
    with ThreadPoolExecutor(1, "prefetch") as thread:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(thread.submit(function, item))
                if len(waiting) > 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            thread.shutdown(wait=True, cancel_futures=True)


def chunks(n: int, box_size: int) -> list[np.ndarray]:
    """Return the rows of this process's share of n images, in chunks of moderate size."""
    mine = distributed.share(n)
    rows, size = np.arange(mine.start, mine.stop), min(_CHUNK, max(16, _CHUNK_PIXELS // box_size**2))
    return np.array_split(rows, -(-len(rows) // size)) if len(rows) else []


def require_suitable(imaging: ImageFormation, particles: Particles) -> None:
    """Raise `InputError` unless particles have poses, a CTF, and the box size and pixel size of `imaging`."""
    where, size = "particles", imaging.plane.box_size
    if particles.box_size != size:
        remedy = f"Resample the images, or create the model with CryoTwin({particles.box_size})."
        raise InputError(where, f"a box of {particles.box_size} pixels", f"a box of {size} pixels", remedy)
    known = float(imaging.pixel_size)
    if imaging.measured and abs(particles.pixel_size / known - 1) > 1e-3:
        found, expected = f"a pixel size of {particles.pixel_size:.4g} Å", f"{known:.4g} Å"
        raise InputError(where, found, expected, "Use images on the grid that the model was trained on.")
    particles.require_views()


def batches(
    imaging: ImageFormation, particles: Particles, size: int, doing: str | None, rows: np.ndarray | None = None
) -> Iterator[ImageBatch]:
    """Yield the images of a data set for a trained model, `size` at a time, prepared one batch ahead.

    `doing` is the label of a progress bar in the first process; None shows no bar. By default all rows are used.

    Raises
    ------
    InputError
        If the images are not on the grid of the model, or the model has seen no images.
    """
    require_suitable(imaging, particles)
    size = whole("batch_size", size, "Pass the number of images to process at once.")
    if not imaging.measured:
        raise InputError("model", "a model that has seen no images", "a trained model", "Run fit, or load a model.")
    if not imaging.knows_groups(particles):
        warn_user(
            "The optics groups differ from those of the training set, so all images are whitened with its pooled "
            "noise. To whiten each group separately, train on a set that contains these groups."
        )
    warn_of(particles, doing is not None)  # here, because all processes must compare the images together
    rows = np.arange(len(particles)) if rows is None else rows
    pieces = [rows[i : i + size] for i in range(0, len(rows), size)]
    prepared = prefetched(lambda piece: imaging.batch(particles, piece), pieces)
    return iter(tqdm(prepared, desc=doing, total=len(pieces), disable=doing is None or distributed.rank() > 0))


class PreparedImages:
    """The images of a data set, prepared by `ImageFormation.batch` on its device.

    Parameters
    ----------
    imaging : ImageFormation
        Image formation that prepares the images.
    particles : Particles
        The data set.
    cache_gib : float
        Cache limit, GiB. The images are kept in memory if they need less than this and less than half of the free
        memory; otherwise they are prepared again at each use.
    rows : slice
        Rows that this process uses repeatedly.
    """

    def __init__(self, imaging: ImageFormation, particles: Particles, cache_gib: float, rows: slice) -> None:
        self._imaging, self._particles, self._rows = imaging, particles, rows
        self._cache: ImageBatch | None = None
        image_quality(particles)  # here, because all processes must compare the images together
        device, needed = imaging.window.device, (rows.stop - rows.start) * len(imaging.frequencies) * 12
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1
        self._keep = needed < min(cache_gib * 2**30, available(device) / 2 / beside)

    def batches(self, rows: Iterable[np.ndarray]) -> Iterator[ImageBatch]:
        """Yield the images of each array of rows."""
        if self._keep and self._cache is None:
            self._cache = self._everything()
        return map(self._take, rows) if self._keep else prefetched(self._prepare, rows)

    def chunks(self, n: int | None = None) -> Iterator[ImageBatch]:
        """Yield this process's share of all images, or of the first n images, in order."""
        size = self._particles.box_size
        return self.batches(chunks(min(n or len(self._particles), len(self._particles)), size))

    def _prepare(self, rows: np.ndarray) -> ImageBatch:
        return self._imaging.batch(self._particles, rows)

    def _take(self, rows: np.ndarray) -> ImageBatch:
        mine = self._rows
        if self._cache is None or (len(rows) and (rows.min() < mine.start or rows.max() >= mine.stop)):
            return self._prepare(rows)
        return self._cache.take(torch.as_tensor(rows - mine.start, device=self._imaging.window.device))

    def _everything(self) -> ImageBatch:
        """Prepare all rows; each array is filled piece by piece, so that memory holds only one copy."""
        start, n = self._rows.start, self._rows.stop - self._rows.start
        whole: ImageBatch | None = None
        pieces = np.array_split(np.arange(start, start + n), -(-n // _CHUNK))
        for rows, batch in zip(pieces, prefetched(self._prepare, pieces)):
            if whole is None:
                whole = ImageBatch(*(part.new_empty(n, *part.shape[1:]) for part in tuple(batch)))
            for target, part in zip(tuple(whole), tuple(batch), strict=True):
                target[rows[0] - start : rows[-1] - start + 1] = part
        assert whole is not None  # there is at least one image
        return whole
