"""Spectrum of a linear subspace: the variance of each direction, and whether the images support it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes
from cryotwin_nb.reconstruction.statistics import Statistics
from cryotwin_nb.runtime import distributed

_ERRORS = 3.0  # standard errors by which the gain of a live direction is above 0
_LEAST_GAIN = 10.0  # least gain of a live direction, nats of all images examined


@dataclass(frozen=True)
class Spectrum:
    """Variances of the directions of a subspace, and the evidence of the images for each of them.

    Attributes
    ----------
    variances : tuple of float
        Variance of the coefficient of each direction, in decreasing order, in units of |V|^2 of the average map.
    gains, errors : tuple of float
        Mean gain of log-evidence per image by each direction, added to those before it, nats, and its standard error.
    n_images : int
        Number of images from which the gains are estimated.

    Notes
    -----
    The evidence takes the uncertainty of the maps into account (variational Bayes), so a direction that only fits the
    noise of the images on which it was estimated loses evidence. A direction is live if its gain is above 0 by three
    standard errors, and by 10 nats for all images together.
    """

    variances: tuple[float, ...]
    gains: tuple[float, ...]
    errors: tuple[float, ...]
    n_images: int

    @classmethod
    def of(cls, found: Eigenvolumes, chunks: Iterable[ImageBatch], imaging: ImageFormation, radius: float) -> Spectrum:
        """Return the spectrum of maps `found` from `chunks` of images (`imaging`) below `radius`, grid units."""
        ball, n_basis = found.ball(radius), len(found.basis)
        lattice, count = found.lattice(ball), 0
        sums = torch.zeros(2, n_basis, dtype=torch.float64, device=lattice.device)
        for batch in chunks:
            gained = gains(
                found.statistics(found.project(ball, lattice, batch, imaging), batch, imaging),
                found.variances,
                found.contrast_spread,
            )
            sums += torch.stack([gained.sum(0), gained.square().sum(0)])
            count += len(gained)
        distributed.all_sum(sums)
        count = max(1, round(distributed.total(count)))
        mean = sums[0] / count
        error = ((sums[1] / count - mean.square()).clamp_min(0) / count).sqrt()
        relative = found.variances / found.mean.double().square().sum().clamp_min(1e-300)
        return cls(tuple(relative.tolist()), tuple(mean.tolist()), tuple(error.tolist()), count)

    @property
    def live(self) -> tuple[bool, ...]:
        """Whether the images support each direction."""
        pairs = zip(self.gains, self.errors, strict=True)
        return tuple(gain > _ERRORS * error and gain * self.n_images > _LEAST_GAIN for gain, error in pairs)

    @property
    def n_live(self) -> int:
        """Number of live directions before the first that is not."""
        return next((i for i, live in enumerate(self.live) if not live), len(self.live))

    @property
    def noise_floor(self) -> float:
        """Largest variance of a direction that is not live, in units of |V|^2; 0 if all are."""
        return max((v for v, live in zip(self.variances, self.live, strict=True) if not live), default=0.0)

    def __str__(self) -> str:
        listed = ", ".join(f"{100 * v:.2g}" for v in self.variances[: self.n_live])
        if not self.n_live:
            return "The images support no direction of variation."
        directions = "direction" if self.n_live == 1 else "directions"
        floor = f"; the noise floor is {100 * self.noise_floor:.2g} %" if self.noise_floor else ""
        return (
            f"The images support {self.n_live} {directions} of variation, with {listed} % of the power of the "
            f"average map{floor}."
        )


def gains(full: Statistics, variances: Tensor, spread: float) -> Tensor:
    """Return the gain (m, K) of each image's log-evidence by each direction, added to those before it, nats.

    The coefficients have independent Gaussian priors. With the Cholesky factor L of 1 + S G S, where S are the prior
    standard deviations, and y = L^-1 S b, the evidence of the first k coefficients is the sum of y^2 / 2 - log diag L.

    Parameters
    ----------
    full : Statistics
        Statistics of images for V_0 and the U_k.
    variances : (K,)
        Prior variances of the coefficients.
    spread : float
        Standard deviation of the contrasts; 0 if they are all 1.
    """
    deviation = torch.cat([variances.new_tensor([spread]), variances.sqrt() * (1 + spread**2) ** 0.5])
    G = full.G.double()
    force = (full.b.double() - G[:, :, 0]) * deviation  # the prior mean of the contrast is 1
    inner = deviation[:, None] * G * deviation + torch.eye(len(deviation)).to(G)
    factor = torch.linalg.cholesky(inner)
    y = torch.linalg.solve_triangular(factor, force[..., None], upper=False)[..., 0]
    return (y.square() / 2 - factor.diagonal(dim1=-2, dim2=-1).log())[:, 1:]
