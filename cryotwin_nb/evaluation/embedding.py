"""t-SNE map of latents, with samples of the prior and its component means placed in the same map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, extras_explained
from cryotwin_nb.mixture.gaussian import GaussianMixture


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
        return _placed(self._map, _array(z))


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

    points = _array(z)
    if len(points) < 30:
        raise InputError("embed_tsne", f"{len(points)} latents", "at least 30", "Embed more particles.")
    perplexity = min(perplexity, (len(points) - 1) / 3)
    method = TSNE(perplexity=perplexity, random_state=seed, n_jobs=torch.get_num_threads(), verbose=progress)
    fitted = method.fit(points)
    samples = _array(prior.sample(n_samples or min(len(points), 5000), seed=seed))
    placed = _placed(fitted, np.concatenate([samples, _array(prior.means)]))
    return Embedding(np.asarray(fitted), placed[: len(samples)], placed[len(samples) :], fitted)


def _array(z: Tensor | np.ndarray) -> np.ndarray:
    return torch.as_tensor(z).detach().cpu().double().numpy()


def _placed(fitted: Any, points: np.ndarray) -> np.ndarray:
    return np.asarray(fitted.transform(points))
