"""Reading of MRC maps and stacks: headers (with the mrcfile library), images on demand, and whole maps.

Files are written as mode 2 (float32), prepared stacks also as mode 12 (float16), little-endian, with origin 0 and the
voxel size in the header. The strict mode of mrcfile rejects many real files (no map ID, no machine stamp), so files are
read in permissive mode and checked here.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from io import BytesIO, RawIOBase
from pathlib import Path

import numpy as np
from mrcfile.mrcinterpreter import MrcInterpreter
from mrcfile.utils import data_dtype_from_header

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.imaging.fourier import require_box_size

HEADER_BYTES = 1024
_IMOD_STAMP = 1146047817  # "IMOD"
_EXTENDED = slice(92, 96)  # bytes of nsymbt, the length of the extended header


@dataclass(frozen=True)
class Header:
    """Header values needed to read the data block of an MRC file.

    Attributes
    ----------
    path : Path
        The file.
    shape : (3,) int
        Number of sections, rows and columns; a single image has one section.
    dtype : numpy.dtype
        Data type, including the byte order.
    offset : int
        Offset of the data block, bytes.
    voxel_size : float
        Voxel size along x, Å; 0 if not in the header.
    axes : (3,) int
        Axis (x = 1, y = 2, z = 3) along columns, rows and sections.
    is_volume : bool
        Whether the header declares a volume (space group 1) and the map is cubic.
    notes : tuple of str
        Header values that were not believed.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    voxel_size: float
    axes: tuple[int, int, int]
    is_volume: bool = False
    notes: tuple[str, ...] = ()

    def read(self, sections: np.ndarray) -> np.ndarray:
        """Read some sections (m, rows, columns) from the file.

        The file is not memory-mapped: with a memory map, a truncated file or a failing disk would kill the process.

        Raises
        ------
        InputError
            If the file cannot be read, or was truncated after it was opened.
        """
        values = np.empty((len(sections), *self.shape[1:]), self.dtype)
        runs = np.flatnonzero(np.diff(sections) != 1) + 1  # boundaries of consecutive runs
        try:
            with open(self.path, "rb", buffering=0) as file:
                for target, run in zip(np.split(values, runs), np.split(sections, runs), strict=True):
                    if len(run):
                        file.seek(self.offset + int(run[0]) * target[0].nbytes)
                        _fill(file, target.reshape(-1).view(np.uint8).data)
        except (OSError, EOFError) as error:
            remedy = "Check the disk, and whether the file was moved or replaced after it was opened."
            sentence = f"{self.path} can no longer be read: {error}."
            raise InputError(self.path, f"{error}", "a stack that can be read", remedy, sentence) from error
        return values


