"""Poses in the fields of cryoSPARC's .cs files, from refinements and from jobs with several classes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import column
from cryotwin_nb.formats.poses import rotations_from_vectors

_MULTI = "alignments3D_multi"
_SHIFT = re.compile(r"(alignments(?:3D|3D_multi|_class(?:3D)?_\d+))/shift")


def numbers(
    table: np.ndarray, path: Path, name: str, shape: tuple[int, ...] = (), rows: np.ndarray | slice = slice(None)
) -> np.ndarray:
    """Return a numeric field (n, *shape) of some rows as float64."""
    if name not in (table.dtype.names or ()) or 0 in shape:
        raise InputError(path, f"no {name}", "that field", "Export the file again from cryoSPARC.")
    kind, size = table.dtype[name].base.kind, table.dtype[name].shape
    if kind not in "iuf" or size != shape:
        found = f"{name} of type {table.dtype[name]}"
        raise InputError(path, found, f"numbers of shape {shape}", "Export the file again from cryoSPARC.")
    return column(table[name][rows], path, name)


def poses_of(
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
        vectors[rows] = numbers(table, path, f"{prefix}/pose", (3,), rows)
        if f"{prefix}/shift" in names:
            scale = f"{prefix}/psize_A"
            size = numbers(table, path, scale, (), rows) if scale in names else pixel[rows]
            size = np.where(size > 0, size, pixel[rows])  # 0: never set
            shifts[rows] = numbers(table, path, f"{prefix}/shift", (2,), rows) * size[:, None]
    if (np.linalg.norm(vectors, axis=1) > 2 * np.pi).any():
        found = f"rotation vectors up to {np.linalg.norm(vectors, axis=1).max():.0f} long"
        raise InputError(path, found, "lengths up to π, radians", "Convert the poses from degrees to radians.")
    return rotations_from_vectors(vectors), column(shifts, path, "shift in Å").astype(np.float32)


def lacks_pixel_size(table: np.ndarray) -> bool:
    """Return whether shifts are in pixels of unknown size, at least for some particles."""
    names = table.dtype.names or ()
    sizes = [m[1] + "/psize_A" for name in names if (m := _SHIFT.fullmatch(name))]
    return any(size not in names or bool((table[size] <= 0).any()) for size in sizes)


def _multi_class_poses(
    table: np.ndarray, path: Path, pixel: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations, and shifts in Å, of each particle's best class from fields with one entry per class."""
    classes = table.dtype[f"{_MULTI}/pose"].shape[0] if table.dtype[f"{_MULTI}/pose"].shape else 0
    posterior = numbers(table, path, f"{_MULTI}/class_posterior", (classes,))
    rows, best = np.arange(len(table)), posterior.argmax(axis=1)
    notes.append(f"{path}: no alignments3D; using the pose of each particle's best of {classes} classes in {_MULTI}.")
    vectors = numbers(table, path, f"{_MULTI}/pose", (classes, 3))[rows, best]
    shifts = np.zeros((len(table), 2))
    if f"{_MULTI}/shift" in (table.dtype.names or ()):
        scale = f"{_MULTI}/psize_A"
        size = numbers(table, path, scale) if scale in (table.dtype.names or ()) else pixel
        size = np.where(size > 0, size, pixel)
        shifts = numbers(table, path, f"{_MULTI}/shift", (classes, 2))[rows, best] * size[:, None]
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
    return prefixes, np.stack([numbers(table, path, name) for name in posteriors]).argmax(axis=0)
