"""Likelihood of structures given the images, from their sufficient statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.models.records import Records, linearised, unpack
from cryotwin_nb.reconstruction.statistics import FAINTEST, over_contrasts

_AT_ONCE = 2**14  # images whose likelihoods are computed at once


class ImageLikelihood:
    """Log-likelihood of structures given images, relative to that of the best structure for each image.

    A call with latents (m, d) returns (n, m) float64. If all contrasts are 1, it is -(c - x)^T G (c - x) / 2, where c
    are the coefficients at the latents, x = G^-1 b is the maximum-likelihood estimate for the image and G^-1 its error
    covariance; it is never above 0. If contrasts vary, the likelihood is integrated over the contrast, and the best
    structure is that at the most likely contrast. Unlike a latent, it is not shrunk towards other images by a prior.
    `find_routes` accepts an `ImageLikelihood` as evidence.

    Parameters
    ----------
    coefficients : callable
        Maps latents (m, d) to coefficients (m, K) and their Jacobians (m, K, d).
    variances : (K,)
        Variances of the coefficients.
    records : iterable of Records
        Records of the images.
    contrast_spread : float
        Standard deviation of the contrasts; 0 if all are 1.
    groups : (n,) int, optional
        Number of each image; copies of an image have the same number (`Particles.identity`).
    latents : (n, d) float, optional
        Latents of the images, at which `points` linearises the coefficients; required for it.
    """

    def __init__(
        self,
        coefficients: Callable[[Tensor], tuple[Tensor, Tensor]],
        variances: Tensor,
        records: Iterable[Records],
        contrast_spread: float = 0.0,
        groups: np.ndarray | None = None,
        latents: Tensor | None = None,
    ) -> None:
        self.groups, self.latents = groups, latents
        self._coefficients, self._spread = coefficients, contrast_spread
        parts = [(r.b, r.precision, r.b_full, r.G_full) for r in records]
        self._b, self._precision, self._b_full, self._G_full = map(torch.cat, zip(*parts, strict=True))
        self._best = torch.cat([self._highest(*part, (1e-6 / variances).diag()) for part in self._parts()])

    @classmethod
    def of(cls, networks: Any, records: Iterable[Records], groups: np.ndarray) -> ImageLikelihood:
        """Return the likelihood that `records` of images define for the coefficients of `networks`."""
        kept = list(records)
        latents, spread = torch.cat([networks.encode(r)[0] for r in kept]), float(networks.contrast_spread)
        return cls(networks.live_coefficients, networks.variances, kept, spread, groups, latents)

    def __len__(self) -> int:
        return len(self._b)

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield b and G float64, of c or of c~, for blocks of images, as all at once would need too much memory."""
        own = (self._b_full, self._G_full) if self._spread else (self._b, self._precision)
        for b, G in zip(own[0].split(_AT_ONCE), own[1].split(_AT_ONCE), strict=True):
            yield b.double(), unpack(G).double()

    def _highest(self, b: Tensor, G: Tensor, weak: Tensor) -> Tensor:
        """Return the log-likelihood (m,) of the best structure for each image, relative to that of no structure."""
        if not self._spread:
            return (b[:, None] @ torch.linalg.inv(G + weak) @ b[..., None])[:, 0, 0] / 2
        prior = torch.zeros_like(G[0])
        prior[0, 0], prior[1:, 1:] = self._spread**-2, weak
        best = (torch.linalg.inv(G + prior) @ (b + self._spread**-2 * prior.sign()[0])[..., None])[..., 0]
        tilde = best / best[:, :1].clamp_min(FAINTEST)
        tilde[:, 0] = 1
        return over_contrasts((b * tilde).sum(1), (tilde[:, None] @ G @ tilde[..., None])[:, 0, 0], self._spread)

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        c = self._coefficients(torch.as_tensor(z, dtype=torch.float32).to(self._b.device))[0].double()
        c = torch.cat([torch.ones_like(c[:, :1]), c], dim=1) if self._spread else c
        squares, values = (c[:, :, None] * c[:, None]).flatten(1).T, []
        for b, G in self._parts():
            linear, square = b @ c.T, G.flatten(1) @ squares
            part = over_contrasts(linear, square, self._spread) if self._spread else linear - square / 2
            values.append(part.cpu())
        return torch.cat(values) - self._best.cpu()[:, None]

    @torch.no_grad()
    def points(self) -> tuple[Tensor, Tensor]:
        """Return the maximum-likelihood latent of each image and its error covariance: (n, d) and (n, d, d) float64.

        Coefficients are linearised at the latents of the images, so the error includes only noise. In directions that
        an image does not constrain, its error is set to 1,000 times the variance of all latents instead of infinity.

        Raises
        ------
        InputError
            If the likelihood was made without latents.
        """
        latents = self.latents
        if latents is None:
            raise InputError("points", "no latents", "the latents of the images", "Use model.likelihood(particles).")
        weak = (1e-3 / latents.double().var(0).clamp_min(1e-12)).diag()
        points, errors = [], []
        blocks = (part.split(_AT_ONCE) for part in (latents, self._b, self._precision))
        for z, b, G in zip(*blocks, strict=True):
            pull, precision = linearised(b.double(), unpack(G).double(), z, *self._coefficients(z))
            error = torch.linalg.inv(precision + weak)
            points.append((error @ pull[..., None])[..., 0].cpu())
            errors.append(((error + error.mT) / 2).cpu())
        return torch.cat(points), torch.cat(errors)
