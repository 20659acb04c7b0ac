"""Gaussian mixtures on a latent space: density, window mass Q_z, modes and samples.

A `GaussianMixture` never changes. During training one is made at each step (`moments`), at the end one from
all the latents (`GaussianMixture.fit`, expectation-maximisation, in `fitting`).
Everything is float64 inside, whatever the dtype of the latents; nothing here knows about particles or images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError

_TINY = torch.finfo(torch.float64).tiny
_AT_ONCE = 2**18  # float64 numbers where points meet components: what stays in a CPU's cache is twice as fast


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of C Gaussians with full covariances in d dimensions.

    Parameters
    ----------
    weights : (C,) array or tensor
        pi_c, not negative, summing to 1.
    means : (C, d) array or tensor
        mu_c.
    covariances : (C, d, d) array or tensor
        Sigma_c, symmetric positive definite.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, the weights are no distribution or a covariance is not symmetric
        positive definite.

    Notes
    -----
    The three are kept as float64 tensors. Gradients flow through them: a mixture made from tensors that require
    grad gives densities that do.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    _factors: dict[float, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("weights", "means", "covariances"):
            value = getattr(self, name)
            value = value if isinstance(value, Tensor) else torch.tensor(np.asarray(value, dtype=np.float64))
            object.__setattr__(self, name, value.double())
        _require_mixture(self.weights, self.means, self.covariances)

    @classmethod
    def unchecked(cls, weights: Tensor, means: Tensor, covariances: Tensor) -> GaussianMixture:
        """A mixture of float64 tensors known to be valid, without the checks (for inner loops)."""
        mixture = object.__new__(cls)
        for name, value in zip(("weights", "means", "covariances"), (weights, means, covariances), strict=True):
            object.__setattr__(mixture, name, value)
        object.__setattr__(mixture, "_factors", {})
        return mixture

    @staticmethod
    def fit(
        z: Tensor | np.ndarray,
        n_components: int = 100,
        noise_covariances: Tensor | np.ndarray | None = None,
        weights: Tensor | np.ndarray | None = None,
        seed: int = 0,
        **options: Any,
    ) -> GaussianMixture:
        """Fit a mixture to latents (n, d) by expectation-maximisation, with at most `n_components` components.

        All about it, the other options included, is in `cryotwin_nb.mixture.fitting.fit`.
        """
        from cryotwin_nb.mixture.fitting import fit

        return fit(z, n_components, noise_covariances, weights, seed, **options)

    @property
    def n_components(self) -> int:
        """C."""
        return self.means.shape[0]

    @property
    def latent_dim(self) -> int:
        """d."""
        return self.means.shape[1]

    def to(self, device: torch.device | str) -> GaussianMixture:
        """The same mixture on another device."""
        return self.unchecked(self.weights.to(device), self.means.to(device), self.covariances.to(device))

    def detach(self) -> GaussianMixture:
        """The same mixture, cut off from the graph that made it."""
        return self.unchecked(self.weights.detach(), self.means.detach(), self.covariances.detach())

    def log_prob(self, z: Tensor) -> Tensor:
        """log P(z): latents (n, d) give (n,), in the dtype and on the device of `z`."""
        return self._per_point(z, lambda points: self._log_joint(points).logsumexp(-1))

    def log_prob_and_score(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log P(z) and its gradient by z: latents (n, d) give (n,) and (n, d), without a graph."""
        z = self._latents(z).detach()
        with torch.no_grad():
            parts = [self._value_and_score(part) for part in z.to(self.means).split(self._at_once)]
        value, score = (torch.cat(part).to(z) for part in zip(*parts, strict=True))
        return value, score

    def responsibilities(self, z: Tensor) -> Tensor:
        """Posterior probability of each component: latents (n, d) give (n, C), rows summing to 1."""
        return self._per_point(z, lambda points: self._log_joint(points).softmax(-1))

    def log_window_mass(self, z: Tensor, window: float) -> Tensor:
        """log Q_z, the mass of the mixture in a box of side `window` (the paper's T) around each latent.

        Parameters
        ----------
        z : (n, d) float
            Latents.
        window : float
            T, in the units of the latents.

        Returns
        -------
        (n,) tensor
            d log T + log sum_c pi_c N(z; mu_c, Sigma_c + T^2/12 I), in the dtype of `z`.

        Notes
        -----
        Eq. 1 of the paper with the box replaced by a Gaussian of equal mass and covariance: closed form, never
        singular. At the mean of a component it is within 2 % of the box per dimension for standard deviations of at
        least T/2; for components much narrower than T it overshoots by at most sqrt(6/pi) = 1.38 per dimension.
        """
        if not window > 0:
            raise InputError("window", f"T = {window}", "a positive number", "Give the width of the latent noise.")
        scale = self.latent_dim * math.log(window)
        return self._per_point(z, lambda points: self._log_joint(points, float(window)).logsumexp(-1) + scale)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw `n` latents, (n, d) float32; the same on every device for a given seed."""
        generator = torch.Generator().manual_seed(seed)
        component = torch.multinomial(self.weights.detach().cpu(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.latent_dim, dtype=torch.float64, generator=generator).to(self.means)
        component = component.to(self.means.device)
        cholesky = torch.linalg.cholesky(self.covariances)[component]
        return (self.means[component] + (cholesky @ noise[..., None])[..., 0]).float()

    def modes(self, max_iter: int = 2000) -> Tensor:
        """The local maxima of the density, (m, d) float64, the densest first.

        From every mean (displaced by a thousandth of a standard deviation, to leave saddles) the fixed point
        z = (sum_c gamma_c Sigma_c^-1)^-1 sum_c gamma_c Sigma_c^-1 mu_c is iterated; each step raises the density
        (Carreira-Perpinan 2000). Points that end within a hundredth of a local standard deviation are one mode.
        """
        precision = torch.cholesky_inverse(torch.linalg.cholesky(self.covariances))
        pull = (precision @ self.means[..., None])[..., 0]
        z = self.means + 1e-3 * torch.linalg.cholesky(self.covariances).sum(-1)
        for _ in range(max_iter):
            gamma = self.responsibilities(z)
            local = torch.einsum("mc,cde->mde", gamma, precision)
            new = torch.cholesky_solve((gamma @ pull)[..., None], torch.linalg.cholesky(local))[..., 0]
            step = new - z
            z = new
            if (step[:, None] @ local @ step[..., None]).max() < 1e-16:
                break
        order = self.log_prob(z).argsort(descending=True)
        kept: list[int] = []
        for i in order.tolist():
            away = z[i] - z[kept]
            if not len(kept) or torch.einsum("kd,de,ke->k", away, local[i], away).min() > 1e-4:
                kept.append(i)
        return z[kept]

    def _log_joint(self, z: Tensor, window: float = 0.0) -> Tensor:
        """log pi_c N(z; mu_c, Sigma_c + window^2/12 I): (n, d) float64 gives (n, C)."""
        _, _, constant = self._factor(window)
        return constant - 0.5 * self._whitened(z, window).square().sum(-1)

    def _whitened(self, z: Tensor, window: float = 0.0) -> Tensor:
        """Distances from the means in standard deviations: (n, d) float64 gives (n, C, d)."""
        whitener, offset, _ = self._factor(window)
        return torch.addmm(offset, z, whitener).unflatten(-1, (self.n_components, -1))

    def _value_and_score(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log P (n,) and its gradient -sum_c gamma_c Sigma_c^-1 (z - mu_c) (n, d)."""
        whitener, _, constant = self._factor(0.0)
        away = self._whitened(z)
        joint = constant - 0.5 * away.square().sum(-1)
        largest = joint.amax(-1, keepdim=True)
        share = (joint - largest).exp_()
        total = share.sum(-1, keepdim=True)
        away *= (share / -total)[..., None]
        return (largest + total.log())[:, 0], away.flatten(1) @ whitener.T

    def _factor(self, window: float) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse Cholesky factors (d, C d), whitened means -(C d,) and log constants (C,), cached without a graph."""
        if any(t.requires_grad for t in (self.weights, self.means, self.covariances)) and torch.is_grad_enabled():
            return _factorise(self.weights, self.means, self.covariances, window)
        if window not in self._factors:
            with torch.inference_mode(False), torch.no_grad():
                self._factors[window] = _factorise(self.weights, self.means, self.covariances, window)
        return self._factors[window]

    def _per_point(self, z: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply `function` to float64 latents on the mixture's device, in pieces of bounded memory."""
        z = self._latents(z)
        parts = [function(part).to(z) for part in z.to(self.means).split(self._at_once)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _latents(self, z: Tensor) -> Tensor:
        """Latents (n, d) as a floating-point tensor."""
        z = torch.as_tensor(z)
        z = z if z.is_floating_point() else z.to(self.means.dtype)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            expected = f"(n, {self.latent_dim})"
            raise InputError("latents", f"shape {tuple(z.shape)}", expected, "Give one row per point, z[None] for one.")
        return z

    @property
    def _at_once(self) -> int:
        """Points whose distances from all components are held at once."""
        numbers = _AT_ONCE if self.means.device.type == "cpu" else 128 * _AT_ONCE
        return max(1, numbers // (self.n_components * self.latent_dim))


def _factorise(weights: Tensor, means: Tensor, covariances: Tensor, window: float) -> tuple[Tensor, Tensor, Tensor]:
    """What `_log_joint` needs: residual = z @ whitener + offset, log density = constant - |residual|^2 / 2."""
    count, dim = means.shape
    identity = torch.eye(dim, dtype=means.dtype, device=means.device)
    cholesky = torch.linalg.cholesky(covariances + window**2 / 12 * identity)
    inverse = torch.linalg.solve_triangular(cholesky, identity.expand_as(cholesky), upper=False)
    log_det = cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = weights.clamp_min(_TINY).log() - log_det - dim / 2 * math.log(2 * math.pi)
    offset = -(inverse @ means[..., None]).reshape(count * dim)
    return inverse.reshape(count * dim, dim).T.contiguous(), offset, constant


def _require_mixture(weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    """Raise `InputError` unless the three are a mixture."""
    remedy = "Check how the mixture was made; GaussianMixture.fit makes a valid one from latents."

    def require(good: object, what: str, found: str, expected: str) -> None:
        if not bool(good):
            raise InputError(f"GaussianMixture {what}", found, expected, remedy)

    require(means.ndim == 2 and means.numel() > 0, "means", f"shape {tuple(means.shape)}", "(C, d)")
    count, dim = means.shape
    require(weights.shape == (count,), "weights", f"shape {tuple(weights.shape)}", f"({count},)")
    shape = (count, dim, dim)
    require(covariances.shape == shape, "covariances", f"shape {tuple(covariances.shape)}", f"{shape}")
    for name, values in (("weights", weights), ("means", means), ("covariances", covariances)):
        require(values.isfinite().all(), name, "NaN or infinity", "finite numbers")
    require((weights >= 0).all(), "weights", f"a weight of {weights.min():.3g}", "no negative weight")
    require(abs(weights.sum() - 1) < 1e-6, "weights", f"a sum of {weights.sum():.6g}", "a sum of 1")
    asymmetry = (covariances - covariances.mT).abs().amax((-2, -1)) / covariances.abs().amax((-2, -1)).clamp_min(_TINY)
    require((asymmetry < 1e-6).all(), "covariances", f"component {int(asymmetry.argmax())} not symmetric", "symmetry")
    failed = torch.linalg.cholesky_ex(covariances).info.nonzero()
    where = f"component {int(failed[0])} not positive definite" if len(failed) else ""
    require(not len(failed), "covariances", where, "positive definite matrices")


def halves(mean: Tensor, covariance: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Means (2, d) and common covariance (d, d) of two equal Gaussians that together have the given moments.

    They sit at plus and minus `fraction` standard deviations along the longest axis and are narrower by just that.
    """
    variances, axes = torch.linalg.eigh(covariance)
    offset = fraction * variances[-1].clamp_min(0).sqrt() * axes[:, -1]
    return torch.stack([mean + offset, mean - offset]), covariance - offset[:, None] * offset
