"""MRC maps and stacks: headers through the mrcfile library, images as they are needed, whole maps.

Files are written as mode 2 (float32), prepared stacks also as mode 12 (float16), little-endian, origin 0, with the
voxel size in the header. The library's strict mode refuses many real files (no map ID, no machine stamp), so reading is
permissive and checked here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO, RawIOBase
from pathlib import Path

import mrcfile
import numpy as np
import torch
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.mrcinterpreter import MrcInterpreter
from mrcfile.utils import data_dtype_from_header

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic, require_file
from cryotwin_nb.imaging.fourier import fourier_padded, require_box_size

HEADER_BYTES = 1024
_EXTENDED = slice(92, 96)  # where the header has the length of the extended header, nsymbt
_STARTS, _AXES = ("nxstart", "nystart", "nzstart"), ("mapc", "mapr", "maps")


@dataclass(frozen=True)
class Header:
    """What is needed to read the data block of an MRC file.

    Attributes
    ----------
    path : Path
        The file.
    shape : (3,) int
        Sections, rows, columns; a single image has one section.
    dtype : numpy.dtype
        Of the data, with its byte order.
    offset : int
        Where the data block starts, bytes.
    voxel_size : float
        Å along x; 0 where the header does not say.
    axes : (3,) int
        Which of x = 1, y = 2, z = 3 runs along columns, rows, sections.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    voxel_size: float
    axes: tuple[int, int, int]

    def read(self, sections: np.ndarray) -> np.ndarray:
        """Some sections (m, rows, columns), read from the file.

        Not by way of a memory map: a file that has become shorter, or a disk that fails, would end the process.

        Raises
        ------
        InputError
            If the file cannot be read, or has become shorter since it was opened.
        """
        values = np.empty((len(sections), *self.shape[1:]), self.dtype)
        runs = np.flatnonzero(np.diff(sections) != 1) + 1  # where one does not follow the other
        try:
            with open(self.path, "rb", buffering=0) as file:
                for target, run in zip(np.split(values, runs), np.split(sections, runs), strict=True):
                    if len(run):
                        file.seek(self.offset + int(run[0]) * target[0].nbytes)
                        _fill(file, target.reshape(-1).view(np.uint8).data)
        except (OSError, EOFError) as error:
            remedy = "It was complete when it was opened: see whether it was moved or replaced, and its disk."
            raise InputError(self.path, f"{error}", "a stack that can be read", remedy) from error
        return values


def _fill(file: RawIOBase, target: memoryview) -> None:
    """Read until the target is full: one call reads at most 2 GiB."""
    while target.nbytes:
        count = file.readinto(target)
        if not count:
            raise EOFError(f"a file that ends {target.nbytes} bytes early")
        target = target[count:]


def read_header(path: str | os.PathLike) -> Header:
    """Read and check the header of a map or stack.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, not MRC, or of a mode other than 0, 1, 2, 6 and 12.
    """
    path = require_file(path, "MRC file")
    remedy = "Copy or export the file again."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # permissive reading warns about each oddity that is dealt with below
            with open(path, "rb") as file:
                beginning = bytearray(file.read(HEADER_BYTES))
            length = bytes(beginning[_EXTENDED])  # of what follows; only the header itself is to be read
            beginning[_EXTENDED] = bytes(len(length))
            with MrcInterpreter(BytesIO(beginning), permissive=True, header_only=True) as interpreter:
                header = interpreter.header
            extended = int(np.frombuffer(length, header.nsymbt.dtype)[0])
    except (ValueError, OSError) as error:
        size = path.stat().st_size
        raise InputError(path, f"{size} bytes ({error})", "an MRC header of 1024 bytes", remedy) from error
    try:
        dtype = data_dtype_from_header(header)
    except ValueError as error:
        raise InputError(path, f"MRC mode {int(header.mode)}", "mode 0, 1, 2, 6 or 12", remedy) from error
    if dtype.kind == "c":
        raise InputError(path, "complex data (mode 4)", "real images", "Transform back to real space first.")
    shape = int(header.nz), int(header.ny), int(header.nx)
    offset = HEADER_BYTES + extended
    if min(shape) < 1 or extended < 0:
        raise InputError(path, f"dimensions {shape}", "positive dimensions", remedy)
    missing = offset + dtype.itemsize * shape[0] * shape[1] * shape[2] - path.stat().st_size
    if missing > 0:
        found = f"a file that ends {missing} bytes early"
        raise InputError(path, found, f"{shape[0]} sections of {shape[1]} x {shape[2]}", remedy)
    axes = int(header.mapc), int(header.mapr), int(header.maps)
    return Header(path, shape, dtype, offset, _voxel_size(header), axes)


def _voxel_size(header: np.recarray) -> float:
    """Å along x; 0 for headers without a usable one."""
    if header.mx < 1 or not np.isfinite(header.cella.x) or header.cella.x <= 0:
        return 0.0
    return round(float(header.cella.x) / int(header.mx), 6)


def read_stack_header(path: str | os.PathLike) -> Header:
    """`read_header` of a stack of particles: square images of an even box.

    Raises
    ------
    InputError
        As `read_header`, and if the images are not square or their size is odd or below 8.
    """
    header = read_header(path)
    _, rows, columns = header.shape
    if rows != columns:
        found = f"images of {columns} x {rows} pixels"
        raise InputError(header.path, found, "square images", "Extract particles in a square box.")
    require_box_size(columns, header.path)
    return header


