"""What is left of images once the basis of a subspace is fixed: a few numbers each, and what they say of structures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from cryotwin_nb.mixture.gaussian import GaussianMixture

_AT_ONCE = 2**14  # images whose likelihoods are computed at once


class Records(NamedTuple):
    """What is left of images once the basis is fixed: the distortion as a function of the coefficients, and more.

    Attributes
    ----------
    expected : (m, K) float32
        Posterior mean of the coefficients under their density.
    contrast : (m,) float32
        Contrast of the image.
    b, precision : (m, K), (m, K (K + 1) / 2) float32
        The likelihood exp(b.c - c.Gc / 2), G as its lower triangle.
    b_weighted, G_weighted, energy : (m, K), (m, K (K + 1) / 2), (m,) float32
        The distortion energy - 2 c.b + c.Gc of Eq. 3.
    """

    expected: Tensor
    contrast: Tensor
    b: Tensor
    precision: Tensor
    b_weighted: Tensor
    G_weighted: Tensor
    energy: Tensor

    def take(self, rows: Tensor) -> Records:
        """The records of some of the images."""
        return Records(*(field[rows] for field in tuple(self)))


def pack(matrices: Tensor) -> Tensor:
    """The lower triangles (m, K (K + 1) / 2) of symmetric matrices (m, K, K)."""
    row, column = torch.tril_indices(*matrices.shape[1:])
    return matrices[:, row, column]


def unpack(packed: Tensor) -> Tensor:
    """The symmetric matrices (m, K, K) of `pack`."""
    size = isqrt(2 * packed.shape[1])
    index = torch.zeros(size, size, dtype=torch.int64)
    row, column = torch.tril_indices(size, size)
    index[row, column] = index[column, row] = torch.arange(len(row))
    return packed[:, index.flatten().to(packed.device)].view(-1, size, size)


class ImageLikelihood:
    """log-likelihood of structures given images, relative to the best that each image could have: 0 or less.

    Called with latents (m, d) it gives (n, m) float64: -(c - x)^T G (c - x) / 2 with c the coefficients there,
    x = G^-1 b the image's own best and G^-1 the error of that. It is sharper than a latent, which a prior has drawn
    towards the others. `find_routes` takes it as evidence.
    """

    def __init__(
        self,
        coefficients: Callable[[Tensor], tuple[Tensor, Tensor]],
        variances: Tensor,
        b: Tensor,
        precision: Tensor,
    ) -> None:
        self._coefficients, self._b, self._precision = coefficients, b, precision
        weak = (1e-6 / variances).diag()
        best = [(b[:, None] @ torch.linalg.inv(G + weak) @ b[..., None])[:, 0, 0] / 2 for b, G in self._parts()]
        self._best = torch.cat(best)

    def __len__(self) -> int:
        return len(self._b)

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """b (m, K) and G (m, K, K) float64, of some images at a time: all of them would take several times the room."""
        for b, precision in zip(self._b.split(_AT_ONCE), self._precision.split(_AT_ONCE), strict=True):
            yield b.double(), unpack(precision).double()

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        c = self._coefficients(torch.as_tensor(z, dtype=torch.float32).to(self._b.device))[0].double()
        squares = (c[:, :, None] * c[:, None]).flatten(1).T
        values = torch.cat([(b @ c.T - G.flatten(1) @ squares / 2).cpu() for b, G in self._parts()])
        return values - self._best.cpu()[:, None]


def deconvolved(b: Tensor, G: Tensor, variances: Tensor, start: GaussianMixture) -> GaussianMixture:
    """Mixture of the points x = G^-1 b freed of their errors G^-1 (extreme deconvolution), from a first guess.

    Directions that an image says nothing about get an error a thousand times the variance, instead of infinity.
    """
    precision = G.double() + (1e-3 / variances).diag()
    errors = torch.linalg.inv(precision)
    points = (errors @ b.double()[..., None])[..., 0]
    return GaussianMixture.fit(points, noise_covariances=(errors + errors.mT) / 2, start=start, max_iter=60)


def linearised(b: Tensor, G: Tensor, z: Tensor, c: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """The likelihood exp(b.c(z) - c(z).G c(z) / 2) as one of z: b (m, K) and G (m, K, K) to (m, d) and (m, d, d).

    c(z) is taken to be linear around latents z (m, d), where it is c (m, K) with Jacobian (m, K, d).
    """
    b, G, z, c, jacobian = (part.detach().double() for part in (b, G, z, c, jacobian))
    offset = c - (jacobian @ z[..., None])[..., 0]
    residual = b - (G @ offset[..., None])[..., 0]
    return (jacobian.mT @ residual[..., None])[..., 0], jacobian.mT @ G @ jacobian


def transformed(mixture: GaussianMixture, matrix: Tensor, average: Tensor | float = 0.0) -> GaussianMixture:
    """The mixture of matrix @ (x - average)."""
    matrix = matrix.to(mixture.means)
    covariances = matrix @ mixture.covariances @ matrix.T
    means = (mixture.means - average) @ matrix.T
    return GaussianMixture.unchecked(mixture.weights, means, (covariances + covariances.mT) / 2)
