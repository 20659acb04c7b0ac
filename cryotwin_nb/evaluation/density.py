"""Fit of the prior to the latents: KL divergence by density ratios or nearest neighbours, and held-out likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, guarded
from cryotwin_nb.evaluation.intervals import Interval, interval
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.groups import arrange, number_groups
from cryotwin_nb.mixture.points import require_points


@guarded(n_samples=(2, 2**62), n_centres=(1, 2**62))
def kl_divergence(
    z: Tensor,
    prior: GaussianMixture,
    seed: int = 0,
    n_samples: int = 4000,
    n_centres: int = 200,
    groups: Tensor | np.ndarray | None = None,
) -> float:
    """Estimate the KL divergence of the density of latents from a prior, in nats, by KLIEP (Sugiyama et al. 2007).

    The ratio r of the two densities is a positive combination of Gaussian kernels centred on latents, fitted by
    maximum likelihood on one half of the latents under the constraint that its mean over samples of the prior is 1;
    the divergence is the mean of log r on the other half. The kernel width is chosen by cross-validation.

    Parameters
    ----------
    z, prior : (n, d), GaussianMixture
        Latents, and the density to compare them with.
    seed : int
        Seed of the random split of the latents and of the samples of the prior.
    n_samples : int
        Number of samples of the prior, and maximum number of latents in each half.
    n_centres : int
        Maximum number of kernels.
    groups : (n,) int, optional
        Group of each latent, such as `particles.identity`; a group is in one half and one fold.

    Raises
    ------
    InputError
        If there are fewer than 20 latents, or groups of latents.

    Notes
    -----
    The estimate detects smooth differences. A mixture with too many components that memorises its latents can have a
    large true divergence that this estimate misses; use `held_out_log_likelihood` to detect it.

    Examples
    --------
    >>> samples = model.prior.sample(2000)
    >>> abs(ct.kl_divergence(samples, model.prior)) < 0.2
    True
    """
    rng, z = np.random.default_rng(seed), require_points(z, prior.latent_dim)
    number = number_groups(groups, len(z))
    n = int(number.max()) + 1 if len(z) else 0
    if n < 20:
        raise InputError("kl_divergence", f"{n} latents", "at least 20", "Embed more particles.")
    rows, place = (t[: 2 * n_samples].numpy() for t in arrange(number, torch.as_tensor(rng.permutation(n))))
    points = z.double().cpu().numpy()[rows]
    samples = prior.sample(n_samples, seed=seed).double().cpu().numpy()
    scale = points.std(0) + 1e-12
    points, samples = points / scale, samples / scale
    first = place < (place[-1] + 1) // 2
    train, test = points[first], points[~first]
    centres = train[:n_centres]
    distances = [_squared_distances(a, centres) for a in (train, test, samples)]
    median = np.sqrt(np.median(distances[0]))
    if not 0 < median < np.inf:
        raise InputError("kl_divergence", "mostly equal latents", "latents that differ", "Remove copies.")
    widths = median * np.array([0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5])
    folds = place[first] % 3

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
    """Return the weights a >= 0 that maximise mean log(kernels @ a) subject to mean(reference @ a) = 1.

    The expectation-maximisation update a <- a * K^T(1 / (K a)) / (n b), with b the kernel means over the reference,
    never decreases the objective and satisfies the constraint exactly.
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


@guarded(n_neighbours=(1, 2**62), n_samples=(2, 2**62))
def kl_neighbours(
    z: Tensor,
    prior: GaussianMixture,
    seed: int = 0,
    n_neighbours: int = 10,
    n_samples: int = 20_000,
    groups: Tensor | np.ndarray | None = None,
) -> float:
    """Estimate the KL divergence of the density of latents from a prior, in nats, by nearest-neighbour distances.

    The estimate is d/n sum_i log(nu_i / rho_i) + log(m / (n - 1)), where rho_i and nu_i are the distances from latent i
    to its k-th neighbour among the other latents and among m samples of the prior (Wang, Kulkarni and Verdu 2009).
    Here m = n, so that the biases of the two distances cancel where the densities agree. Distances are computed in
    coordinates in which z has unit covariance.

    Parameters
    ----------
    z, prior : (n, d), GaussianMixture
        Latents, and the density to compare them with.
    seed : int
        Seed of the choice of latents and of the samples of the prior.
    n_neighbours : int
        k: the distance to the k-th nearest neighbour is used.
    n_samples : int
        Maximum number of latents used.
    groups : (n,) int, optional
        Group of each latent, such as `particles.identity`; one latent of each is used, drawn at random.

    Raises
    ------
    InputError
        If the number of latents, or groups of latents, does not exceed twice `n_neighbours`.

    Notes
    -----
    The estimate detects mass concentrated at points if each point receives more than `n_neighbours` samples;
    `kl_divergence` smooths over such mass. Neither estimate detects a mixture that overfits with a few latents per
    component; `held_out_log_likelihood` does. If latents are far from the mass of the prior, both estimates are too
    small, and much too small in high dimensions.
    """
    from scipy.spatial import cKDTree

    z = require_points(z, prior.latent_dim)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed)).numpy()
    first = np.sort(np.unique(number_groups(groups, len(z)).numpy()[order], return_index=True)[1])
    if len(first) <= 2 * n_neighbours:
        found, expected = f"{len(first)} latents", f"more than {2 * n_neighbours}"
        raise InputError("kl_neighbours", found, expected, "Embed more particles, or use fewer neighbours.")
    points = z.double().cpu()[order[first[:n_samples]]]
    samples = prior.sample(len(points), seed=seed).double().cpu()
    factor = torch.linalg.cholesky(torch.linalg.inv(points.T.cov().reshape(points.shape[1], -1)))
    points, samples = (points @ factor).numpy(), (samples @ factor).numpy()
    own, other = (
        cKDTree(p).query(points, [k])[0][:, 0] for p, k in ((points, n_neighbours + 1), (samples, n_neighbours))
    )
    n, d = points.shape
    return float(d * np.log((other + 1e-300) / (own + 1e-300)).mean() + np.log(n / (n - 1)))


