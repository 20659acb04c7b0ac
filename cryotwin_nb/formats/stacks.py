"""Image sources: an array in memory, stacks on disk read on demand, or none (metadata only)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cryotwin_nb.errors import InputError, SeveralGrids
from cryotwin_nb.formats.files import locate_stacks
from cryotwin_nb.formats.metadata import Metadata
from cryotwin_nb.formats.mrc import Header, read_stack_header
from cryotwin_nb.imaging.fourier import require_box_size

IMAGES_PER_STACK = 2**40  # above the number of images in any stack: `identity` is stack * this + image


class ImageSource(Protocol):
    """Protocol for the recorded images of n particles."""

    @property
    def box_size(self) -> int:
        """Box size D, pixels."""

    @property
    def files(self) -> dict[str, Path | None]:
        """Stacks that the images are read from, by their names in the particle file; None if a stack was not found."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> ImageSource:
        """Return the images of a subset of particles, sharing storage."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read images (m, D, D) float32."""

    def name(self, row: int) -> str:
        """Return the name of an image for messages."""

    @property
    def identity(self) -> np.ndarray:
        """Number (n,) int64 of each image; rows that list the same image have the same number."""


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory: rows of an array (N, D, D)."""

    array: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> ArrayImages:
        return replace(self, rows=self.rows[rows])

    @property
    def box_size(self) -> int:
        return int(self.array.shape[-1])

    @property
    def files(self) -> dict[str, Path | None]:
        return {}

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.array[self.rows[rows]].astype(np.float32, copy=False)

    def name(self, row: int) -> str:
        return f"image {self.rows[row]} of the array"

    @property
    def identity(self) -> np.ndarray:
        return self.rows.astype(np.int64)


@dataclass(frozen=True)
class StackImages:
    """Images in stacks on disk: particle i is image `image_number[i]` (from 0) of stack `stack_number[i]`."""

    stacks: tuple[Header | None, ...]
    names: tuple[str, ...]
    stack_number: np.ndarray
    image_number: np.ndarray

    def __len__(self) -> int:
        return len(self.stack_number)

    def __getitem__(self, rows: np.ndarray) -> StackImages:
        return replace(self, stack_number=self.stack_number[rows], image_number=self.image_number[rows])

    @property
    def box_size(self) -> int:
        return self._header(int(self.stack_number[0])).shape[-1]

    @property
    def files(self) -> dict[str, Path | None]:
        return {self.names[i]: self._header(i).path.resolve() for i in np.unique(self.stack_number).tolist()}

    @property
    def notes(self) -> list[str]:
        """Header values that were not believed."""
        return [note for i in np.unique(self.stack_number) for note in self._header(int(i)).notes]

    def _header(self, number: int) -> Header:
        header = self.stacks[number]
        if header is None:
            raise IndexError(f"stack {number} was not opened")
        return header

    def read(self, rows: np.ndarray) -> np.ndarray:
        stack_number, image_number = self.stack_number[rows], self.image_number[rows]
        images = np.empty((len(stack_number), self.box_size, self.box_size), dtype=np.float32)
        for number in np.unique(stack_number):
            wanted = np.flatnonzero(stack_number == number)
            images[wanted] = self._header(int(number)).read(image_number[wanted])
        return images

    @property
    def identity(self) -> np.ndarray:
        paths = [None if header is None else header.path.resolve() for header in self.stacks]
        first = {path: number for number, path in reversed(list(enumerate(paths)))}
        stack = np.array([first[path] for path in paths], np.int64)[self.stack_number]
        return stack * IMAGES_PER_STACK + self.image_number

    def name(self, row: int) -> str:
        return f"image {self.image_number[row] + 1} of {self._header(int(self.stack_number[row])).path}"


@dataclass(frozen=True)
class NoImages:
    """Placeholder for the images of particles with metadata only."""

    identity: np.ndarray
    stated_box_size: int | None
    where: object = "particles"
    located: Callable[[], dict[str, Path | None]] = dict

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, rows: np.ndarray) -> NoImages:
        return replace(self, identity=self.identity[rows])

    @property
    def box_size(self) -> int:
        if self.stated_box_size is None:
            raise InputError(self.where, "no box size", "rlnImageSize", "Pass box_size= in pixels.")
        return self.stated_box_size

    @property
    def files(self) -> dict[str, Path | None]:
        return self.located()

    def read(self, rows: np.ndarray) -> np.ndarray:
        raise InputError(self.where, "metadata only", "images", "Read the particles with images=True.")

    def name(self, row: int) -> str:
        return f"particle {row}"


def open_stacks(table: Metadata, datadir: str | os.PathLike | None = None) -> StackImages:
    """Find the stacks of particles and check that each image exists and that all have the same box size.

    Raises
    ------
    InputError
        If a stack is missing, damaged or not the one that the file was written for, a particle is past the end of its
        stack, or the box sizes differ.
    """
    used = np.unique(table.stack_number).tolist()
    found = locate_stacks([table.stacks[number] for number in used], table.path, datadir)
    if table.stamp is not None:
        from cryotwin_nb.formats.sidecars import require_stacks

        require_stacks(table, found)
    headers = {number: read_stack_header(found[table.stacks[number]]) for number in used}
    for number, header in headers.items():
        name, sections = table.stacks[number], header.shape[0]
        if name in table.whole_files and sections > 1:
            named = f"{name!r} without an image number, a file of {sections} images"
            remedy = "Write N@stack for image N of a stack. Subtomograms and tilt series are not supported."
            sentence = f"{table.path} lists {named}."
            raise InputError(table.path, named, "a single image per particle", remedy, sentence)
    sizes = {header.shape[-1]: header.path for header in headers.values()}
    if len(sizes) > 1:
        listed = " and ".join(f"{size} ({path})" for size, path in sorted(sizes.items()))
        boxes = np.array([headers[i].shape[-1] if i in headers else 0 for i in range(len(table.stacks))])
        raise SeveralGrids(table.path, f"box sizes {listed}", replace(table, box_size=boxes[table.stack_number]))
    length = np.array([headers[i].shape[0] if i in headers else 0 for i in range(len(table.stacks))])
    beyond = np.flatnonzero((table.image_number >= length[table.stack_number]) | (table.image_number < 0))
    if len(beyond):
        header = headers[int(table.stack_number[beyond[0]])]
        past = f"image {table.image_number[beyond[0]] + 1} of {header.path}, which contains {header.shape[0]} images"
        remedy = "Use the stack that this file was written for."
        raise InputError(table.path, past, "images that exist", remedy, f"{table.path} refers to {past}.")
    opened = tuple(headers.get(i) for i in range(len(length)))
    return StackImages(opened, table.stacks, table.stack_number, table.image_number)


def as_source(images: Any, parts: tuple, box_size: int | None, where: object) -> ImageSource:
    """Return images as an `ImageSource`: an array is checked, None becomes `NoImages` with the length of the parts."""
    if images is None:
        counts = [len(part) for part in parts if part is not None]
        if box_size is not None:
            require_box_size(box_size, where)
        return NoImages(np.arange(counts[0] if counts else 0), box_size, where)
    if not hasattr(images, "read"):  # not a source yet
        array = np.asarray(images)
        if array.ndim != 3 or array.shape[1] != array.shape[2] or array.dtype.kind not in "fiu":
            found = f"images of shape {array.shape} and type {array.dtype}"
            raise InputError(where, found, "real numbers of shape (n, D, D)", "Pass square images in one array.")
        images = ArrayImages(array, np.arange(len(array)))
    if not isinstance(images, NoImages) or images.stated_box_size is not None:
        require_box_size(images.box_size, where)
    return images


def read_finite(source: ImageSource, rows: np.ndarray) -> np.ndarray:
    """Read images (m, D, D) float32 from a source.

    Raises
    ------
    InputError
        If an image contains NaN or infinity; the message names the image and its stack.
    """
    images = source.read(rows)
    finite = np.isfinite(images).all(axis=(1, 2))
    if not finite.all():
        name = source.name(int(rows[np.argmin(finite)]))
        raise InputError(name, "NaN or infinity", "finite values", "Exclude that particle with indices=.")
    return images


def check_box(path: Path, source: ImageSource, given: int | None, stated: int | None) -> None:
    """Check that the images have the given or stated box size, to which poses and pixel size refer."""
    if isinstance(source, NoImages):
        return
    for box, origin in ((given, "box_size="), (stated, str(path))):
        if box is not None and box != source.box_size:
            remedy = "If the images were rescaled, pass their pixel_size= in Å; otherwise use the original stack."
            found = f"images of {source.box_size} pixels"
            raise InputError(path, found, f"{box} pixels as in {origin}", remedy)
