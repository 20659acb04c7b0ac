"""Reading of particles from any supported file, combined with poses, CTF and options given by the user."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from cryotwin_nb.errors import InputError, choice, flag, positive
from cryotwin_nb.formats import cryodrgn
from cryotwin_nb.formats.bare_stacks import bare_stacks, listed
from cryotwin_nb.formats.contrast import with_contrast
from cryotwin_nb.formats.copies import describe_copies
from cryotwin_nb.formats.cryosparc import open_table, read_cs
from cryotwin_nb.formats.files import find_stacks, require_file, require_suffix
from cryotwin_nb.formats.joining import places_of
from cryotwin_nb.formats.metadata import Metadata, select
from cryotwin_nb.formats.origins import record_of, rows_in
from cryotwin_nb.formats.stacks import IMAGES_PER_STACK, ImageSource, NoImages, check_box, open_stacks
from cryotwin_nb.formats.star import read_star
from cryotwin_nb.imaging.fourier import require_box_size
from cryotwin_nb.imaging.optics import CTF, implausible

if TYPE_CHECKING:
    from cryotwin_nb.formats.added import Parameters

_STACKS = (".mrcs", ".mrc")


class _Beside(Protocol):
    @classmethod
    def load(cls, path: Path, n: int) -> Any: ...


_T = TypeVar("_T", bound=_Beside)


@dataclass(frozen=True)
class ReadRequest:
    """Arguments of a call to `Particles.read`; the fields are its parameters."""

    path: str | os.PathLike | Sequence[str | os.PathLike]
    datadir: str | os.PathLike | None = None
    poses: Any = None
    ctf: Any = None
    indices: Any = None
    contrast: str = "auto"
    images: bool = True
    amplitude_contrast: float | None = None
    box_size: int | None = None
    pixel_size: float | None = None
    optics_groups: Any = None


class ReadParts(NamedTuple):
    """Result of `read_parts`.

    Attributes
    ----------
    arguments : dict
        Arguments of `Particles`.
    image_numbers : (N,) int64
        Position in its stack, from 0, of each particle in the file.
    rows : (n,) int64
        Row numbers of the selected particles.
    notes : list of str
        Choices made on the user's behalf.
    """

    arguments: dict[str, Any]
    image_numbers: np.ndarray
    rows: np.ndarray
    notes: list[str]


def read_parts(request: ReadRequest) -> ReadParts:
    """Read the arguments of `Particles` from a file; exceptions as in `Particles.read`."""
    given = [request.path] if isinstance(request.path, (str, os.PathLike)) else list(request.path)
    path, *passthrough = (require_file(file, "particle file") for file in given)
    for file in (path, *passthrough):
        require_suffix(file, *((".cs",) if passthrough else (".star", ".cs", *_STACKS, ".txt")))
    _check_options(request)
    poses, ctf, indices, pixel_size = request.poses, request.ctf, request.indices, request.pixel_size
    if poses is not None or ctf is not None:
        from cryotwin_nb.formats import added  # not needed for most files
    parameters = None if ctf is None else added.read_parameters(ctf)
    fallback = pixel_size if pixel_size is not None or parameters is None else parameters.pixel_size
    table = _read_table(path, passthrough, request.datadir, fallback, poses is None, ctf is None)
    notes = list(table.notes)
    total, where = len(table), indices if isinstance(indices, (str, os.PathLike)) else f"indices for {path}"
    chosen = cryodrgn.read_indices(indices) if isinstance(indices, (str, os.PathLike)) else indices
    if isinstance(indices, (str, os.PathLike)) and record_of(indices).is_file():
        chosen = rows_in(path, Path(indices), chosen)
    if chosen is not None and table.file_rows is not None:
        chosen = places_of(chosen, table.file_rows, len(open_table(path)), path, where, notes)
    rows = np.arange(total) if chosen is None else select(chosen, total, where, unique=True)
    if request.optics_groups is not None:
        from cryotwin_nb.formats.groups import in_groups  # needed only here

        rows = in_groups(table, rows, request.optics_groups)
    extra = None
    if poses is not None or ctf is not None:
        extra = added.add(poses, ctf, parameters, table, rows, pixel_size, notes)
        rows = extra.rows
    image_numbers, table = table.image_number, table[rows]
    transfer = table.ctf if extra is None or ctf is None else extra.ctf

    stated = _stated_box(table, parameters)
    source: ImageSource
    if request.images:
        source = open_stacks(table, request.datadir)
        notes += source.notes
    else:
        used = [table.stacks[i] for i in np.unique(table.stack_number)]
        identity = table.stack_number * IMAGES_PER_STACK + table.image_number
        source = NoImages(identity, request.box_size or stated, path, partial(find_stacks, used, path, request.datadir))
    pixel = _pixel_size(table, parameters, pixel_size, source, notes)
    rescaled = None if parameters is None else parameters.box_size  # of cryoDRGN, whose pixel size is scaled
    check_box(path, source, request.box_size, stated if pixel_size is None and rescaled is None else None)
    rotations, shifts = table.rotations, table.shifts
    if extra is not None and poses is not None:
        rotations, shifts = extra.rotations, extra.shifts_for(source, pixel)
    origin = ctf if isinstance(ctf, (str, os.PathLike)) else path
    transfer = _without_unset(transfer, origin, notes)
    transfer = _with_amplitude_contrast(transfer, request.amplitude_contrast, origin, notes)
    notes += [f"{origin}: {text}" for text in implausible(transfer, None, 0)]
    if request.images or request.box_size or stated:
        posed = poses if isinstance(poses, (str, os.PathLike)) else path
        notes += [f"{posed}: {text}" for text in implausible(None, shifts, source.box_size * pixel)]
    if rotations is not None and len(rotations) > 1 and np.ptp(rotations, axis=0).max() < 1e-6:
        notes.append(f"{path}: all particles have the same pose, as in files written before refinement.")
    if len(np.unique(source.identity)) < len(rows):
        notes.append(f"{path}: {describe_copies(source.identity, rotations)}. Copies stay in one half-set.")
    contrast = request.contrast
    if contrast == "auto":
        source, contrast = with_contrast(source, transfer, pixel, table, notes)
    elif table.sign is not None and (table.sign == {"dark": 1, "light": -1}[contrast]).any():
        notes.append(f"{path}: contrast={contrast!r} contradicts the sign of images declared in the file.")
    arguments: dict[str, Any] = {"images": source, "optics_group": table.optics_group, "where": path}
    arguments["inputs"] = inputs_in(*given, poses, ctf, indices)
    arguments |= {"rotations": rotations, "shifts": shifts, "ctf": transfer, "pixel_size": pixel, "contrast": contrast}
    return ReadParts(arguments, image_numbers, rows if table.file_rows is None else table.file_rows, notes)


def inputs_in(*given: Any) -> list[Path]:
    """Return the paths among arguments, and in sequences of paths."""
    several = [value if isinstance(value, (list, tuple)) else [value] for value in given]
    return [Path(file) for files in several for file in files if isinstance(file, (str, os.PathLike))]


def _without_unset(ctf: CTF | None, path: str | os.PathLike, notes: list[str]) -> CTF | None:
    """Return None for a CTF that was never determined: all defocus values and phase shifts are 0."""
    if ctf is None or any(np.any(values) for values in (ctf.defocus_u, ctf.defocus_v, ctf.phase_shift)):
        return ctf
    # simulators write an amplitude contrast of 1 for images without contrast transfer
    if not np.nanmax(ctf.amplitude_contrast, initial=0) < 0.99:
        return ctf
    notes.append(f"{path}: the defocus of all particles is 0, so their CTF was never determined; reading them without.")
    return None


def _check_options(request: ReadRequest) -> None:
    choice("contrast", request.contrast, ("auto", "dark", "light"))
    flag("images", request.images)
    fraction = request.amplitude_contrast
    if fraction is not None and not 0 <= fraction <= 1:
        remedy = "Use 0.1, the usual value for cryo-EM, or 0.07 at 300 kV."
        raise InputError("amplitude_contrast", f"{fraction}", "a fraction from 0 to 1", remedy)
    if request.pixel_size is not None:
        positive("pixel_size", request.pixel_size, "Pass the pixel size in Å.")
    if request.box_size is not None:
        require_box_size(request.box_size)


def _read_table(
    path: Path, more: list[Path], datadir: str | os.PathLike | None, pixel: float | None, poses: bool, ctf: bool
) -> Metadata:
    suffix = path.suffix.lower()
    if suffix == ".star":
        return read_star(path, pixel, poses, ctf)
    if suffix == ".cs":
        return read_cs(path, pixel, poses, ctf, more)
    return bare_stacks(path, [path] if suffix in _STACKS else listed(path, datadir))


def _stated_box(table: Metadata, parameters: Parameters | None) -> int | None:
    stated = int(table.common("box_size"))
    return stated or (parameters.box_size if parameters is not None else None)


def _pixel_size(
    table: Metadata,
    parameters: Parameters | None,
    given: float | None,
    source: ImageSource,
    notes: list[str],
) -> float:
    """Return the pixel size in Å: as given, else from cryoDRGN's CTF scaled to the image box, else from the file."""
    stated = table.common("pixel_size", tolerance=1e-3)
    if given is not None:
        return given
    if parameters is not None and parameters.box_size is not None and parameters.pixel_size is not None:
        pixel = parameters.box_size * parameters.pixel_size / source.box_size
        trusted = table.path.suffix.lower() not in (*_STACKS, ".txt")
        if trusted and abs(pixel - stated) > 0.01 * stated:
            text = f"{table.path} states {stated:g} Å per pixel, but the CTF parameters state {pixel:g} Å;"
            notes.append(f"{text} using the latter.")
        return pixel
    if stated <= 0:
        raise InputError(table.path, "no pixel size in the header", "a pixel size in Å", "Pass pixel_size= in Å.")
    return stated