@guarded(n_components=(1, 2**62))
def kl_lower_bound(
    z: Tensor,
    prior: GaussianMixture,
    n_components: int = 100,
    seed: int = 0,
    groups: Tensor | np.ndarray | None = None,
) -> float:
    """Return a lower bound, up to sampling error, on the KL divergence of latents from a prior, in nats.

    The bound is the mean of log q - log p over one half of the latents, where p is the prior and q a mixture fitted
    to the other half. Its expectation is the divergence of the latents from p minus their divergence from q. For a
    prior fitted to these latents, the bound is about 0 or negative. If latents and prior are far apart, the bound
    detects differences that density ratios miss.

    Parameters
    ----------
    z, prior : (n, d), GaussianMixture
        Latents, and the density to compare them with.
    n_components : int
        Maximum number of components of q.
    seed : int
        Seed of the random split of the latents and of the fit.
    groups : (n,) int, optional
        Group of each latent, such as `particles.identity`; a group is in one half.
    """
    (fitted, own), (left_out, _) = _halves(z, seed, groups)
    mixture = GaussianMixture.fit(fitted, min(n_components, len(fitted)), seed=seed, groups=own)
    return float((mixture.log_prob(left_out) - prior.log_prob(left_out)).mean())


def held_out_log_likelihood(
    z: Tensor,
    n_components: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
    seed: int = 0,
    groups: Tensor | np.ndarray | None = None,
) -> dict[str, tuple[float, Interval]]:
    """Compare mixtures by held-out log-likelihood, in nats per latent, with 95 % bootstrap intervals.

    The mixtures are fitted to one half of the latents and evaluated on the other half.

    Parameters
    ----------
    z : (n, d)
        Latents.
    n_components : sequence of int
        Fixed numbers of components to compare with the number that `GaussianMixture.fit` selects; the selected number
        is at most the largest of these.
    seed : int
        Seed of the random split of the latents and of the fits.
    groups : (n,) int, optional
        Group of each latent, such as `particles.identity`; a group is in one half and drawn as a whole.

    Returns
    -------
    dict
        Mean and interval by name: "C = 1", ... for the fixed numbers, "selected (C = ...)" for the selected number.
    """
    (fitted, own), (left_out, others) = _halves(z, seed, groups)
    mixtures = {
        f"C = {c}": GaussianMixture.fit(fitted, c, seed=seed, select=False) for c in n_components if c <= len(fitted)
    }
    selected = GaussianMixture.fit(fitted, min(max(n_components), len(fitted)), seed=seed, groups=own)
    mixtures[f"selected (C = {selected.n_components})"] = selected
    scores = {name: mixture.log_prob(left_out).numpy() for name, mixture in mixtures.items()}
    return {
        name: (float(s.mean()), interval(lambda x: float(x.mean()), s, groups=others.numpy()))
        for name, s in scores.items()
    }


def _halves(z: Tensor, seed: int, groups: Tensor | np.ndarray | None) -> list[tuple[Tensor, Tensor]]:
    """Split latents (n, d) into two random halves, float64 on the CPU, each with the groups of its latents."""
    z, number = require_points(z, least=2).double().cpu(), number_groups(groups, len(z))
    order = torch.randperm(int(number.max()) + 1, generator=torch.Generator().manual_seed(seed))
    rows, place = arrange(number, order)
    return [(z[part], number[part]) for part in (rows[place % 2 == 0], rows[place % 2 == 1])]
