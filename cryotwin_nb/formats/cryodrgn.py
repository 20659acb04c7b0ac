"""cryoDRGN pickles: poses, CTF parameters, selections and latents, read without executing code (`pickles`)."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.formats.metadata import column, make_ctf
from cryotwin_nb.formats.pickles import read_pickles
from cryotwin_nb.formats.poses import require_rotations
from cryotwin_nb.imaging.optics import CTF

# Columns 2 to 8 of cryoDRGN's ctf.pkl, in order; columns 0 and 1 are box size (pixels) and pixel size (Å).
_COLUMNS = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "voltage",
    "spherical_aberration",
    "amplitude_contrast",
    "phase_shift",
)


def _read(given: Any) -> tuple[Any, object]:
    """Return the content of a file and its name for messages; anything but a path is treated as the content."""
    if not isinstance(given, (str, os.PathLike)):
        return given, "the given arrays"
    return read_pickles(given)[0], given


def read_poses(path: str | os.PathLike | tuple | np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Read cryoDRGN's poses.pkl, given as a path or as its content.

    Returns
    -------
    rotations : (n, 3, 3) float32
        R in v = R nu, the transpose of the stored matrices.
    translations : (n, 2) float32 or None
        Shift that centres the image, fraction of the box.

    Raises
    ------
    InputError
        If the rotations are missing or invalid, or the translations are not fractions of the box.
    """
    content, where = _read(path)
    parts = list(content) if isinstance(content, (tuple, list)) else [content]
    if not 1 <= len(parts) <= 2 or not all(isinstance(part, np.ndarray) for part in parts):
        raise InputError(
            where, f"a {type(content).__name__}", "a tuple (rotations, translations)", "Pass cryoDRGN's poses.pkl."
        )
    rotations = require_rotations(parts[0], where).swapaxes(1, 2)
    if len(parts) == 1:
        return rotations, None
    translations = column(parts[1], where, "translation")
    if translations.shape != (len(rotations), 2):
        found = f"translations of shape {translations.shape} for {len(rotations)} rotations"
        raise InputError(where, found, f"the shape ({len(rotations)}, 2)", "Export the poses again.")
    if np.abs(translations).max(initial=0.0) > 1:
        remedy = "Divide the translations by the box size; old versions of cryoDRGN stored pixels."
        raise InputError(where, f"a translation of {np.abs(translations).max():g}", "fractions of the box", remedy)
    return rotations, translations.astype(np.float32)


def read_ctf(path: str | os.PathLike | np.ndarray) -> tuple[CTF, np.ndarray, np.ndarray]:
    """Read cryoDRGN's ctf.pkl, given as a path or as its content.

    Returns
    -------
    ctf : CTF
        CTF parameters as (n,) float32 arrays.
    box_size : (n,) float64
        Box size, pixels.
    pixel_size : (n,) float64
        Pixel size at that box size, Å.

    Raises
    ------
    InputError
        If the content is not an (n, 9) array of finite numbers with positive box and pixel sizes.
    """
    content, where = _read(path)
    if not isinstance(content, np.ndarray) or content.ndim != 2 or content.shape[1] != 9:
        found = f"a {type(content).__name__} of shape {getattr(content, 'shape', None)}"
        remedy = "Pass the ctf.pkl written by cryoDRGN's parse_ctf_star or parse_ctf_csparc."
        raise InputError(where, found, "an (n, 9) array of numbers", remedy)
    table = column(content, where, "CTF parameter")
    if (table[:, :2] <= 0).any():
        remedy = "Run cryoDRGN's parse_ctf_star again with the right -D and --Apix."
        raise InputError(where, "a non-positive box or pixel size", "positive values in pixels and Å", remedy)
    return make_ctf(where, **dict(zip(_COLUMNS, table.T[2:]))), table[:, 0], table[:, 1]


def read_indices(path: str | os.PathLike) -> np.ndarray:
    """Read cryoDRGN's ind.pkl: integer indices, from 0, of the particles kept, or a boolean mask.

    Raises
    ------
    InputError
        If the content is not a one-dimensional array of integers or booleans.
    """
    content, where = _read(path)
    listed = isinstance(content, (list, tuple)) and all(isinstance(i, (int, np.integer)) for i in content)
    indices = np.asarray(content) if listed or isinstance(content, np.ndarray) else np.zeros((0, 0))
    if indices.ndim != 1 or indices.dtype.kind not in "iub":
        found = f"a {type(content).__name__} that is not a list of integers"
        raise InputError(where, found, "integers from 0", "Pass cryoDRGN's ind.pkl.")
    return indices


def read_latents(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray | None]:
    """Read cryoDRGN's z.N.pkl: latent means and log-variances (or None), (n, d) float32, for the selected particles.

    Raises
    ------
    InputError
        If the file does not contain two-dimensional arrays of finite numbers of the same shape.
    """
    parts = read_pickles(path, most=2)
    for part in parts:
        if not isinstance(part, np.ndarray) or part.ndim != 2 or part.shape != parts[0].shape:
            found = f"an object of type {type(part).__name__}"
            raise InputError(path, found, "arrays of one shape (n, d)", "Pass cryoDRGN's z.N.pkl.")
    arrays = [column(part, path, "latent").astype(np.float32) for part in parts]
    return arrays[0], arrays[1] if len(arrays) > 1 else None


def write_poses(
    path: str | os.PathLike, rotations: np.ndarray, shifts: np.ndarray, box_size: int, pixel_size: float
) -> None:
    """Write poses.pkl for cryoDRGN.

    Parameters
    ----------
    path : path-like
        The .pkl file.
    rotations : (n, 3, 3) float32
        R in v = R nu.
    shifts : (n, 2) float32
        Shift that centres the image, Å.
    box_size, pixel_size : int, float
        Box size, pixels; pixel size, Å.

    Raises
    ------
    InputError
        If a matrix is not a rotation, or the file cannot be written.
    """
    stored = np.ascontiguousarray(require_rotations(rotations, path).swapaxes(1, 2))
    _write(path, (stored, np.asarray(shifts, dtype=np.float32) / np.float32(box_size * pixel_size)))


def write_ctf(path: str | os.PathLike, ctf: CTF, box_size: int, pixel_size: float) -> None:
    """Write ctf.pkl for cryoDRGN: (n, 9) float32, starting with box size (pixels) and pixel size (Å).

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    grid = [np.full(len(ctf), box_size), np.full(len(ctf), pixel_size)]
    _write(path, np.stack([*grid, *(getattr(ctf, name) for name in _COLUMNS)], axis=1).astype(np.float32))


def write_indices(path: str | os.PathLike, rows: np.ndarray) -> None:
    """Write ind.pkl for cryoDRGN's ``--ind``: indices (k,) int64, from 0, of the particles to keep.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    _write(path, np.asarray(rows, dtype=np.int64))


def _write(path: str | os.PathLike, content: Any) -> None:
    with atomic(path) as partial, open(partial, "wb") as file:
        pickle.dump(content, file, protocol=4)


def write_latents_table(path: str | os.PathLike, z: np.ndarray) -> None:
    """Write latents (m, d) as the text table that `cryodrgn eval_vol --zfile` reads.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with atomic(path) as partial:
        np.savetxt(partial, z)