def write_stack(
    path: str | os.PathLike, chunks: Iterable[np.ndarray], n_images: int, box_size: int, pixel_size: float
) -> None:
    """Write a stack of images chunk by chunk, to `path` itself (see `files.atomic`).

    Parameters
    ----------
    path : path-like
        The .mrcs file.
    chunks : iterable of (m, D, D) float32
        Images in order.
    n_images, box_size : int
        Total number of images; D, pixels.
    pixel_size : float
        Å.
    """
    create_stack(path, n_images, box_size, pixel_size)
    total, squares, low, high = 0.0, 0.0, np.inf, -np.inf
    with open(path, "r+b") as file:  # not memory-mapped: a full disk would then kill the process
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
    """Write the header of a stack, whose images, float32 or float16, are to follow at byte `HEADER_BYTES`."""
    with mrcfile.new(path, np.zeros((1, box_size, box_size), dtype), overwrite=True) as stack:
        stack.set_image_stack()
        stack.voxel_size = pixel_size
        stack.header.nz = n_images


def set_statistics(path: str | os.PathLike, low: float, high: float, mean: float, mean_square: float) -> None:
    """Enter the least, greatest and mean grey value of a stack and its standard deviation into the header."""
    with open(path, "r+b") as file:
        header = np.frombuffer(file.read(HEADER_BYTES), HEADER_DTYPE).copy()
        header["dmin"], header["dmax"], header["dmean"] = low, high, mean
        header["rms"] = max(mean_square - mean**2, 0.0) ** 0.5
        file.seek(0)
        file.write(header.tobytes())


def write_map(path: str | os.PathLike, volume: np.ndarray, voxel_size: float, box_size: int | None = None) -> None:
    """Write a map, completely or not at all.

    Parameters
    ----------
    path : path-like
        The .mrc file.
    volume : (D, D, D) float32
        zyx.
    voxel_size : float
        Å.
    box_size : int, optional
        At least D, even: the map is brought to the finer grid of that many voxels over the same cube by zero-padding
        its transform (`fourier.fourier_padded`). Give the box that images were downsampled from, and the map lies on
        the grid of maps from the original images, with their voxel size.

    Raises
    ------
    InputError
        If the volume is not a finite cube, the voxel size is not positive, the box is odd or below D, or the file
        cannot be written.

    Notes
    -----
    The origin is 0, as in RELION's and cryoSPARC's maps. Maps of images that were downsampled by Fourier cropping span
    the same cube as the original ones, so ChimeraX shows both in one place whatever their boxes.
    """
    values = np.asarray(volume, dtype=np.float32)
    if values.ndim != 3 or len(set(values.shape)) != 1:
        raise InputError(path, f"an array of shape {values.shape}", "a cube (D, D, D)", "Write one map at a time.")
    if not np.isfinite(values).all():
        raise InputError(path, "NaN or infinity in the map", "finite values", "Check what made the map.")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(path, f"a voxel size of {voxel_size} Å", "a positive one", "Give particles.pixel_size.")
    if box_size is not None:
        values, voxel_size = _finer(path, values, voxel_size, box_size)
    with atomic(path) as partial, mrcfile.new(partial, overwrite=True) as file:
        file.set_data(values)
        file.set_volume()
        file.voxel_size = float(voxel_size)


def _finer(path: object, values: np.ndarray, voxel_size: float, box_size: int) -> tuple[np.ndarray, float]:
    size = len(values)
    if size % 2 or box_size % 2 or box_size < size:
        remedy = "Give the box of the original images, or leave box_size out."
        raise InputError(path, f"a map of {size} for a box of {box_size}", "even boxes, the second no smaller", remedy)
    return fourier_padded(torch.as_tensor(values), box_size).numpy(), voxel_size * size / box_size


def map_bytes(values: np.ndarray, voxel_size: float) -> bytes:
    """A map of whole numbers (D, D, D) int8, zyx, as the bytes of an MRC file of mode 0 with the origin in its middle.

    For viewers: a quarter of the bytes of mode 2, and nothing is written to disk.
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


def read_map(path: str | os.PathLike) -> tuple[np.ndarray, float]:
    """Read a cubic map as (volume (D, D, D) float32 in zyx order, voxel size in Å).

    Raises
    ------
    InputError
        If the file is not a cubic map of finite values with a voxel size.
    """
    header = read_header(path)
    if len(set(header.shape)) != 1:
        raise InputError(path, f"a map of {header.shape}", "a cube", "Pad or crop the map to a cubic box.")
    if header.voxel_size <= 0:
        remedy = "Set the voxel size, for example with relion_image_handler --rescale_angpix."
        raise InputError(path, "no voxel size", "a voxel size in the header", remedy)
    volume = header.read(np.arange(header.shape[0])).astype(np.float32)
    if sorted(header.axes) == [1, 2, 3]:
        stored = header.axes[::-1]
        volume = np.ascontiguousarray(volume.transpose([stored.index(axis) for axis in (3, 2, 1)]))
    if not np.isfinite(volume).all():
        raise InputError(path, "NaN or infinity", "finite values", "Export the map again.")
    return volume, header.voxel_size
