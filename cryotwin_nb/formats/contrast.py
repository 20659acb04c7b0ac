"""Particle contrast (dark or light), measured on the images because file headers do not record it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import Metadata
from cryotwin_nb.formats.stacks import ImageSource, NoImages
from cryotwin_nb.imaging.fourier import fft2, grid, ifft2, n_shells, shell_mean
from cryotwin_nb.imaging.optics import CTF


@dataclass(frozen=True)
class SignedImages:
    """Images of which some are negated, so that all particles are dark."""

    source: ImageSource
    negated: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: np.ndarray) -> SignedImages:
        return replace(self, source=self.source[rows], negated=self.negated[rows])

    @property
    def box_size(self) -> int:
        return self.source.box_size

    @property
    def files(self) -> dict[str, Path | None]:
        return self.source.files

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.where(self.negated[rows], -1, 1).astype(np.float32)[:, None, None] * self.source.read(rows)

    def name(self, row: int) -> str:
        return self.source.name(row)

    @property
    def identity(self) -> np.ndarray:
        return self.source.identity


_WORDS = {"dark": "dark on light", "light": "light on dark"}


def with_contrast(
    source: ImageSource, ctf: CTF | None, pixel: float, table: Metadata, notes: list[str]
) -> tuple[ImageSource, str]:
    """Return the images and their contrast.

    If the file declares both signs, light particles are negated; what is unclear is added to `notes`.
    """
    signs = np.zeros(0) if table.sign is None else np.unique(table.sign)
    if table.sign is not None and {-1.0, 1.0} <= set(signs):
        light = table.sign > 0
        text = f"{table.path} declares {light.sum()} of {len(light)} particles light on dark, the others dark on light;"
        notes.append(f"{text} the former are negated.")
        return (source if isinstance(source, NoImages) else SignedImages(source, light)), "dark"
    sign = None if table.sign is None else table.common("sign")
    contrast, why = choose_contrast(source, ctf, pixel, sign, table.path)
    notes += [why] if why else []
    return source, contrast


def choose_contrast(
    source: ImageSource, ctf: CTF | None, pixel_size: float, sign: float | None, where: object
) -> tuple[str, str | None]:
    """Return the contrast, "dark" or "light", and a note on how it was determined, or None if no note is needed.

    The contrast is the one declared in the file (`sign` -1 or 1), else the one measured on up to 200 images
    (`contrast_score`), else "dark". No note is needed without images, or if the images do not contradict the declared
    contrast. A declared contrast is used even if the images contradict it.

    Raises
    ------
    InputError
        If all measured images are constant or contain NaN or infinity.
    """
    declared = {-1.0: "dark", 1.0: "light"}.get(sign or 0.0)
    if isinstance(source, NoImages):
        return declared or "dark", None
    size = source.box_size
    wanted = min(len(source), 200, max(20, 2**24 // size**2))
    rows = np.linspace(0, len(source) - 1, wanted).astype(np.int64)
    images = source.read(rows)
    usable = np.array([bool(np.isfinite(image).all()) and image.min() < image.max() for image in images])
    if not usable.any():
        found = f"only constant or non-finite images ({len(rows)} examined)"
        remedy = "Check the stack, or pass contrast='dark' or contrast='light'."
        raise InputError(where, found, "particle images", remedy)
    score = contrast_score(images[usable], None if ctf is None else ctf[rows[usable]], pixel_size)
    measured = "" if abs(score) <= 2 else "light" if score > 0 else "dark"
    chosen = declared or measured or "dark"
    reason = f"measured on {usable.sum()} images: {abs(score):.1f} standard errors"
    if declared and measured in ("", declared):
        return declared, None
    if declared:
        reason = f"declared in the file, but the images look {_WORDS[measured]}; {reason}"
    elif not measured:
        reason = f"assumed; inconclusive when {reason}"
    note = f"{where}: treating the particles as {_WORDS[chosen]} ({reason})."
    return chosen, f"{note} Pass contrast='dark' or contrast='light' to override."


def contrast_score(images: np.ndarray, ctf: CTF | None, pixel_size: float) -> float:
    """Return the mean difference between centre disc and rim, in standard errors; positive for light particles.

    Parameters
    ----------
    images : (n, D, D) float32
        Recorded images, none of them constant.
    ctf : CTF or None
        If given, a second score is computed after whitening the images and multiplying them by the CTF. The sign of
        the particle is then independent of the defocus, and ice gradients have less effect. The score with the larger
        absolute value is returned.
    pixel_size : float
        Pixel size, Å.

    Notes
    -----
    The disc extends to half the radius of the inscribed circle, and the rim extends from 0.8 of that radius to the
    corners.
    """
    recorded = torch.as_tensor(images) / float(np.abs(images).max())
    score = _disc_against_rim(recorded)
    if ctf is None:
        return score
    return max(score, -_disc_against_rim(_restored(recorded, ctf, pixel_size)), key=abs)


def _disc_against_rim(images: Tensor) -> float:
    size = images.shape[-1]
    radius = grid(size, 2).float().norm(dim=-1) / (size / 2)
    difference = images[:, radius < 0.5].mean(1).double() - images[:, radius >= 0.8].mean(1).double()
    if len(difference) < 2 or float(difference.std()) == 0:
        return 0.0
    return float(difference.mean() / (difference.std() / len(difference) ** 0.5))


def _restored(images: Tensor, ctf: CTF, pixel_size: float) -> Tensor:
    """Return images whitened by their mean power spectrum and multiplied by their CTF."""
    size = images.shape[-1]
    frequencies = grid(size, 2).reshape(-1, 2)
    shell = frequencies.float().norm(dim=-1).round().long()
    spectra = fft2(images).flatten(-2)
    power = shell_mean(spectra.abs().square().mean(0), shell, n_shells(size))[shell].clamp_min(1e-20)
    transfer = ctf(frequencies / (size * pixel_size)) * power.rsqrt().float()
    return ifft2((spectra * transfer).unflatten(-1, (size, size))).real
