"""cryoSPARC .cs files: NumPy structured arrays with one row per particle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.alignments import numbers, poses_of
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.formats.joining import join
from cryotwin_nb.formats.metadata import Metadata, make_ctf, unused, whole_numbers
from cryotwin_nb.imaging.optics import CTF

_CTF = {
    "defocus_u": "ctf/df1_A",
    "defocus_v": "ctf/df2_A",
    "defocus_angle": "ctf/df_angle_rad",
    "voltage": "ctf/accel_kv",
    "spherical_aberration": "ctf/cs_mm",
    "amplitude_contrast": "ctf/amp_contrast",
    "phase_shift": "ctf/phase_shift_rad",
}
_STREAM = b"\x95CSDAT"
_LONGEST_HEADER = 2**20  # bytes; NumPy's default of 10,000 is exceeded by jobs with more than 27 classes
_OPTIONAL = {"ctf/amp_contrast": np.nan, "ctf/phase_shift_rad": 0.0}


def read_cs(
    path: str | os.PathLike,
    pixel_size: float | None = None,
    poses: bool = True,
    ctf: bool = True,
    passthrough: Sequence[str | os.PathLike] = (),
) -> Metadata:
    """Read the particles of a .cs file.

    Parameters
    ----------
    path : path-like
        The .cs file.
    pixel_size : float, optional
        Pixel size in Å, used if the file contains none.
    poses, ctf : bool
        Whether to read and check the alignment and CTF fields.
    passthrough : sequence of path-like
        More .cs files, whose fields are joined by uid.

    Raises
    ------
    InputError
        If the file is not a .cs file of particles, or fields are missing or contain anything but finite numbers.

    Notes
    -----
    For a heterogeneous refinement or ab-initio job, each particle gets the pose of its best class, and a note is added.
    """
    path = require_file(path, "cryoSPARC file")
    notes: list[str] = []
    files = [path, *(require_file(file, "cryoSPARC file") for file in passthrough)]
    rows = None
    if passthrough:
        table, rows = join([open_table(file) for file in files], files, notes)
        require_images(table, path)
    else:
        table = read_table(path)
    stacks, stack_number, image_number = listed_images(table)
    pixel = _pixel_sizes(table, path, pixel_size)
    rotations, shifts = poses_of(table, path, pixel, notes) if poses else (None, None)
    fields = set(table.dtype.names or ())
    notes += unused(fields, table.__getitem__, pixel, path)
    shape = numbers(table, path, "blob/shape", (2,)) if "blob/shape" in fields else np.zeros((len(table), 1))
    known = "ctf/exp_group_id" in fields
    group = numbers(table, path, "ctf/exp_group_id") if known else np.zeros(len(table))
    labels, group = np.unique(group, return_inverse=True)
    return Metadata(
        path,
        stacks,
        stack_number,
        image_number,
        pixel,
        whole_numbers(shape[:, 0], path, "blob/shape"),
        group.astype(np.int64),
        rotations,
        shifts,
        ctf=ctf_of(table, path) if ctf else None,
        sign=numbers(table, path, "blob/sign") if "blob/sign" in fields else None,
        notes=tuple(notes),
        file_rows=rows,
        group_labels=tuple((f"{label:.0f}",) for label in labels) if known else (),
    )


def read_table(path: Path) -> np.ndarray:
    """Return the rows (n,) of a .cs file as stored, one field per column.

    Raises
    ------
    InputError
        If the file is not a .cs file of particles.
    """
    mapped = open_table(path)
    require_images(mapped, path)
    return np.array(mapped)


def open_table(path: Path) -> np.ndarray:
    """Return a structured array, mapped into memory: a damaged header can state any number of rows."""
    try:
        with open(path, "rb") as file:
            stream = file.read(len(_STREAM)) == _STREAM
        # also compares the size declared in the header with the file size
        mapped = None if stream else open_memmap(path, mode="r", max_header_size=_LONGEST_HEADER)  # type: ignore[call-arg]
    except Exception as error:  # a damaged header can raise almost any exception
        remedy = "Pass a .cs file written by a cryoSPARC job (files with Python objects are rejected as unsafe)."
        expected, sentence = "a NumPy structured array", f"{path} cannot be read as a NumPy structured array: {error}."
        raise InputError(path, f"no readable array ({error})", expected, remedy, sentence) from error
    if mapped is None:
        sentence = f"{path} is in cryosparc-tools' stream format (CSDAT)."
        remedy = "Save it with Dataset.save(path, format=NUMPY_FORMAT) of cryosparc-tools."
        raise InputError(path, "cryosparc-tools' stream format", "a NumPy structured array", remedy, sentence)
    return mapped


def listed_images(table: np.ndarray) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return the stacks, and the stack (n,) and the position in it, from 0, (n,) int64 of each image."""
    written, first = np.unique(table["blob/path"], return_inverse=True)
    stacks, which = np.unique([_text(name).lstrip(">") for name in written], return_inverse=True)
    stack_number = which[first.reshape(-1)].astype(np.int64)
    return tuple(str(s) for s in stacks), stack_number, table["blob/idx"].astype(np.int64)


def require_images(table: np.ndarray, path: Path) -> None:
    """Raise `InputError` unless a table lists images."""
    kinds = {name: table.dtype[name].kind for name in table.dtype.names or ()} if table.ndim == 1 else {}
    missing = [name for name, kind in (("blob/path", "SU"), ("blob/idx", "iu")) if kinds.get(name, "V") not in kind]
    if missing:
        remedy = "Pass the job's particle file together with its passthrough file: Particles.read([a, b])."
        raise InputError(path, f"no {' or '.join(missing)}", "the fields of a .cs file of particles", remedy)
    if table.nbytes == 0:
        raise InputError(path, "no particles", "at least one", "Check the job that wrote this file.")


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _pixel_sizes(table: np.ndarray, path: Path, fallback: float | None) -> np.ndarray:
    known = "blob/psize_A" in (table.dtype.names or ())
    pixel = numbers(table, path, "blob/psize_A") if known else np.zeros(len(table))
    if fallback is not None:
        pixel = np.where(pixel == 0, fallback, pixel)
    if (pixel <= 0).any():
        raise InputError(path, f"a pixel size of {pixel.min():g} Å", "blob/psize_A above 0", "Pass pixel_size= in Å.")
    return pixel


def ctf_of(table: np.ndarray, path: Path) -> CTF | None:
    """Return the CTF of the particles, None if there are no fields of it; a missing amplitude contrast becomes NaN."""
    names = table.dtype.names or ()
    if not any(name in names for name in _CTF.values()):
        return None
    missing = [name for name in _CTF.values() if name not in names and name not in _OPTIONAL]
    if missing:
        remedy = "Pass the particle file of a job that includes the CTF, or pass cryoDRGN's ctf.pkl as ctf=."
        raise InputError(path, f"no {', '.join(missing)}", "all ctf/ fields or none", remedy)
    values = {
        key: numbers(table, path, name) if name in names else np.full(len(table), _OPTIONAL[name])
        for key, name in _CTF.items()
    }
    for angle in ("defocus_angle", "phase_shift"):
        values[angle] = np.rad2deg(values[angle])
    contrast = values["amplitude_contrast"]
    values["amplitude_contrast"] = np.where(contrast == 0, np.nan, contrast)  # 0: never set
    return make_ctf(path, **values)
