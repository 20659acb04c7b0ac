"""cryoSPARC .cs files: NumPy structured arrays with one row per particle."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.formats.joining import join
from cryotwin_nb.formats.metadata import Metadata, column, make_ctf, unused, whole_numbers
from cryotwin_nb.formats.poses import rotations_from_vectors
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
_MULTI = "alignments3D_multi"
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
        _require_particles(table, path)
    else:
        table = read_table(path)
    written, first = np.unique(table["blob/path"], return_inverse=True)
    stacks, which = np.unique([_text(name).lstrip(">") for name in written], return_inverse=True)
    stack_number = which[first.reshape(-1)]
    pixel = _pixel_sizes(table, path, pixel_size)
    rotations, shifts = _poses(table, path, pixel, notes) if poses else (None, None)
    fields = set(table.dtype.names or ())
    notes += unused(fields, table.__getitem__, pixel, path)
    shape = _numbers(table, path, "blob/shape", (2,)) if "blob/shape" in fields else np.zeros((len(table), 1))
    known = "ctf/exp_group_id" in fields
    group = _numbers(table, path, "ctf/exp_group_id") if known else np.zeros(len(table))
    labels, group = np.unique(group, return_inverse=True)
    return Metadata(
        path,
        tuple(str(s) for s in stacks),
        stack_number.astype(np.int64),
        table["blob/idx"].astype(np.int64),
        pixel,
        whole_numbers(shape[:, 0], path, "blob/shape"),
        group.astype(np.int64),
        rotations,
        shifts,
        ctf=_ctf(table, path) if ctf else None,
        sign=_numbers(table, path, "blob/sign") if "blob/sign" in fields else None,
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
    _require_particles(mapped, path)
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


def _require_particles(table: np.ndarray, path: Path) -> None:
    kinds = {name: table.dtype[name].kind for name in table.dtype.names or ()} if table.ndim == 1 else {}
    missing = [name for name, kind in (("blob/path", "SU"), ("blob/idx", "iu")) if kinds.get(name, "V") not in kind]
    if missing:
        remedy = "Pass the job's particle file together with its passthrough file: Particles.read([a, b])."
        raise InputError(path, f"no {' or '.join(missing)}", "the fields of a .cs file of particles", remedy)
    if table.nbytes == 0:
        raise InputError(path, "no particles", "at least one", "Check the job that wrote this file.")


def _numbers(table: np.ndarray, path: Path, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return a numeric field (n, *shape) as float64."""
    if name not in (table.dtype.names or ()) or 0 in shape:
        raise InputError(path, f"no {name}", "that field", "Export the file again from cryoSPARC.")
    kind, size = table.dtype[name].base.kind, table.dtype[name].shape
    if kind not in "iuf" or size != shape:
        found = f"{name} of type {table.dtype[name]}"
        raise InputError(path, found, f"numbers of shape {shape}", "Export the file again from cryoSPARC.")
    return column(table[name], path, name)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _pixel_sizes(table: np.ndarray, path: Path, fallback: float | None) -> np.ndarray:
    known = "blob/psize_A" in (table.dtype.names or ())
    pixel = _numbers(table, path, "blob/psize_A") if known else np.zeros(len(table))
    if fallback is not None:
        pixel = np.where(pixel == 0, fallback, pixel)
    if (pixel <= 0).any():
        raise InputError(path, f"a pixel size of {pixel.min():g} Å", "blob/psize_A above 0", "Pass pixel_size= in Å.")
    return pixel


