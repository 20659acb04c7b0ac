"""Stacks that RELION can read: float32, particles light on dark, each image normalised by its background."""

from __future__ import annotations

import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, choice
from cryotwin_nb.particles.formation import ImageFormation


def choose_format(dtype: str | None, whiten: bool | None, for_relion: bool) -> tuple[str, bool]:
    """Return the data type of a stack and whether to whiten it: as given, or by default as its reader needs it.

    Parameters
    ----------
    dtype, whiten, for_relion
        As in `prepare`; None if not given.

    Raises
    ------
    InputError
        If the data type is neither float16 nor float32, or a stack for RELION is to be float16 or whitened.
    """
    if dtype is not None:
        choice("dtype", dtype, ("float16", "float32"), "Choose one of the two.")
    if for_relion and (whiten or dtype == "float16"):
        wrong = "whitening" if whiten else "float16"
        sentence = f"for_relion cannot be combined with {wrong}: RELION needs float32 images that are not whitened."
        remedy = f"Omit {wrong}, or omit for_relion for a stack that only cryotwin_nb reads."
        raise InputError("for_relion", wrong, "float32 and no whitening", remedy, sentence)
    return dtype or ("float32" if for_relion else "float16"), not for_relion if whiten is None else whiten


def normalised(images: Tensor) -> Tensor:
    """Return images (m, D, D) of light particles with background mean 0 and standard deviation 1, from dark ones.

    The background is the region outside the particle radius of `ImageFormation`. RELION also normalises image by image
    (`relion_preprocess --norm --no_ramp`) and warns if images are not normalised. Images with a constant background,
    masked or empty, keep their scale.
    """
    outside = 1 - ImageFormation(images.shape[-1]).window
    mean = (images * outside).sum((1, 2)) / outside.sum()
    light = mean[:, None, None] - images
    deviation = ((light.square() * outside).sum((1, 2)) / outside.sum()).sqrt()
    constant = deviation <= 1e-6 * images.abs().amax((1, 2))  # up to rounding
    return light / torch.where(constant, 1, deviation)[:, None, None]
