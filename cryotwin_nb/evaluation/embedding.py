"""t-SNE map of latents, with samples of the prior and its component means placed in the same map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, extras_explained, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.points import require_points


@dataclass(frozen=True)
class Embedding:
    """t-SNE map of latents (Van der Maaten and Hinton 2008), with samples and means of the prior placed in it.

    Attributes
    ----------
    latents : (n, 2) float64
        Positions of the latents.
    samples : (m, 2) float64
        Positions of samples of the prior.
    means : (C, 2) float64
        Positions of the component means of the prior.
    """

    latents: np.ndarray
    samples: np.ndarray
    means: np.ndarray
    _map: Any = field(repr=False)

    def transform(self, z: Tensor | np.ndarray) -> np.ndarray:
        """Return the positions (m, 2) of other latents in the unchanged map.

        Parameters
        ----------
        z : (m, d)
            Latents, such as the points of a pathway.
        """
        return _placed(self._map, require_points(z).cpu().double().numpy())


@guarded(n_samples=(1, 2**62), perplexity=(1, 1e9), seed=(0, 2**32 - 1))
def embed_tsne(
    z: Tensor | np.ndarray,
    prior: GaussianMixture,
    n_samples: int | None = None,
    perplexity: float = 30.0,
    seed: int = 0,
    progress: bool = False,
) -> Embedding:
    """Compute one t-SNE map of latents, samples of the prior and its component means (Fig. 2a and 2b of the paper).

    The map is fitted to the latents alone; samples and means are then placed in it (openTSNE: Policar, Strazar and
    Zupan 2024), so that plots of latents and samples can be overlaid.

    Parameters
    ----------
    z : (n, d) float
        Latents, at least 30.
    prior : GaussianMixture
        Mixture to sample.
    n_samples : int, optional
        Number of samples of the prior; by default as many as latents, but at most 5,000.
    perplexity : float
        Effective number of neighbours of each latent; at most (n - 1) / 3.
    seed : int
        Seed of the map and of the samples.
    progress : bool
        Print the progress of the fit.
    """
    with extras_explained():
        from openTSNE import TSNE

    points = require_points(z, prior.latent_dim, least=30).cpu().double().numpy()
    if not np.ptp(points, axis=0).any():
        raise InputError("embed_tsne", "equal latents", "different latents", "Embed particles that vary.")
    perplexity = min(perplexity, (len(points) - 1) / 3)
    start = "pca" if points.shape[1] > 1 else "random"  # there is one principal component only
    method = TSNE(
        perplexity=perplexity, initialization=start, random_state=seed, n_jobs=torch.get_num_threads(), verbose=progress
    )
    fitted = method.fit(points)
    if not np.isfinite(fitted).all():
        found = f"latents at distances from 0 to {np.ptp(points, axis=0).max():.3g}"
        raise InputError("embed_tsne", found, "different latents", "Leave out latents far from all others, or copies.")
    samples = prior.sample(n_samples or min(len(points), 5000), seed=seed).cpu().double().numpy()
    placed = _placed(fitted, np.concatenate([samples, prior.means.detach().cpu().numpy()]))
    return Embedding(np.asarray(fitted), placed[: len(samples)], placed[len(samples) :], fitted)


def _placed(fitted: Any, points: np.ndarray) -> np.ndarray:
    return np.asarray(fitted.transform(points))
