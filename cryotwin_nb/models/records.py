"""Per-image sufficient statistics for a fixed subspace basis, and curves in that basis."""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.isolated import unnamed


class Records(NamedTuple):
    """Sufficient statistics of images for a fixed basis: likelihood and distortion as functions of the coefficients.

    Attributes
    ----------
    expected : (m, K) float32
        Posterior mean of the coefficients, with the density of all coefficients as the prior.
    contrast, contrast_error : (m,) float32
        Contrast of the image and its standard error.
    b, precision : (m, K), (m, K (K + 1) / 2) float32
        Likelihood exp(b.c - c.Gc / 2), with G stored as its lower triangle. If contrasts vary, it is the Gaussian
        approximation after integration over the contrast.
    b_full, G_full : (m, Q), (m, Q (Q + 1) / 2) float32
        `Statistics` of c~ = a (1, c), Q = K + 1, from which the exact likelihood follows; of width 0 if all contrasts
        are 1.
    b_weighted, G_weighted, energy : (m, K), (m, K (K + 1) / 2), (m,) float32
        Distortion energy - 2 c.b + c.Gc of the objective (Eq. 3 of the cryoTWIN paper).
    """

    expected: Tensor
    contrast: Tensor
    contrast_error: Tensor
    b: Tensor
    precision: Tensor
    b_full: Tensor
    G_full: Tensor
    b_weighted: Tensor
    G_weighted: Tensor
    energy: Tensor

    def take(self, rows: Tensor) -> Records:
        """Return the records of the images in `rows`."""
        return Records(*(field[rows] for field in tuple(self)))


class ImageContrasts(NamedTuple):
    """Contrast of each image relative to the average image.

    Attributes
    ----------
    contrast, error : (n,) float32
        Posterior mean and standard deviation.
    """

    contrast: Tensor
    error: Tensor

    def of_groups(self, groups: np.ndarray) -> dict[int, float]:
        """Return the mean contrast of each group, by its number in `groups` (n,); empty if they do not differ.

        Means differ if one is at least 3 % from the mean of all images, and at least five of its standard errors.
        """
        values, means = self.contrast.double().numpy(), {}
        differs = False
        for group in np.unique(groups):
            own = values[groups == group]
            means[int(group)], away = float(own.mean()), abs(float(own.mean() - values.mean()))
            differs |= away > max(0.03, 5 * float(own.std()) / len(own) ** 0.5)
        return means if differs else {}


def pack(matrices: Tensor) -> Tensor:
    """Return the lower triangles (m, K (K + 1) / 2) of symmetric matrices (m, K, K)."""
    row, column = torch.tril_indices(*matrices.shape[1:])
    return matrices[:, row, column]


def unpack(packed: Tensor) -> Tensor:
    """Return the symmetric matrices (m, K, K) that were given to `pack`."""
    size = isqrt(2 * packed.shape[1])
    index = torch.zeros(size, size, dtype=torch.int64)
    row, column = torch.tril_indices(size, size)
    index[row, column] = index[column, row] = torch.arange(len(row))
    return packed[:, index.flatten().to(packed.device)].view(-1, size, size)


def deconvolved(b: Tensor, G: Tensor, variances: Tensor, start: GaussianMixture, max_iter: int = 60) -> GaussianMixture:
    """Fit the density that the points x = G^-1 b would have without their errors (extreme deconvolution).

    The errors have the covariance G^-1. `start` is the initial mixture, `max_iter` the largest number of
    iterations. In directions that an image does not constrain, the error variance is set to 1,000 times `variances`
    instead of infinity.
    """
    precision = G.double() + (1e-3 / variances).diag()
    errors = torch.linalg.inv(precision)
    points = (errors @ b.double()[..., None])[..., 0]
    with unnamed():
        return GaussianMixture.fit(points, noise_covariances=(errors + errors.mT) / 2, start=start, max_iter=max_iter)


class Curve(nn.Module):
    """Small network R^d -> R^K whose output is initially zero, with its Jacobian."""

    def __init__(self, n_in: int, width: int, n_out: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(n_in, width), nn.Linear(width, width)
        self.last = nn.Linear(width, n_out, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (m, K) and Jacobians (m, K, d) at x (m, d)."""
        h = self.first(x).tanh()
        jacobian = (1 - h.square())[..., None] * self.first.weight
        h = self.second(h).tanh()
        jacobian = (1 - h.square())[..., None] * (self.second.weight @ jacobian)
        return self.last(h), self.last.weight @ jacobian


def linearised(b: Tensor, G: Tensor, z: Tensor, c: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """Convert the likelihood exp(b.c - c.Gc / 2) to a function of z: return the corresponding b (m, d) and G (m, d, d).

    The arguments b (m, K) and G (m, K, K) refer to c. The function c(z) is linearised around latents z (m, d), where it
    equals c (m, K) and has the Jacobian (m, K, d).
    """
    b, G, z, c, jacobian = (part.detach().double() for part in (b, G, z, c, jacobian))
    offset = c - (jacobian @ z[..., None])[..., 0]
    residual = b - (G @ offset[..., None])[..., 0]
    return (jacobian.mT @ residual[..., None])[..., 0], jacobian.mT @ G @ jacobian


def transformed(mixture: GaussianMixture, matrix: Tensor, average: Tensor | float = 0.0) -> GaussianMixture:
    """Return the density of matrix @ (x - average), where x is distributed as `mixture`."""
    matrix = matrix.to(mixture.means)
    covariances = matrix @ mixture.covariances @ matrix.T
    means = (mixture.means - average) @ matrix.T
    return GaussianMixture.unchecked(mixture.weights, means, (covariances + covariances.mT) / 2)


def require_fitted(name: str, dim: int | str) -> None:
    """Raise `InputError` if the images have not yet chosen the dimension of the latents, which `name` needs."""
    if dim == "auto":
        sentence = f"{name} needs a fitted model: the dimension of the latents is chosen by the images."
        raise InputError(name, "latent_dim='auto' before fit", "a fitted model", "Call fit first.", sentence)


def require_latents(z: Tensor | np.ndarray, latent_dim: int) -> Tensor:
    """Return latents (m, d) as a float32 tensor; raise `InputError` unless there is at least one and all are finite."""
    expected = f"finite latents (m, {latent_dim}) with m at least 1"
    try:
        z = z if isinstance(z, Tensor) else torch.tensor(np.asarray(z, dtype=np.float64, order="C"))
    except (TypeError, ValueError) as error:
        raise InputError("volumes", f"latents that are no numbers ({error})", expected, "Pass an array.") from error
    if z.ndim != 2 or z.shape[1] != latent_dim or len(z) == 0 or z.is_complex():
        raise InputError("volumes", f"latents of shape {tuple(z.shape)}", expected, "Pass z[None] for a single map.")
    if not bool(torch.isfinite(z).all()):
        raise InputError("volumes", "non-finite latents", expected, "Remove NaN and infinity.")
    return z.float()
