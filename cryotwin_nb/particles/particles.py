"""Particles: images, poses and CTF of a data set, read lazily from disk or held in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, choice, positive, warn_user
from cryotwin_nb.formats.files import require_suffix
from cryotwin_nb.formats.metadata import CTF_FIELDS, column, make_ctf, select
from cryotwin_nb.formats.poses import require_rotations
from cryotwin_nb.formats.reading import ReadRequest, read_parts
from cryotwin_nb.formats.stacks import ImageSource, NoImages, as_source, read_finite
from cryotwin_nb.formats.star import WHITENED
from cryotwin_nb.imaging.optics import CTF
from cryotwin_nb.particles.beside import files_beside, read_beside
from cryotwin_nb.particles.whitening import Whitening
from cryotwin_nb.particles.writing import described, in_chunks, refuse_overwriting, write_star_and_stack
from cryotwin_nb.truth.truth import Truth


class Particles:
    """Images with their poses and CTF.

    Parameters
    ----------
    images : (n, D, D) float32, an ImageSource, or None
        As recorded; None for metadata only.
    rotations : (n, 3, 3), optional
        R of v = R nu.
    shifts : (n, 2), optional
        Å, added to the image to centre it; zeros by default.
    ctf : CTF, optional
        Of (n,) arrays.
    pixel_size : float
        Å.
    optics_group : (n,) int, optional
        From 0.
    contrast : {"dark", "light"}
        Of the particles as recorded.
    truth : Truth, optional
        Ground truth of a simulated set.
    whitening : Whitening, optional
        How the images were whitened when they were prepared; `ImageFormation` undoes it.
    box_size : int, optional
        D, pixels, where there are no images.
    source_rows : (n,) int, optional
        Which particle of the file that they are read from each is, from 0; by default all in order.

    Attributes
    ----------
    rotations, shifts, ctf, pixel_size, optics_group, contrast, truth, whitening, source_rows
        As given, or by default; None where unknown. R is the transpose of what cryoDRGN stores.

    Raises
    ------
    InputError
        If the parts do not belong together, or hold anything but finite numbers and rotations.
    """

    def __init__(
        self,
        images: np.ndarray | ImageSource | None,
        rotations: np.ndarray | None = None,
        shifts: np.ndarray | None = None,
        ctf: CTF | None = None,
        *,
        pixel_size: float,
        optics_group: np.ndarray | None = None,
        contrast: str = "dark",
        truth: Truth | None = None,
        whitening: Whitening | None = None,
        box_size: int | None = None,
        source_rows: np.ndarray | None = None,
        where: object = "Particles",
    ) -> None:
        self._where = where
        self._source = as_source(images, (rotations, shifts, ctf), box_size, where)
        n = len(self._source)
        self.rotations = None if rotations is None else require_rotations(rotations, where)
        self.shifts = column(np.zeros((n, 2)) if shifts is None else shifts, where, "shift").astype(np.float32)
        self.ctf = None if ctf is None else make_ctf(where, **{f: getattr(ctf, f) for f in CTF_FIELDS})
        self.optics_group = np.zeros(n, np.int64) if optics_group is None else np.asarray(optics_group, np.int64)
        self.source_rows = np.arange(n) if source_rows is None else np.asarray(source_rows, np.int64)
        self.pixel_size, self.contrast = float(pixel_size), contrast
        self.truth, self.whitening = truth, whitening
        self._check()

    def _check(self) -> None:
        n, where = len(self._source), self._where
        if n == 0:
            raise InputError(where, "no particles", "at least one", "Check the file and the selection.")
        positive(f"{where}: pixel_size", self.pixel_size, "Give pixel_size= in Å.")
        choice(f"{where}: contrast", self.contrast, ("dark", "light"))
        if self.shifts.shape != (n, 2):
            found = f"shifts of shape {self.shifts.shape}"
            raise InputError(where, found, f"({n}, 2)", "Give x and y in Å for each particle.")
        if len(self.optics_group) and self.optics_group.min() < 0:
            found = f"optics group {self.optics_group.min()}"
            raise InputError(where, found, "groups numbered from 0", "Number them with np.unique(return_inverse=True).")
        for name in ("rotations", "ctf", "optics_group", "truth", "whitening", "source_rows"):
            part = getattr(self, name)
            if part is not None and len(part) != n:
                remedy = "Give the file that belongs to these particles, unfiltered or filtered like them."
                raise InputError(where, f"{name} of {len(part)} particles", f"{n}", remedy)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike,
        datadir: str | os.PathLike | None = None,
        poses: str | os.PathLike | tuple[np.ndarray, np.ndarray] | None = None,
        ctf: str | os.PathLike | np.ndarray | CTF | None = None,
        indices: str | os.PathLike | np.ndarray | None = None,
        contrast: str = "auto",
        images: bool = True,
        amplitude_contrast: float | None = None,
        box_size: int | None = None,
        pixel_size: float | None = None,
    ) -> Particles:
        """Read particles from a STAR file, a .cs file, a stack, or a list of stacks.

        Parameters
        ----------
        path : path-like
            .star (RELION 3.0, 3.1, 5), .cs (cryoSPARC), .mrcs or .mrc, or .txt with one stack per line.
        datadir : path-like, optional
            Folder that the stacks' paths start from; otherwise the folder of `path` and its parents are tried.
        poses : path-like or (rot, trans), optional
            cryoDRGN's poses.pkl, or the arrays in it, in cryoDRGN's convention: transposed rotations (n, 3, 3), and
            translations (n, 2) as fractions of the box.
        ctf : path-like, (n, 9) or CTF, optional
            cryoDRGN's ctf.pkl, or the array in it, whose pixel size is used, scaled to the box of the images; or a
            `CTF`.
        indices : path-like or (m,) int or (n,) bool, optional
            Particles to keep, from 0; a path is cryoDRGN's ind.pkl. `poses` and `ctf` may be for all or for these.
        contrast : {"auto", "dark", "light"}
            Of the particles as recorded; "auto" takes what a .cs file declares, or measures it.
        images : bool
            False reads metadata only: no stack of a STAR or .cs file is opened.
        amplitude_contrast, box_size, pixel_size : float, int, float, optional
            Fraction; pixels; Å. They replace what the file states, and supply what it lacks.

        Raises
        ------
        InputError
            Naming the file, what was found, what was expected and what to do.

        Warns
        -----
        UserWarning
            On choices made on the user's behalf: contrast, amplitude contrast, class of the poses.
        """
        request = ReadRequest(
            path, datadir, poses, ctf, indices, contrast, images, amplitude_contrast, box_size, pixel_size
        )
        arguments, total, rows, notes = read_parts(request)
        truth = read_beside(Truth, Path(path), total, rows)
        whitening = read_beside(Whitening, Path(path), total, rows) if images else None
        for note in dict.fromkeys(notes):
            warn_user(note)
        return cls(**arguments, truth=truth, whitening=whitening, source_rows=rows)

    @property
    def box_size(self) -> int:
        """D, pixels."""
        return self._source.box_size

    @property
    def source(self) -> Path | None:
        """The file that the particles were read from; None where they were not."""
        return self._where if isinstance(self._where, Path) else None

    @property
    def where(self) -> object:
        """What the particles were read from, for messages."""
        return self._where

    @property
    def files(self) -> frozenset[Path]:
        """The stacks that the images are read from; none if they are in memory."""
        return self._source.files

    def image_name(self, row: int) -> str:
        """What to call an image in a message: its number and its stack."""
        return self._source.name(row)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, indices: Any) -> Particles:
        """A subset of the particles, sharing the images; `indices` as in NumPy, none of them negative."""
        rows = select(indices, len(self), self._where)
        names = ("rotations", "shifts", "ctf", "optics_group", "truth", "whitening", "source_rows")
        parts: dict[str, Any] = {name: getattr(self, name) for name in names}
        parts = {name: None if part is None else part[rows] for name, part in parts.items()}
        common: dict[str, Any] = {"pixel_size": self.pixel_size, "contrast": self.contrast, "where": self._where}
        return Particles(self._source[rows], **parts, **common)

    def images(self, indices: Any) -> np.ndarray:
        """Images (m, D, D) float32 in the sign of the CTF: dark on light, light stacks multiplied by -1.

        Where there is a `whitening` they are whitened; `unwhitened` gives them as they were before.

        Raises
        ------
        InputError
            If an image holds NaN or infinity, naming file and image, or there are no images.
        """
        images = self.recorded(select(indices, len(self), self._where, allow_empty=True))
        return -images if self.contrast == "light" else images

    def unwhitened(self, indices: Any, device: torch.device | None = None) -> Tensor:
        """`images` as they were before they were whitened, but for their level: (m, D, D) float32 on a device."""
        rows = select(indices, len(self), self._where, allow_empty=True)
        images = torch.as_tensor(self.images(rows)).to(device)
        return images if self.whitening is None else self.whitening.undo(images, rows)

    def require_views(self) -> tuple[np.ndarray, CTF]:
        """Poses (n, 3, 3) and CTF, which training and embedding need.

        Raises
        ------
        InputError
            If either is missing.
        """
        for name, value, argument in (("poses", self.rotations, "poses"), ("CTF parameters", self.ctf, "ctf")):
            if value is None:
                remedy = f"Refine the particles first, or read them with {argument}=... from cryoDRGN."
                raise InputError(self._where, f"no {name}", "poses and CTF parameters of every image", remedy)
        return cast(np.ndarray, self.rotations), cast(CTF, self.ctf)

    def require_truth(self) -> Truth:
        """The ground truth, which only simulated sets have.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.truth is None:
            remedy = "Use one of the embedded sets: ct.data.fetch('assembly-small')."
            raise InputError(self._where, "no ground truth", "a simulated set", remedy)
        return self.truth

    def recorded(self, rows: np.ndarray) -> np.ndarray:
        """Some of the images (m, D, D) float32 in the contrast in which they were recorded; all must be finite."""
        return read_finite(self._source, rows)

    def write(self, path: str | os.PathLike, progress: bool = True) -> None:
        """Write `path` (.star, RELION 3.1) and the stack of the same name (.mrcs) beside it, complete or not at all.

        The images keep their recorded contrast. The ground truth of a simulated set goes to `.truth.npz` beside
        them, a whitening to `.whitening.npz`, from where `read` attaches them again.

        Raises
        ------
        InputError
            If the files cannot be written, or what the particles are read from would be overwritten.
        """
        path = require_suffix(path, ".star")
        self.refuse_overwriting(path)
        columns = {name: getattr(self, name) for name in ("optics_group", "rotations", "shifts", "ctf")}
        columns["prepared"] = None if self.whitening is None else {WHITENED: 1}
        images = in_chunks(self.recorded, len(self), self.box_size, progress)
        beside = files_beside(path, self.truth, self.whitening)
        write_star_and_stack(path, images, (len(self), self.box_size), self.pixel_size, columns, beside)

    def refuse_overwriting(self, path: Path) -> None:
        """Raise `InputError` if writing `path` and the stack beside it would overwrite what the particles are in."""
        refuse_overwriting(path, [*self.files, *([] if self.source is None else [self.source])])

    def __repr__(self) -> str:
        return f"<{self.summary()}>"

    def summary(self) -> str:
        """Number, box, pixel size, defocus, contrast and what is known, in a few lines."""
        unknown = isinstance(self._source, NoImages) and not self._source.stated_box_size
        groups, box = len(np.unique(self.optics_group)), None if unknown else self.box_size
        has_poses = self.rotations is not None
        lines = described(len(self), box, self.pixel_size, self.contrast, self.ctf, has_poses, groups)
        if isinstance(self._source, NoImages):
            lines.append("images: none (metadata only)")
        if self.truth is not None:
            lines.append("simulated: with ground truth")
        return "\n".join(lines)
