"""Particles: images, poses and CTF of a data set, read lazily from disk or held in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, choice, positive, warn_user
from cryotwin_nb.formats.columns import read_columns
from cryotwin_nb.formats.metadata import CTF_FIELDS, column, make_ctf, require_consistent, select
from cryotwin_nb.formats.poses import require_rotations
from cryotwin_nb.formats.reading import ReadRequest, read_beside, read_parts
from cryotwin_nb.formats.stacks import ImageSource, as_source, read_finite
from cryotwin_nb.imaging.optics import CTF
from cryotwin_nb.particles.whitening import Whitening
from cryotwin_nb.particles.writing import described, write_star_and_stack
from cryotwin_nb.truth.truth import Truth

if TYPE_CHECKING:
    import pandas as pd

_PARTS = ("rotations", "ctf", "optics_group", "truth", "whitening", "source_rows")  # one entry per image, like `shifts`


class Particles:
    """Particle images with poses and CTF; all parameters except images and box size are attributes, None if unknown.

    Parameters
    ----------
    images : (n, D, D) float32, an ImageSource, or None
        Recorded images; None for metadata only.
    rotations, shifts, ctf : (n, 3, 3), (n, 2), CTF, optional
        R in v = R nu, the transpose of cryoDRGN's matrices; shift that centres the image, Å (default: 0); CTF.
    optics_group, source_rows : (n,) int, optional
        Number of the optics group, from 0 (default: 0); row in the file that was read, from 0 (default: in order).
    pixel_size, contrast, box_size : float, {"dark", "light"}, int
        Pixel size, Å; contrast of the particles as recorded; box size D, pixels, if there are no images.
    truth, whitening : Truth, Whitening, optional
        Ground truth of a simulated set; whitening of prepared images, which `ImageFormation` undoes.
    where, inputs : path-like or str, sequence of path-like
        Source of the particles, named in messages; all files they were read from, which are never overwritten.

    Raises
    ------
    InputError
        If the arrays do not match, contain non-finite numbers, or contain matrices that are not rotations.
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
        inputs: Sequence[str | os.PathLike] = (),
    ) -> None:
        self.where, self.inputs = where, tuple(map(Path, inputs))
        self._quality: Any = None  # set by `image_quality`
        self._source = as_source(images, (rotations, shifts, ctf), box_size, where)
        n = len(self._source)
        self.rotations = None if rotations is None else require_rotations(rotations, where)
        self.shifts = column(np.zeros((n, 2)) if shifts is None else shifts, where, "shift").astype(np.float32)
        self.ctf = None if ctf is None else make_ctf(where, **{f: getattr(ctf, f) for f in CTF_FIELDS})
        self.optics_group = np.zeros(n, np.int64) if optics_group is None else np.asarray(optics_group, np.int64)
        self.source_rows = np.arange(n) if source_rows is None else np.asarray(source_rows, np.int64)
        self.pixel_size, self.contrast = positive(f"{where}: pixel_size", pixel_size, "Pass it in Å."), contrast
        if not 0.05 <= self.pixel_size <= 100:
            raise InputError(where, f"a pixel size of {pixel_size:g} Å", "0.05 to 100 Å", "Pass pixel_size= in Å.")
        self.truth, self.whitening = truth, whitening
        choice(f"{where}: contrast", contrast, ("dark", "light"))
        require_consistent(where, n, self.shifts, self.optics_group, {name: getattr(self, name) for name in _PARTS})

    @classmethod
    def read(
        cls,
        path: str | os.PathLike | Sequence[str | os.PathLike],
        datadir: str | os.PathLike | None = None,
        poses: str | os.PathLike | tuple[np.ndarray, np.ndarray] | None = None,
        ctf: str | os.PathLike | np.ndarray | CTF | None = None,
        indices: str | os.PathLike | np.ndarray | None = None,
        contrast: str = "auto",
        images: bool = True,
        amplitude_contrast: float | None = None,
        box_size: int | None = None,
        pixel_size: float | None = None,
        optics_groups: str | int | Sequence[str | int] | None = None,
    ) -> Particles:
        """Read particles from a STAR file, a .cs file, a stack, or a list of stacks.

        Choices made on the user's behalf (contrast, class of the poses, particles left out) cause a UserWarning.

        Parameters
        ----------
        path : path-like or sequence of path-like
            .star (RELION 3.0, 3.1, 5), .cs (cryoSPARC; several are joined by uid), .mrcs, .mrc, or .txt list of stacks.
        datadir : path-like, optional
            Folder that the stack paths are relative to; by default the folder of `path` and its parents are searched.
        poses : path-like or ((n, 3, 3), (n, 2)), optional
            .cs or .star file, matched by uid or image name; cryoDRGN's poses.pkl or its arrays (R^T, shift / box).
        ctf : path-like, (n, 9) or CTF, optional
            .cs or .star file, matched likewise; cryoDRGN's ctf.pkl (with its pixel size) or its array; or a `CTF`.
        indices : path-like or (m,) int or (n,) bool, optional
            Rows of `path` (of the first of several) to keep, from 0, or cryoDRGN's ind.pkl; its poses and CTF can cover
            all particles or these.
        contrast : {"auto", "dark", "light"}
            Contrast of the particles as recorded; "auto" uses the contrast declared in the file, or measures it.
        images : bool
            Whether to read images; if False, the stacks of a STAR or .cs file are not opened.
        amplitude_contrast : float, optional
            Amplitude contrast as a fraction, instead of the value in the file, if any.
        box_size : int, optional
            Box size, pixels, for files that do not state it.
        pixel_size : float, optional
            Pixel size, Å, instead of the value in the file, if any.
        optics_groups : str, int or sequence of them, optional
            Optics groups to keep, by number or name (.cs: ctf/exp_group_id); a text can list several: "1, grid2".

        Raises
        ------
        InputError
            If the particles cannot be read; the message names the file, the problem and a remedy.

        Examples
        --------
        >>> ct.Particles.read("particles.star", contrast="dark").box_size
        32
        """
        added = (poses, ctf, indices, contrast, images, amplitude_contrast, box_size, pixel_size, optics_groups)
        parts = read_parts(ReadRequest(path, datadir, *added))
        truth = read_beside(Truth, parts, ".truth.npz")
        whitening = read_beside(Whitening, parts, ".whitening.npz") if images else None
        for note in dict.fromkeys(parts.notes):
            warn_user(note)
        return cls(**parts.arguments, truth=truth, whitening=whitening, source_rows=parts.rows)

    @property
    def identity(self) -> np.ndarray:
        """Number (n,) int64 of each particle's image; copies of an image have the same number."""
        return self._source.identity

    @property
    def box_size(self) -> int:
        """Box size D, pixels."""
        return self._source.box_size

    @property
    def source(self) -> Path | None:
        """File that the particles were read from; None if they were not read from a file."""
        return self.where if isinstance(self.where, Path) else None

    @property
    def files(self) -> dict[str, Path | None]:
        """Stacks by their names in the particle file; None if not found, empty if the images are in memory."""
        return self._source.files

    @property
    def columns(self) -> pd.DataFrame:
        """Columns of the particle file for these particles (class, micrograph ...), read when needed; n rows."""
        return read_columns(self.source, self.source_rows)

    def image_name(self, row: int) -> str:
        """Return the name of image `row` for messages: its number and its stack."""
        return self._source.name(row)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, indices: Any) -> Particles:
        """Return a subset of the particles that shares the images; `indices` are as in NumPy, but not negative."""
        rows = select(indices, len(self), self.where)
        every = ((name, getattr(self, name)) for name in ("shifts", *_PARTS))
        parts: dict[str, Any] = {name: None if part is None else part[rows] for name, part in every}
        parts |= {name: getattr(self, name) for name in ("pixel_size", "contrast", "where", "inputs")}
        chosen = Particles(self._source[rows], **parts)
        chosen._quality = None if self._quality is None else self._quality[rows]
        return chosen

    def images(self, indices: Any) -> np.ndarray:
        """Read the images `indices` (m, D, D) float32 with the sign of the CTF (dark on light); light ones are negated.

        Raises
        ------
        InputError
            If there are no images, or one contains NaN or infinity.
        """
        images = read_finite(self._source, select(indices, len(self), self.where, allow_empty=True))
        return -images if self.contrast == "light" else images

    def unwhitened(self, indices: Any, device: torch.device | None = None) -> Tensor:
        """Read images `indices` before whitening, except for their mean: (m, D, D) float32 on `device`."""
        images = torch.as_tensor(self.images(indices)).to(device)
        rows = select(indices, len(self), self.where, allow_empty=True)
        return images if self.whitening is None else self.whitening.undo(images, rows)

    def require_views(self) -> tuple[np.ndarray, CTF]:
        """Return poses (n, 3, 3) and CTF, which fits and embedding need; raise `InputError` if either is missing."""
        for name, value, what in (("poses", self.rotations, "poses"), ("ctf", self.ctf, "CTF parameters")):
            if value is None:
                remedy = f"Refine the particles first, or read them with {name}=, a file of another job or program."
                raise InputError(self.where, f"no {what}", f"{what} of every image", remedy)
        return cast(np.ndarray, self.rotations), cast(CTF, self.ctf)

    def require_truth(self) -> Truth:
        """Return the ground truth, which only simulated sets have; raise `InputError` if there is none."""
        if self.truth is not None:
            return self.truth
        raise InputError(self.where, "no ground truth", "a simulated set", "Use ct.data.fetch('assembly-small').")

    def write(self, path: str | os.PathLike, progress: bool = True) -> None:
        """Write a RELION 3.1 STAR file and a stack of the same name next to it, completely or not at all.

        The images keep their recorded contrast. Ground truth and whitening are written beside it, to `.truth.npz` and
        `.whitening.npz`; `read` loads them again.

        Parameters
        ----------
        path, progress : path-like, bool
            The .star file; whether to show a progress bar.

        Raises
        ------
        InputError
            If the files cannot be written, or one that the particles come from would be overwritten.
        """
        write_star_and_stack(path, self, self._source, progress)

    def __repr__(self) -> str:
        return f"<{self.summary()}>"

    def summary(self) -> str:
        """Describe the number, box, pixel size, defocus, contrast and available data in a few lines."""
        return described(self, self._source)
