"""Particle metadata returned by every reader: one row per particle, in the units and conventions of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cryotwin_nb.errors import InputError, SeveralGrids
from cryotwin_nb.imaging.optics import CTF

_SHARED = ("path", "stacks", "notes", "whole_files", "group_labels")
_UNUSED = (  # columns of a STAR file and fields of a .cs file that can contain what is not used here
    *("rlnBeamTilt", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat", "rlnCtfBfactor", "rlnCtfScalefactor"),
    *("rlnTomoNominalStageTiltAngle", "wrpTiltAngle", "ctf/"),
)
_IMPOSSIBLE = (  # parameter, limit that no microscope exceeds, unit, remedy
    ("voltage", 3000, "kV", "Convert the voltages from V to kV."),
    ("spherical_aberration", 100, "mm", "Convert the spherical aberration to mm."),
)
CTF_FIELDS = tuple(field.name for field in fields(CTF))


@dataclass(frozen=True)
class Metadata:
    """Particle metadata as read from a file, before any stack is opened.

    Attributes
    ----------
    path : Path
        File that was read.
    stacks : (S,) str
        Stack names, as written in the file.
    stack_number : (n,) int64
        Index into `stacks` of the stack that contains each particle.
    image_number : (n,) int64
        Position in that stack, from 0.
    pixel_size : (n,) float64
        Pixel size, Å; 0 if unknown.
    box_size : (n,) int64
        Box size D, pixels; 0 if unknown.
    optics_group, group_labels : (n,) int64, tuple of tuples of str
        Number of the optics group, from 0; number and name (if any) of each group in the file, empty if it has none.
    rotations : (n, 3, 3) float32 or None
        R in v = R nu.
    shifts : (n, 2) float32 or None
        Shift that centres the image, Å.
    ctf : CTF or None
        CTF parameters as (n,) arrays; `amplitude_contrast` is NaN if unknown.
    sign : (n,) float64 or None
        Contrast declared in the file: -1 for dark particles on a light background, 1 for light particles on a dark one.
    stamp : (n,) str or None
        Stamp of the stack for which the file was written (`sidecars.stack_stamp`).
    notes : tuple of str
        Choices made on the user's behalf while reading.
    file_rows, rows : (n,) int64 or None
        Row of each particle in the file, None if all rows were read in order; rows selected by `__getitem__`, or None.
    whole_files : frozenset of str
        Stacks named without an image number, which must contain a single image.
    """

    path: Path
    stacks: tuple[str, ...]
    stack_number: np.ndarray
    image_number: np.ndarray
    pixel_size: np.ndarray
    box_size: np.ndarray
    optics_group: np.ndarray
    rotations: np.ndarray | None = None
    shifts: np.ndarray | None = None
    ctf: CTF | None = None
    sign: np.ndarray | None = None
    stamp: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    whole_files: frozenset[str] = frozenset()
    file_rows: np.ndarray | None = None
    group_labels: tuple[tuple[str, ...], ...] = ()
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.stack_number)

    def __getitem__(self, rows: np.ndarray) -> Metadata:
        """Return the metadata of a subset of particles; `stacks` is not reduced."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        per_particle = {k: v[rows] for k, v in values.items() if k not in _SHARED and v is not None}
        return Metadata(**values | {"rows": rows} | per_particle)

    def common(self, name: str, tolerance: float = 0.0) -> float:
        """Return the value of `pixel_size`, `box_size` or `sign` shared by all particles.

        Raises
        ------
        InputError
            If the values differ by more than the relative `tolerance`.
        """
        values = getattr(self, name)
        low, high = float(values.min()), float(values.max())
        if high - low > tolerance * abs(high):
            found = f"{name.replace('_', ' ')}s from {low:g} to {high:g} among the selected particles"
            if name == "sign":
                raise InputError(self.path, found, "a single value", "Pass contrast='dark' or contrast='light'.")
            raise SeveralGrids(self.path, found, self)
        return float(np.median(values))


def column(values: object, where: object, name: str) -> np.ndarray:
    """Return a column as float64, keeping its shape: (n,) or (n, q).

    Raises
    ------
    InputError
        If a value is not a finite number within the range of float32; the message names the first such row.
    """
    given = np.asarray(values)
    try:
        if given.dtype.kind not in "biufOSU":
            raise TypeError(f"type {given.dtype}")
        with np.errstate(all="ignore"):  # values out of range become infinite and are rejected below
            numbers = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        remedy = "Correct that column, or export the file again."
        sentence = f"{where}: the {name} values cannot be read as numbers ({error})."
        raise InputError(where, f"{name} that is not a number ({error})", "numbers", remedy, sentence) from error
    bad = ~(np.abs(numbers) <= np.finfo(np.float32).max)  # outside the range of float32, the type of the images
    if bad.any():
        first, others = np.argwhere(bad)[0][0] + 1, len(np.unique(np.argwhere(bad)[:, 0])) - 1
        found = f"{name} = {numbers[bad][0]} for particle {first} (and {others} others)"
        raise InputError(where, found, "finite numbers", "Correct those rows, or remove them from the file.")
    return numbers