def _fill(file: RawIOBase, target: memoryview) -> None:
    """Read until `target` is full: a single call reads at most 2 GiB."""
    while target.nbytes:
        count = file.readinto(target)
        if not count:
            raise EOFError(f"the file ends {target.nbytes} bytes early")
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
            warnings.simplefilter("ignore")  # permissive mode warns about oddities that are handled below
            with open(path, "rb") as file:
                beginning = bytearray(file.read(HEADER_BYTES))
            length = bytes(beginning[_EXTENDED])  # of the extended header, which is not read
            beginning[_EXTENDED] = bytes(len(length))
            with MrcInterpreter(BytesIO(beginning), permissive=True, header_only=True) as interpreter:
                header = interpreter.header
            extended = int(np.frombuffer(length, header.nsymbt.dtype)[0])
    except (ValueError, OSError) as error:
        size = path.stat().st_size
        sentence = f"{path} ({size} bytes) has no readable MRC header of 1024 bytes: {error}."
        raise InputError(path, f"{size} bytes", "an MRC header of 1024 bytes", remedy, sentence) from error
    try:
        dtype = data_dtype_from_header(header)
    except ValueError as error:
        raise InputError(path, f"MRC mode {int(header.mode)}", "mode 0, 1, 2, 6 or 12", remedy) from error
    if dtype.kind == "c":
        raise InputError(path, "complex data (mode 4)", "real images", "Transform the images to real space first.")
    if int(header.mode) == 0 and _has_unsigned_bytes(header, bytes(beginning)):
        dtype = np.dtype(np.uint8)
    shape = int(header.nz), int(header.ny), int(header.nx)
    offset = HEADER_BYTES + extended
    notes: list[str] = []
    if min(shape) < 1 or extended < 0:
        raise InputError(path, f"dimensions {shape}", "positive dimensions", remedy)
    missing = offset + dtype.itemsize * shape[0] * shape[1] * shape[2] - path.stat().st_size
    if missing > 0:
        found = f"a file that ends {missing} bytes early"
        raise InputError(path, found, f"{shape[0]} sections of {shape[1]} x {shape[2]} pixels", remedy)
    sections = (path.stat().st_size - offset) // (dtype.itemsize * shape[1] * shape[2])
    if sections > shape[0]:
        stated = f"{path}: the header states {shape[0]} image{'s' * (shape[0] > 1)}, the file contains {sections}"
        if shape[0] == 1:  # a header that was never updated
            shape = sections, *shape[1:]
            notes.append(f"{stated}; reading all of them.")
        else:
            notes.append(f"{stated}; reading only the first {shape[0]}.")
    axes = int(header.mapc), int(header.mapr), int(header.maps)
    is_volume = int(header.ispg) == 1 and len(set(shape)) == 1
    return Header(path, shape, dtype, offset, _voxel_size(header, path, notes), axes, is_volume, tuple(notes))


def _has_unsigned_bytes(header: np.recarray, beginning: bytes) -> bool:
    """Return whether the bytes of mode 0 are unsigned, by IMOD's flag or the range of the data in the header.

    MRC2014 defines signed bytes; IMOD marks them with bit 0 of imodFlags, and EMAN2 and older IMOD write unsigned ones.
    """
    order = "<" if header.nx.dtype.byteorder in "=<" else ">"
    stamp, flags = np.frombuffer(beginning[152:160], f"{order}i4")
    if stamp == _IMOD_STAMP:
        return not flags & 1
    return bool(header.dmin >= 0 and header.dmax > 127)


def _voxel_size(header: np.recarray, path: Path, notes: list[str]) -> float:
    """Return the voxel size along x in Å, or 0 if the header contains no valid one."""
    if header.mx < 1 or not np.isfinite(header.cella.x) or header.cella.x <= 0:
        return 0.0
    intervals = int(header.mx)
    if intervals == 1 and header.nx > 1:  # the cell spans all nx pixels, not one
        intervals = int(header.nx)
        notes.append(f"{path}: the header states a cell of {float(header.cella.x):g} Å and mx = 1; dividing it by nx.")
    return round(float(header.cella.x) / intervals, 6)


def read_stack_header(path: str | os.PathLike) -> Header:
    """Read and check the header of a particle stack: square images with an even box size.

    Raises
    ------
    InputError
        As in `read_header`, and if the images are not square or their size is odd or below 8.
    """
    header = read_header(path)
    _, rows, columns = header.shape
    if rows != columns:
        found = f"images of {columns} x {rows} pixels"
        raise InputError(header.path, found, "square images", "Extract the particles in a square box.")
    require_box_size(columns, header.path)
    return header


def read_map(path: str | os.PathLike) -> tuple[np.ndarray, float]:
    """Read a cubic map and its voxel size.

    Parameters
    ----------
    path : path-like
        The .mrc file.

    Returns
    -------
    volume : (D, D, D) float32
        Density, zyx.
    voxel_size : float
        Voxel size, Å.

    Raises
    ------
    InputError
        If the file is not a cubic map of finite values with a voxel size.

    Examples
    --------
    >>> volume, voxel_size = ct.read_map("map.mrc")
    >>> volume.shape, voxel_size
    ((32, 32, 32), 10.0)
    """
    header = read_header(path)
    if len(set(header.shape)) != 1:
        raise InputError(path, f"a map of shape {header.shape}", "a cube", "Pad or crop the map to a cubic box.")
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
