"""Gaussian mixtures on a latent space: density, window mass Q_z, modes and samples.

A `GaussianMixture` never changes. During training one is made at each step (`moments`), at the end one from
all the latents (`GaussianMixture.fit`).
Everything is float64 inside, whatever the dtype of the latents; nothing here knows about particles or images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.components import Components, Factors
from cryotwin_nb.mixture.fitting import FitOptions, fit_components
from cryotwin_nb.mixture.modes import climb, distinct

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
    _factors: dict[float, Factors] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("weights", "means", "covariances"):
            value = getattr(self, name)
            value = value if isinstance(value, Tensor) else torch.tensor(np.asarray(value, dtype=np.float64))
            object.__setattr__(self, name, value.double())
        self._components.require_valid()

    @classmethod
    def unchecked(cls, weights: Tensor, means: Tensor, covariances: Tensor) -> GaussianMixture:
        """A mixture of float64 tensors known to be valid, without the checks (for inner loops)."""
        mixture = object.__new__(cls)
        for name, value in zip(("weights", "means", "covariances"), (weights, means, covariances), strict=True):
            object.__setattr__(mixture, name, value)
        object.__setattr__(mixture, "_factors", {})
        return mixture

    @classmethod
    def fit(
        cls,
        z: Tensor | np.ndarray,
        n_components: int = 100,
        noise_covariances: Tensor | np.ndarray | None = None,
        weights: Tensor | np.ndarray | None = None,
        seed: int = 0,
        *,
        select: bool = True,
        strength: float = 2.0,
        start: GaussianMixture | None = None,
        n_init: int = 8,
        max_iter: int = 300,
        tol: float = 1e-5,
        progress: bool = False,
    ) -> GaussianMixture:
        """Fit a mixture to latents by expectation-maximisation.

        Parameters
        ----------
        z : (n, d) float
            Latents.
        n_components : int
            C, the largest number of components; held-out likelihood decides how many are used.
        noise_covariances : (n, d, d) float, optional
            Covariance of the error of each latent. The mixture is then the density *before* that error was added:
            latent i is modelled by N(mu_c, Sigma_c + S_i) (extreme deconvolution, Bovy, Hogg and Roweis 2011).
        weights : (n,) float, optional
            How often each latent counts, not negative; a Bayesian bootstrap gives draws from Exp(1).
        seed : int
            For initialisation and for the choice of the held-out particles.
        select : bool
            False uses exactly `n_components` and `strength`.
        strength : float
            How strongly covariances are drawn towards a common shape, in units of d latents a component; where the
            number of components is selected, so is this.
        start : GaussianMixture, optional
            Start from this mixture and keep its components; nothing is initialised or selected.
        n_init : int
            Initialisations; the one with the highest likelihood is kept.
        max_iter : int
            Most EM steps.
        tol : float
            Stop when a step changes the mean log-likelihood by less (ten times that with `noise_covariances`).
        progress : bool
            Print a line for each mixture tried.

        Returns
        -------
        GaussianMixture
            On the device of `z`; components by falling weight, or in the order of `start`.

        Raises
        ------
        InputError
            If shapes disagree, a value is not finite, a weight is negative or there are more components than latents.

        Notes
        -----
        Four-fold cross-validation selects; from 7,000 latents on one fold does. The selection and the start of EM
        ignore `noise_covariances`. Components that lose their latents are placed anew, on a half of the heaviest.
        """
        first = None if start is None else start.detach()._components
        options = FitOptions(select, strength, n_init, max_iter, tol, progress)
        return cls.unchecked(*fit_components(z, n_components, noise_covariances, weights, seed, first, options))

    @property
    def n_components(self) -> int:
        """C."""
        return self.means.shape[0]

    @property
    def latent_dim(self) -> int:
        """d."""
        return self.means.shape[1]

    @property
    def _components(self) -> Components:
        return Components(self.weights, self.means, self.covariances)

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
            parts = [self._factor(0.0).value_and_score(part) for part in z.to(self.means).split(self._at_once)]
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
        """The local maxima of the density, (m, d) float64, the densest first, after at most `max_iter` steps uphill."""
        z, precision = climb(self._components, self.responsibilities, max_iter)
        order = self.log_prob(z).argsort(descending=True)
        return z[distinct(z, precision, order.tolist())]

    def _log_joint(self, z: Tensor, window: float = 0.0) -> Tensor:
        """log pi_c N(z; mu_c, Sigma_c + window^2/12 I): (n, d) float64 gives (n, C)."""
        return self._factor(window).log_joint(z)

    def _factor(self, window: float) -> Factors:
        """What densities are computed from, cached without a graph."""
        if any(t.requires_grad for t in (self.weights, self.means, self.covariances)) and torch.is_grad_enabled():
            return self._components.factorised(window)
        if window not in self._factors:
            with torch.inference_mode(False), torch.no_grad():
                self._factors[window] = self._components.factorised(window)
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