def _with_amplitude_contrast(
    ctf: CTF | None, given: float | None, path: str | os.PathLike, notes: list[str]
) -> CTF | None:
    """Return the CTF with the given amplitude contrast, or with 0.1 if the file contains none."""
    if ctf is None:
        return None
    missing = np.isnan(ctf.amplitude_contrast)
    if given is None and missing.any():
        text = f"{path}: no amplitude contrast in the file; assuming 0.1. Pass amplitude_contrast= to change it."
        notes.append(text)
    values = np.where(missing, 0.1, ctf.amplitude_contrast) if given is None else np.full(len(ctf), given)
    return replace(ctf, amplitude_contrast=values.astype(np.float32))


def read_beside(kind: type[_T], parts: ReadParts, suffix: str) -> _T | None:
    """Load the file of another suffix beside a STAR file or a stack, for the rows that were read; None if missing."""
    path, source, image_numbers = parts.arguments["where"], parts.arguments["images"], parts.image_numbers
    file = path.with_suffix(suffix)
    if path.suffix.lower() not in (".star", *_STACKS) or not file.is_file():
        return None
    from cryotwin_nb.formats.sidecars import require_beside

    require_beside(file, path, image_numbers, source.files.values())
    return kind.load(file, len(image_numbers))[parts.rows]
