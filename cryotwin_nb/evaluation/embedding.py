"""t-SNE of latents, with samples of the prior and its means placed in the same map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, extras_told
from cryotwin_nb.mixture.gaussian import GaussianMixture


@dataclass(frozen=True)
class Embedding:
    """A t-SNE map of latents (Van der Maaten and Hinton 2008), and what was placed in it afterwards.

    Attributes
    ----------
    latents : (n, 2) float64
        Where each latent lies.
    samples : (m, 2) float64
        Samples of the prior.
    means : (C, 2) float64
        Its means.
    """

    latents: np.ndarray
    samples: np.ndarray
    means: np.ndarray
    _map: Any = field(repr=False)

    def transform(self, z: Tensor | np.ndarray) -> np.ndarray:
        """Positions (m, 2) of other latents (m, d), such as the points of a pathway; the map itself does not move."""
        return _placed(self._map, _array(z))


def embed_tsne(
    z: Tensor | np.ndarray,
    prior: GaussianMixture,
    n_samples: int | None = None,
    perplexity: float = 30.0,
    seed: int = 0,
    progress: bool = False,
) -> Embedding:
    """One t-SNE map for latents, samples of the prior and its means (the paper's Fig. 2a and 2b).

    The map is fitted to the latents alone; samples and means are placed in it (openTSNE: Policar, Strazar and Zupan
    2024), so that two pictures of it can be laid over each other.

    Parameters
    ----------
    z : (n, d) float
        Latents, at least 30.
    prior : GaussianMixture
    n_samples : int, optional
        Samples of the prior; as many as latents, at most 5,000, by default.
    perplexity : float
        Effective number of neighbours of each latent; lowered to (n - 1) / 3 where there are few.
    """
    with extras_told():
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
