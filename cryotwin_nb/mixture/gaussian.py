"""Gaussian mixtures on a latent space: density, window mass Q_z, modes and samples.

Training builds one at each step (`moments`) and fits the final one to all latents.
Parameters and computations are float64. Densities are differentiable with respect to parameters that need a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import guarded, positive
from cryotwin_nb.mixture.components import Components, Factors
from cryotwin_nb.mixture.fitting import FitOptions, fit_components
from cryotwin_nb.mixture.modes import climb, distinct
from cryotwin_nb.mixture.points import as_numbers, require_points

_AT_ONCE = 2**18  # float64 numbers per block of points; a block that fits into a CPU's cache is twice as fast


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of C Gaussians with full covariances in d dimensions.

    Parameters
    ----------
    weights : (C,) array or tensor
        Component weights pi_c, non-negative, summing to 1.
    means : (C, d) array or tensor
        Component means mu_c, latent units.
    covariances : (C, d, d) array or tensor
        Component covariances Sigma_c, symmetric positive definite.

    Raises
    ------
    InputError
        If shapes disagree, a value is non-finite, or the weights or covariances are invalid.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    _factors: dict[float, Factors] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("weights", "means", "covariances"):
            value = getattr(self, name)
            kept = isinstance(value, Tensor) and value.is_floating_point()  # with its gradient
            value = value if kept else as_numbers(value, f"GaussianMixture {name}", "Pass real numbers.")
            object.__setattr__(self, name, value.double())
        self._components.require_valid()

    @classmethod
    def unchecked(cls, weights: Tensor, means: Tensor, covariances: Tensor) -> GaussianMixture:
        """Build a mixture from valid float64 `weights`, `means` and `covariances` without checks (for inner loops)."""
        mixture = object.__new__(cls)
        for name, value in zip(("weights", "means", "covariances"), (weights, means, covariances), strict=True):
            object.__setattr__(mixture, name, value)
        object.__setattr__(mixture, "_factors", {})
        return mixture

    @classmethod
    @guarded(n_components=(1, 2**62), n_init=(1, 10**6), max_iter=(1, 2**62), tol=(0, 1e300), strength=(0, 1e300))
    def fit(
        cls,
        z: Tensor | np.ndarray,
        n_components: int = 100,
        noise_covariances: Tensor | np.ndarray | None = None,
        weights: Tensor | np.ndarray | None = None,
        seed: int = 0,
        *,
        groups: Tensor | np.ndarray | None = None,
        select: bool = True,
        strength: float = 2.0,
        start: GaussianMixture | None = None,
        n_init: int = 8,
        max_iter: int = 300,
        tol: float = 1e-5,
        progress: bool = False,
    ) -> GaussianMixture:
        """Fit a mixture to latents by expectation-maximisation (EM).

        Parameters
        ----------
        z : (n, d) float
            Latents.
        n_components : int
            Maximum number of components C; by held-out likelihood, as few as are good are used.
        noise_covariances : (n, d, d) float, optional
            Error covariance S_i of each latent. The mixture then models the density *before* that error was added:
            latent i is distributed as N(mu_c, Sigma_c + S_i) (extreme deconvolution, Bovy, Hogg and Roweis 2011).
        weights : (n,) float, optional
            Non-negative weight of each latent; for a Bayesian bootstrap, draws from Exp(1). By default 1, and 0 for
            latents far from all others, as of damaged images, which a warning names.
        seed : int
            Seed of the initialisation and of the choice of the held-out latents.
        groups : (n,) int, optional
            Group of each latent, such as `particles.identity`; the latents of one group are held out together.
        select : bool
            Select the number of components and `strength`; False uses both as given.
        strength : float
            Shrinkage of covariances towards a common shape, in units of d latents per component; unused if `select`.
        start : GaussianMixture, optional
            Initial mixture; nothing is initialised or selected. With `weights`, all of its components are kept.
        n_init : int
            Number of initialisations; the one with the highest likelihood is kept.
        max_iter : int
            Maximum number of EM iterations.
        tol : float
            Stop when the mean log-likelihood changes by less than this, nats (ten times this with `noise_covariances`).
        progress : bool
            Print a line for each mixture tried.

        Returns
        -------
        GaussianMixture
            Mixture on the device of `z`, with components in order of decreasing weight, or in the order of `start`.

        Raises
        ------
        InputError
            If shapes disagree, a value is non-finite, a weight is negative or components outnumber the latents.

        Notes
        -----
        Selection uses four-fold cross-validation (one fold from 7,000 latents on), and ignores `noise_covariances`.
        Components without a latent are dropped. In dead directions (`mixture.live`), all have a common covariance.

        Examples
        --------
        >>> prior = ct.GaussianMixture.fit(z, n_components=20)
        """
        first = None if start is None else start.detach()._components
        options = FitOptions(select, strength, n_init, max_iter, tol, progress)
        return cls.unchecked(*fit_components(z, n_components, noise_covariances, weights, groups, seed, first, options))

    @property
    def n_components(self) -> int:
        """Number of components C."""
        return self.means.shape[0]

    @property
    def latent_dim(self) -> int:
        """Dimension d of the latent space."""
        return self.means.shape[1]

    @property
    def _components(self) -> Components:
        return Components(self.weights, self.means, self.covariances)

    def to(self, device: torch.device | str) -> GaussianMixture:
        """Return the mixture on `device`."""
        return self.unchecked(self.weights.to(device), self.means.to(device), self.covariances.to(device))

    def detach(self) -> GaussianMixture:
        """Return the mixture detached from the autograd graph."""
        return self.unchecked(self.weights.detach(), self.means.detach(), self.covariances.detach())

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log P(z), (n,), for finite latents (n, d), in the dtype and on the device of `z`."""
        return self._per_point(z, lambda points: self._log_joint(points).logsumexp(-1))

    def log_prob_and_score(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return log P(z), (n,), and its gradient (n, d) for latents `z` (n, d), without an autograd graph."""
        z = self._latents(z, finite=False).detach()
        with torch.no_grad():
            parts = [self._factor(0.0).value_and_score(part) for part in z.to(self.means).split(self._at_once)]
        value, score = (torch.cat(part).to(z) for part in zip(*parts, strict=True))
        return value, score

    def responsibilities(self, z: Tensor) -> Tensor:
        """Return the posterior probability (n, C) of each component for latents `z` (n, d); rows sum to 1."""
        return self._per_point(z, lambda points: self._log_joint(points).softmax(-1))

    def log_window_mass(self, z: Tensor, window: float) -> Tensor:
        """Return log Q_z, where Q_z is the mass of the mixture in a box of side `window` around each latent.

        Parameters
        ----------
        z : (n, d) float
            Latents.
        window : float
            Width T of the box, latent units.

        Returns
        -------
        (n,) tensor
            d log T + log sum_c pi_c N(z; mu_c, Sigma_c + T^2/12 I), in the dtype of `z`.

        Notes
        -----
        This is Eq. 1 of the paper with the box replaced by a Gaussian of equal mass and covariance, so it has a closed
        form and is never singular. At the mean of a component, it agrees with the mass in the box to 2 % per dimension
        if the standard deviations are at least T/2. For components much narrower than T, it is too large by a factor of
        at most sqrt(6/pi) = 1.38 per dimension.
        """
        window = positive("window", window, "Pass the width of the latent noise.")
        scale = self.latent_dim * math.log(window)
        return self._per_point(z, lambda points: self._log_joint(points, window).logsumexp(-1) + scale, finite=False)

    @guarded(n=(1, 2**62))
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw `n` latents, (n, d) float32; the same `seed` gives the same latents on every device."""
        generator = torch.Generator().manual_seed(seed)
        component = torch.multinomial(self.weights.detach().cpu(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.latent_dim, dtype=torch.float64, generator=generator).to(self.means)
        component = component.to(self.means.device)
        cholesky = torch.linalg.cholesky(self.covariances)[component]
        return (self.means[component] + (cholesky @ noise[..., None])[..., 0]).float()

    def modes(self, max_iter: int = 2000) -> Tensor:
        """Return the local maxima of the density, (m, d) float64, densest first, found in at most `max_iter` steps."""
        z, precision = climb(self._components, self.responsibilities, max_iter)
        order = self.log_prob(z).argsort(descending=True)
        return z[distinct(z, precision, order.tolist())]

    def _log_joint(self, z: Tensor, window: float = 0.0) -> Tensor:
        """Return log pi_c N(z; mu_c, Sigma_c + window^2/12 I), (n, C), for latents `z` (n, d) float64."""
        return self._factor(window).log_joint(z)

    def _factor(self, window: float) -> Factors:
        """Return the factors for evaluating densities; cached unless they need an autograd graph."""
        if any(t.requires_grad for t in (self.weights, self.means, self.covariances)) and torch.is_grad_enabled():
            return self._components.factorised(window)
        if window not in self._factors:
            with torch.inference_mode(False), torch.no_grad():
                self._factors[window] = self._components.factorised(window)
        return self._factors[window]

    def _per_point(self, z: Tensor, function: Callable[[Tensor], Tensor], finite: bool = True) -> Tensor:
        """Apply `function` to float64 latents on the mixture's device, in blocks of bounded memory."""
        z = self._latents(z, finite)
        parts = [function(part).to(z) for part in z.to(self.means).split(self._at_once)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _latents(self, z: Tensor, finite: bool) -> Tensor:
        """Return latents (n, d) as a floating-point tensor, with its gradient, or raise `InputError`."""
        checked = require_points(z, self.latent_dim, least=0, finite=finite)
        return z if isinstance(z, Tensor) and z.is_floating_point() else checked

    @property
    def _at_once(self) -> int:
        """Number of points per block."""
        numbers = _AT_ONCE if self.means.device.type == "cpu" else 128 * _AT_ONCE
        return max(1, numbers // (self.n_components * self.latent_dim))
