"""What the explorer is given, checked and in one form."""

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
    """Å."""
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError("voxel_size", f"{voxel_size}", "a positive number of Å", "Give particles.pixel_size.")
    return float(voxel_size)


def latents_of(prior: GaussianMixture, latents: Any) -> Tensor:
    """Latents (n, d) float32 on the CPU."""
    z = torch.as_tensor(latents).detach().cpu().float()
    if z.ndim != 2 or z.shape[1] != prior.latent_dim or len(z) < 2:
        expected = f"(n, {prior.latent_dim}) with n at least 2"
        raise InputError("latents", f"shape {tuple(z.shape)}", expected, "Give latents that the prior was fitted to.")
    return z


def names_and_labels(prior: GaussianMixture, z: Tensor, labels: Any) -> tuple[dict[int, str], Any]:
    """Names of components, and the labels of particles, from either."""
    if isinstance(labels, Mapping):
        return {int(c): str(name) for c, name in labels.items()}, None
    if labels is None:
        return {}, None
    return label_components(prior, z, np.asarray(labels)), labels