def whole_numbers(values: np.ndarray, where: object, name: str) -> np.ndarray:
    """Return finite numbers (n,) float64 as int64.

    Raises
    ------
    InputError
        If an absolute value exceeds 2^40.
    """
    if (np.abs(values) > 2**40).any():
        found = f"{name} = {values[np.abs(values) > 2**40][0]:g}"
        raise InputError(where, found, "an integer of at most 2^40", "Correct that column.")
    return values.astype(np.int64)


def make_ctf(where: object, **values: np.ndarray) -> CTF:
    """Return a float32 `CTF` made from its fields; only `amplitude_contrast` can be NaN (unknown).

    Raises
    ------
    InputError
        If a value is not finite, or is impossible for a microscope, as in another unit: the message names the row.
    """
    for name, numbers in values.items():
        known = numbers[~np.isnan(numbers)] if name == "amplitude_contrast" else numbers
        column(known, where, name)
        if (name == "voltage" and (known <= 0).any()) or (name == "amplitude_contrast" and (abs(known) > 1).any()):
            found = f"{name.replace('_', ' ')} from {known.min():g} to {known.max():g}"
            remedy = "Correct the file; voltages are in kV, amplitude contrast is a fraction."
            raise InputError(where, found, "a positive voltage and a fractional amplitude contrast", remedy)
    for name, limit, unit, remedy in _IMPOSSIBLE:
        above = np.abs(values[name]) > limit
        if above.any():
            row = int(np.argmax(above))
            found = f"{name.replace('_', ' ')} = {values[name][row]:g} {unit} for particle {row + 1}"
            found += f" (and {above.sum() - 1} others)" if above.sum() > 1 else ""
            raise InputError(where, found, f"at most {limit:,} {unit}", remedy)
    largest = np.maximum(np.abs(values["defocus_u"]), np.abs(values["defocus_v"]))
    if 0 < largest.max(initial=0) < 10:
        row = int(largest.argmax())
        sentence = f"{where}: all defocus values are below 10 Å, the largest {largest[row]:g} for particle {row + 1}."
        remedy = "These are micrometres: convert the defocus from µm to Å."
        raise InputError(where, f"defocus values up to {largest[row]:g} Å", "defocus values in Å", remedy, sentence)
    return CTF(**{name: np.asarray(values[name], dtype=np.float32) for name in CTF_FIELDS})


def select(indices: object, n: int, where: object, allow_empty: bool = False, unique: bool = False) -> np.ndarray:
    """Return the int64 row numbers of a selection among n particles: an integer, slice, integers or (n,) bool mask.

    Raises
    ------
    InputError
        If an index is negative or out of range, a mask has the wrong length, the selection is empty (unless
        `allow_empty`), repeats a particle (if `unique`), or was made among another number of particles.
    """
    if getattr(indices, "total", n) not in (None, n):
        remedy = "Pass the particles that were embedded, in the same order."
        raise InputError(where, f"rows of {indices.total} latents", f"rows of the {n} particles", remedy)  # type: ignore[attr-defined]
    if isinstance(indices, slice):
        indices = np.arange(n)[indices]
    rows = np.atleast_1d(np.asarray(indices))
    remedy = f"Select among the {n} particles, numbered from 0."
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise InputError(where, f"a mask of {rows.size} entries", f"a mask of {n} entries", remedy)
        rows = np.flatnonzero(rows)
    if rows.size == 0 and not allow_empty:
        raise InputError(where, "an empty selection", "at least one particle", remedy)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise InputError(where, f"indices of type {rows.dtype}, shape {rows.shape}", "integers or a bool mask", remedy)
    rows = rows.astype(np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= n):
        raise InputError(where, f"indices from {rows.min()} to {rows.max()}", f"indices from 0 to {n - 1}", remedy)
    if unique and len(np.unique(rows)) < len(rows):
        raise InputError(where, "a particle selected twice", "each at most once", "Remove the repeated indices.")
    return rows


def require_consistent(
    where: object, n: int, shifts: np.ndarray, optics_group: np.ndarray, parts: Mapping[str, Any]
) -> None:
    """Raise `InputError` unless there is at least one particle and every part has n entries."""
    if n == 0:
        raise InputError(where, "no particles", "at least one", "Check the file and the selection.")
    if shifts.shape != (n, 2):
        raise InputError(where, f"shifts of shape {shifts.shape}", f"({n}, 2)", "Pass x and y in Å for each particle.")
    if len(optics_group) and optics_group.min() < 0:
        found, remedy = f"optics group {optics_group.min()}", "Number the groups with np.unique(return_inverse=True)."
        raise InputError(where, found, "groups numbered from 0", remedy)
    for name, part in parts.items():
        if part is not None and len(part) != n:
            remedy = "Pass the file that belongs to these particles, unfiltered or with the same filter."
            raise InputError(where, f"{name} for {len(part)} particles", f"{name} for {n}", remedy)


def unused(names: Iterable[str], values: Callable[[str], Any], pixel: np.ndarray, path: Path) -> list[str]:
    """Return a note that names what a file contains and is not used, as `formats.aberrations.describe`."""
    if not any(name.startswith(_UNUSED) for name in names):
        return []
    from cryotwin_nb.formats.aberrations import describe  # needed for such files only

    return describe(names, values, pixel, path)
