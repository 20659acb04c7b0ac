"""Writing of maps and stacks as MRC files."""

from __future__ import annotations

import os
from collections.abc import Iterable

import mrcfile
import numpy as np
import torch
from mrcfile.dtypes import HEADER_DTYPE

from cryotwin_nb.errors import InputError, guarded, positive
from cryotwin_nb.formats.files import atomic, require_suffix
from cryotwin_nb.formats.mrc import HEADER_BYTES
from cryotwin_nb.imaging.fourier import fourier_padded, mirrored
from cryotwin_nb.mixture.points import as_numbers

_STARTS, _AXES = ("nxstart", "nystart", "nzstart"), ("mapc", "mapr", "maps")
_FLIPPED = "Hand flipped by cryotwin_nb: z to -z about the voxel D//2"


def write_stack(
    path: str | os.PathLike, chunks: Iterable[np.ndarray], n_images: int, box_size: int, pixel_size: float
) -> None:
    """Write a stack of images chunk by chunk, directly to `path` (not atomic, see `files.atomic`).

    Parameters
    ----------
    path : path-like
        The .mrcs file.
    chunks : iterable of (m, D, D) float32
        Images, in order.
    n_images, box_size : int
        Total number of images; box size D, pixels.
    pixel_size : float
        Pixel size, Å.
    """
    create_stack(path, n_images, box_size, pixel_size)
    total, squares, low, high = 0.0, 0.0, np.inf, -np.inf
    with open(path, "r+b") as file:  # not memory-mapped: with a memory map, a full disk would kill the process
        file.seek(HEADER_BYTES)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype=np.float32).data)
            total += float(chunk.sum(dtype=np.float64))
            squares += float(np.square(chunk, dtype=np.float64).sum())
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    set_statistics(path, low, high, total / (n_images * box_size**2), squares / (n_images * box_size**2))


def create_stack(
    path: str | os.PathLike, n_images: int, box_size: int, pixel_size: float, dtype: type = np.float32
) -> None:
    """Write the header of a stack; its float32 or float16 images start at byte `HEADER_BYTES`."""
    with mrcfile.new(path, np.zeros((1, box_size, box_size), dtype), overwrite=True) as stack:
        stack.set_image_stack()
        stack.voxel_size = pixel_size
        stack.header.nz = n_images


def set_statistics(path: str | os.PathLike, low: float, high: float, mean: float, mean_square: float) -> None:
    """Write minimum, maximum, mean and standard deviation of the grey values to the header of a stack."""
    with open(path, "r+b") as file:
        header = np.frombuffer(file.read(HEADER_BYTES), HEADER_DTYPE).copy()
        header["dmin"], header["dmax"], header["dmean"] = low, high, mean
        header["rms"] = max(mean_square - mean**2, 0.0) ** 0.5
        file.seek(0)
        file.write(header.tobytes())


@guarded(voxel_size=None, box_size=(2, 100_000))
def write_map(
    path: str | os.PathLike,
    volume: np.ndarray,
    voxel_size: float,
    box_size: int | None = None,
    flip_hand: bool = False,
) -> None:
    """Write a map to an MRC file, completely or not at all.

    Parameters
    ----------
    path : path-like
        The .mrc or .map file.
    volume : (D, D, D) float32
        Density, zyx.
    voxel_size : float
        Voxel size, Å.
    box_size : int, optional
        Box size of the written map, voxels; even and at least D (the default). The map is resampled to the finer grid
        over the same cube by zero-padding its Fourier transform (`fourier.fourier_padded`). Pass the box size before
        downsampling to match the grid and voxel size of maps from the original images.
    flip_hand : bool
        Write the map in the other hand: mirrored in the plane z = 0 through the voxel D//2 (`fourier.mirrored`). A
        label in the header records the flip.

    Raises
    ------
    InputError
        If the volume is not a cube of finite values, the voxel size is not positive, the box size is odd or below D,
        or the file has another suffix or cannot be written.

    Notes
    -----
    The origin is 0, as in RELION's and cryoSPARC's maps. Maps from images that were downsampled by Fourier cropping
    span the same cube as maps from the original images, so they overlap in ChimeraX whatever their box sizes.

    Examples
    --------
    >>> ct.write_map("copy.mrc", volume, voxel_size=10.0)
    >>> bool((ct.read_map("copy.mrc")[0] == volume).all())
    True
    """
    require_suffix(path, ".mrc", ".map")
    with np.errstate(over="ignore"):
        values = as_numbers(volume, f"{path}", "Pass a map (D, D, D).").cpu().float().numpy()
    if values.ndim != 3 or len(set(values.shape)) != 1:
        raise InputError(path, f"an array of shape {values.shape}", "a cube (D, D, D)", "Write one map at a time.")
    if not np.isfinite(values).all():
        raise InputError(path, "NaN or infinity in the map", "finite values", "Check how the map was computed.")
    voxel_size = positive(f"{path}: voxel_size", voxel_size, "Pass particles.pixel_size.")
    if box_size is not None:
        values, voxel_size = _finer(path, values, voxel_size, box_size)
    if flip_hand:
        values = mirrored(torch.tensor(values)).numpy()
    with atomic(path) as partial, mrcfile.new(partial, overwrite=True) as file:
        file.set_data(values)
        file.set_volume()
        file.voxel_size = float(voxel_size)
        if flip_hand:
            file.add_label(_FLIPPED)


def _finer(path: object, values: np.ndarray, voxel_size: float, box_size: int) -> tuple[np.ndarray, float]:
    size = len(values)
    if size % 2 or box_size % 2 or box_size < size:
        remedy = "Pass the box size of the original images, or omit box_size."
        found = f"a map of {size} for a box of {box_size} pixels"
        raise InputError(path, found, "even sizes, the box no smaller than the map", remedy)
    return fourier_padded(torch.as_tensor(values), box_size).numpy(), voxel_size * size / box_size


def map_bytes(values: np.ndarray, voxel_size: float) -> bytes:
    """Return an integer map (D, D, D) int8, zyx, as the bytes of an MRC file (mode 0) with the origin at its centre.

    Used by viewers: it takes a quarter of the bytes of mode 2, and nothing is written to disk.
    """
    header, size = np.zeros((), HEADER_DTYPE), values.shape[-1]
    for n, m, start, at, length, axis in zip(["nx", "ny", "nz"], ["mx", "my", "mz"], _STARTS, _AXES, "xyz", (1, 2, 3)):
        header[n], header[m], header[start], header[at] = size, size, -(size // 2), axis
        header["cella"][length] = size * voxel_size
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    header["map"], header["machst"], header["nversion"], header["ispg"] = b"MAP ", (0x44, 0x44, 0, 0), 20140, 1
    header["dmin"], header["dmax"], header["dmean"] = values.min(), values.max(), values.mean()
    header["rms"] = values.std()
    return header.tobytes() + np.ascontiguousarray(values, dtype=np.int8).tobytes()