def _poses(
    table: np.ndarray, path: Path, pixel: np.ndarray, notes: list[str]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return rotations, and shifts in Å; files store shifts in alignment pixels, which can differ from image pixels."""
    names = table.dtype.names or ()
    if "alignments3D/pose" not in names and f"{_MULTI}/pose" in names:
        return _multi_class_poses(table, path, pixel, notes)
    if "alignments3D/pose" in names:
        prefixes, best = ["alignments3D"], np.zeros(len(table), dtype=np.int64)
    else:
        prefixes, best = _best_class(table, path, notes)
    if not prefixes:
        return None, None
    vectors, shifts = np.zeros((len(table), 3)), np.zeros((len(table), 2))
    for number, prefix in enumerate(prefixes):
        rows = best == number
        part = table[rows]
        vectors[rows] = _numbers(part, path, f"{prefix}/pose", (3,))
        if f"{prefix}/shift" in names:
            scale = f"{prefix}/psize_A"
            size = _numbers(part, path, scale) if scale in names else pixel[rows]
            size = np.where(size > 0, size, pixel[rows])  # 0: never set
            shifts[rows] = _numbers(part, path, f"{prefix}/shift", (2,)) * size[:, None]
    if (np.linalg.norm(vectors, axis=1) > 2 * np.pi).any():
        found = f"rotation vectors up to {np.linalg.norm(vectors, axis=1).max():.0f} long"
        raise InputError(path, found, "lengths up to π, radians", "Convert the poses from degrees to radians.")
    return rotations_from_vectors(vectors), column(shifts, path, "shift in Å").astype(np.float32)


def _multi_class_poses(
    table: np.ndarray, path: Path, pixel: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations, and shifts in Å, of each particle's best class from fields with one entry per class."""
    classes = table.dtype[f"{_MULTI}/pose"].shape[0] if table.dtype[f"{_MULTI}/pose"].shape else 0
    posterior = _numbers(table, path, f"{_MULTI}/class_posterior", (classes,))
    rows, best = np.arange(len(table)), posterior.argmax(axis=1)
    notes.append(f"{path}: no alignments3D; using the pose of each particle's best of {classes} classes in {_MULTI}.")
    vectors = _numbers(table, path, f"{_MULTI}/pose", (classes, 3))[rows, best]
    shifts = np.zeros((len(table), 2))
    if f"{_MULTI}/shift" in (table.dtype.names or ()):
        scale = f"{_MULTI}/psize_A"
        size = _numbers(table, path, scale) if scale in (table.dtype.names or ()) else pixel
        size = np.where(size > 0, size, pixel)
        shifts = _numbers(table, path, f"{_MULTI}/shift", (classes, 2))[rows, best] * size[:, None]
    return rotations_from_vectors(vectors), column(shifts, path, "shift in Å").astype(np.float32)


def _best_class(table: np.ndarray, path: Path, notes: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the field prefixes of the classes, and the class with the largest posterior for each particle."""
    names = table.dtype.names or ()
    prefixes = [m[1] for name in names if (m := re.fullmatch(r"(alignments_class(?:3D)?_\d+)/pose", name))]
    posteriors = [f"{prefix}/class_posterior" for prefix in prefixes]
    if len(prefixes) > 1 and not all(name in names for name in posteriors):
        remedy = "Pass the particle file of one class, or of a refinement."
        raise InputError(path, "poses in several classes", "class_posterior for each class", remedy)
    if not prefixes:
        return [], np.zeros(len(table), dtype=np.int64)
    text = f"{path}: no alignments3D; using the pose of each particle's best class among {', '.join(prefixes)}."
    notes.append(text)
    if len(prefixes) == 1:
        return prefixes, np.zeros(len(table), dtype=np.int64)
    return prefixes, np.stack([_numbers(table, path, name) for name in posteriors]).argmax(axis=0)


def _ctf(table: np.ndarray, path: Path) -> CTF | None:
    names = table.dtype.names or ()
    if not any(name in names for name in _CTF.values()):
        return None
    missing = [name for name in _CTF.values() if name not in names and name not in _OPTIONAL]
    if missing:
        remedy = "Pass the particle file of a job that includes the CTF, or pass cryoDRGN's ctf.pkl as ctf=."
        raise InputError(path, f"no {', '.join(missing)}", "all ctf/ fields or none", remedy)
    values = {
        key: _numbers(table, path, name) if name in names else np.full(len(table), _OPTIONAL[name])
        for key, name in _CTF.items()
    }
    for angle in ("defocus_angle", "phase_shift"):
        values[angle] = np.rad2deg(values[angle])
    contrast = values["amplitude_contrast"]
    values["amplitude_contrast"] = np.where(contrast == 0, np.nan, contrast)  # 0: never set
    return make_ctf(path, **values)
