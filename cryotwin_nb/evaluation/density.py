"""Does the prior fit the latents? KL divergences by density ratios and by neighbours, held-out likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.intervals import Interval, interval
from cryotwin_nb.mixture.gaussian import GaussianMixture


def kl_divergence(
    z: Tensor, prior: GaussianMixture, seed: int = 0, n_samples: int = 4000, n_centres: int = 200
) -> float:
    """KL divergence of the density of latents from a prior, in nats, by KLIEP (Sugiyama et al. 2007).

    The ratio r of the two densities is a positive combination of Gaussian kernels centred on latents, fitted by
    maximum likelihood on one half of the latents under the constraint that its mean over samples of the prior is 1;
    the divergence is the mean of log r on the other half. The kernels' width is chosen by cross-validation.

    Parameters
    ----------
    z : (n, d)
        Latents.
    prior : GaussianMixture
    n_samples, n_centres : int
        Largest numbers of latents in each half, of samples of the prior, and of kernels.

    Raises
    ------
    InputError
        If there are fewer than 20 latents.

    Notes
    -----
    It sees smooth differences. A mixture with too many components, one that memorises its latents, can have a large
    true divergence that this estimate does not see: compare held-out log-likelihoods for that.
    """
    rng = np.random.default_rng(seed)
    if len(z) < 20:
        raise InputError("kl_divergence", f"{len(z)} latents", "at least 20", "Embed more particles.")
    points = torch.as_tensor(z).double().cpu().numpy()[rng.permutation(len(z))[: 2 * n_samples]]
    samples = prior.sample(n_samples, seed=seed).double().cpu().numpy()
    scale = points.std(0) + 1e-12
    points, samples = points / scale, samples / scale
    train, test = points[: len(points) // 2], points[len(points) // 2 :]
    centres = train[:n_centres]
    distances = [_squared_distances(a, centres) for a in (train, test, samples)]
    median = np.sqrt(np.median(distances[0]))
    widths = median * np.array([0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5])
    folds = np.arange(len(train)) % 3

    def score(width: float) -> float:
        kernels, reference = (np.exp(-d / (2 * width**2)) for d in (distances[0], distances[2]))
        held_out = [
            np.log(kernels[folds == f] @ _kliep(kernels[folds != f], reference) + 1e-12).mean() for f in range(3)
        ]
        return float(np.mean(held_out))

    width = max(widths, key=score)
    kernels, held_out, reference = (np.exp(-d / (2 * width**2)) for d in distances)
    return float(np.log(held_out @ _kliep(kernels, reference) + 1e-12).mean())


def _kliep(kernels: np.ndarray, reference: np.ndarray, n_iterations: int = 500) -> np.ndarray:
    """Weights a >= 0 that maximise mean log(kernels @ a) with mean(reference @ a) = 1.

    The expectation-maximisation update a <- a * K^T(1 / (K a)) / (n b), b the kernels' means over the reference:
    monotone, and it keeps the constraint exactly.
    """
    b = reference.mean(0) + 1e-12
    a = np.full(len(b), 1 / b.sum())
    for _ in range(n_iterations):
        new = a * (kernels.T @ (1 / (kernels @ a + 1e-300))) / (len(kernels) * b)
        if np.abs(new - a).max() < 1e-6 * a.max():
            return new
        a = new
    return a


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def kl_neighbours(
    z: Tensor, prior: GaussianMixture, seed: int = 0, n_neighbours: int = 10, n_samples: int = 20_000
) -> float:
    """KL divergence of the density of latents z (n, d) from a prior, in nats, by distances to nearest neighbours.

    d/n sum_i log(nu_i / rho_i) + log(m / (n - 1)), rho_i and nu_i the distances from latent i to its k-th neighbour
    among the other latents and among m samples of the prior (Wang, Kulkarni and Verdu 2009). m = n, so that the bias of
    the two distances cancels where the densities agree; both are taken in coordinates in which z has unit covariance.

    Raises
    ------
    InputError
        If there are not more than twice `n_neighbours` latents.

    Notes
    -----
    It sees mass put on points, where `kl_divergence` smooths it over, if each point gets more than `n_neighbours`
    samples; a mixture that overfits with a few latents in each component is seen by neither, but by
    `held_out_log_likelihood`. Where latents lie far outside the prior both are too small, in many dimensions by much.
    """
    from scipy.spatial import cKDTree

    points = torch.as_tensor(z).double().cpu()
    if len(points) <= 2 * n_neighbours:
        found, expected = f"{len(points)} latents", f"more than {2 * n_neighbours}"
        raise InputError("kl_neighbours", found, expected, "Embed more particles, or use fewer neighbours.")
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:n_samples]]
    samples = prior.sample(len(points), seed=seed).double().cpu()
    factor = torch.linalg.cholesky(torch.linalg.inv(points.T.cov().reshape(points.shape[1], -1)))
    points, samples = (points @ factor).numpy(), (samples @ factor).numpy()
    own, other = (
        cKDTree(p).query(points, [k])[0][:, 0] for p, k in ((points, n_neighbours + 1), (samples, n_neighbours))
    )
    n, d = points.shape
    return float(d * np.log((other + 1e-300) / (own + 1e-300)).mean() + np.log(n / (n - 1)))


def kl_lower_bound(z: Tensor, prior: GaussianMixture, n_components: int = 100, seed: int = 0) -> float:
    """A lower bound, but for sampling error, of the KL divergence of latents z (n, d) from a prior, in nats.

    The mean over one half of the latents of log q - log p, with p the prior and q a mixture fitted to the other half.
    Its expectation is the divergence from p less that from q. For a prior that was fitted to these latents it is about
    0 or below; where latents and prior lie far apart it sees what density ratios cannot.
    """
    fitted, left_out = _halves(z, seed)
    mixture = GaussianMixture.fit(fitted, min(n_components, len(fitted)), seed=seed)
    return float((mixture.log_prob(left_out) - prior.log_prob(left_out)).mean())


def held_out_log_likelihood(
    z: Tensor, n_components: Sequence[int] = (1, 2, 5, 10, 20, 50, 100), seed: int = 0
) -> dict[str, tuple[float, Interval]]:
    """Mean log-likelihood, nats a latent, of one half of the latents under mixtures of the other, with 95 % intervals.

    Parameters
    ----------
    z : (n, d)
        Latents.
    n_components : sequence of int
        Fixed numbers of components to compare with the number that `GaussianMixture.fit` selects, with the
        largest of these as its bound.

    Returns
    -------
    dict
        "C = 1", ... for the fixed numbers, "selected (C = ...)" for the one selected.
    """
    fitted, left_out = _halves(z, seed)
    mixtures = {
        f"C = {c}": GaussianMixture.fit(fitted, c, seed=seed, select=False) for c in n_components if c <= len(fitted)
    }
    selected = GaussianMixture.fit(fitted, min(max(n_components), len(fitted)), seed=seed)
    mixtures[f"selected (C = {selected.n_components})"] = selected
    scores = {name: mixture.log_prob(left_out).numpy() for name, mixture in mixtures.items()}
    return {name: (float(s.mean()), interval(lambda x: float(x.mean()), s)) for name, s in scores.items()}


def _halves(z: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Two random halves of latents (n, d), float64 on the CPU."""
    z = torch.as_tensor(z).double().cpu()
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    return z[order[::2]], z[order[1::2]]
