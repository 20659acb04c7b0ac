"""Are the particles dark or light? Measured on the images, because file headers do not say."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.stacks import ImageSource, NoImages
from cryotwin_nb.imaging.fourier import fft2, grid, ifft2, n_shells, shell_mean
from cryotwin_nb.imaging.optics import CTF

_WORDS = {"dark": "dark on light", "light": "light on dark"}


def choose_contrast(
    source: ImageSource, ctf: CTF | None, pixel_size: float, sign: float | None, where: object
) -> tuple[str, str | None]:
    """ "dark" or "light": what the file declares (`sign` -1 or 1), else what the images show, else dark; and why.

    Up to 200 images are measured (`contrast_score`). Without images nothing is measured or said; nor is it where the
    file declares the contrast and the images look like that. A declaration that they contradict is followed all the
    same.

    Raises
    ------
    InputError
        If all the images measured are constant.
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
        found = f"images that are constant or not finite (all {len(rows)} examined)"
        remedy = "Check the stack, or give contrast='dark' or contrast='light'."
        raise InputError(where, found, "images of particles", remedy)
    score = contrast_score(images[usable], None if ctf is None else ctf[rows[usable]], pixel_size)
    measured = "" if abs(score) <= 2 else "light" if score > 0 else "dark"
    chosen = declared or measured or "dark"
    reason = f"measured on {usable.sum()} images: {abs(score):.1f} standard errors"
    if declared and measured in ("", declared):
        return declared, None
    if declared:
        reason = f"declared in the file; but they look {_WORDS[measured]} ({reason})"
    elif not measured:
        reason = f"assumed: undecidable when {reason}"
    text = f"{where}: taking the particles as {_WORDS[chosen]} ({reason}). Give contrast='dark' or 'light' to override."
    return chosen, text


def contrast_score(images: np.ndarray, ctf: CTF | None, pixel_size: float) -> float:
    """Mean over the images of (centre disc - rim) in standard errors; above 0 for light particles.

    Parameters
    ----------
    images : (n, D, D) float32
        As recorded, none constant.
    ctf : CTF or None
        If known, a second score is taken of the images whitened and multiplied by it: the particle then stands out in
        the sign of its density whatever the defocus, and gradients of the ice count for less. The score farther from 0
        is returned.
    pixel_size : float
        Å.

    Notes
    -----
    The disc reaches to half the inscribed circle's radius, the rim from 0.8 of it to the corners.
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
    """Images whitened by their mean power spectrum and multiplied by their CTF."""
    size = images.shape[-1]
    frequencies = grid(size, 2).reshape(-1, 2)
    shell = frequencies.float().norm(dim=-1).round().long()
    spectra = fft2(images).flatten(-2)
    power = shell_mean(spectra.abs().square().mean(0), shell, n_shells(size))[shell].clamp_min(1e-20)
    transfer = ctf(frequencies / (size * pixel_size)) * power.rsqrt().float()
    return ifft2((spectra * transfer).unflatten(-1, (size, size))).real
