"""Validation and conversion of the explorer's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import label_components
from cryotwin_nb.mixture.gaussian import GaussianMixture


def positive_voxel_size(voxel_size: float) -> float:
    """Validate a voxel size in Å and return it as a float."""
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError("voxel_size", f"{voxel_size}", "a positive number of Å", "Pass particles.pixel_size.")
    return float(voxel_size)


def latents_of(prior: GaussianMixture, latents: Any) -> Tensor:
    """Validate latents and return them as (n, d) float32 on the CPU."""
    z = torch.as_tensor(latents).detach().cpu().float()
    if z.ndim != 2 or z.shape[1] != prior.latent_dim or len(z) < 2:
        expected = f"(n, {prior.latent_dim}) with n at least 2"
        raise InputError("latents", f"shape {tuple(z.shape)}", expected, "Pass the latents used to fit the prior.")
    return z


def require_components(prior: GaussianMixture, start: int, end: int) -> None:
    """Raise `InputError` unless the mixture has both components."""
    for name, component in (("start", start), ("end", end)):
        if not 0 <= component < prior.n_components:
            expected = f"a component from 0 to {prior.n_components - 1}"
            raise InputError(name, f"component {component}", expected, "Hover over a star to see its component.")


def names_and_labels(prior: GaussianMixture, z: Tensor, labels: Any) -> tuple[dict[int, str], Any]:
    """Return the names of the components and, if given, the labels of the particles."""
    if isinstance(labels, Mapping):
        return {int(c): str(name) for c, name in labels.items()}, None
    if labels is None:
        return {}, None
    return label_components(prior, z, np.asarray(labels)), labels
