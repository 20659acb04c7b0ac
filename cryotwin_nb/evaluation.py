"""How good is a model? Isometry, fit of the prior, maps against the truth, occupancies along a path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.fourier import fsc
from cryotwin_nb.mixture import GaussianMixture
from cryotwin_nb.truth import Truth

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Isometry:
    """Inner products of pairs of small steps, in latent space and in the space of maps.

    Attributes
    ----------
    latent_products, volume_products : (n,) float64
        dz1.dz2 and dV1.dV2.
    """

    latent_products: np.ndarray
    volume_products: np.ndarray

    @property
    def correlation(self) -> float:
        """Pearson's r of the two: 1 for an isometry up to scale (the paper's measure, its Fig. 4)."""
        return float(np.corrcoef(self.latent_products, self.volume_products)[0, 1])

    @property
    def scale(self) -> float:
        """Least-squares factor from latent to volume products, through the origin."""
        return float(self.latent_products @ self.volume_products / (self.latent_products @ self.latent_products))


def isometry(
    decode: Decode | object,
    z: Tensor,
    seed: int = 0,
    n_pairs: int = 200,
    n_active: int | None = None,
    step: float = 0.01,
) -> Isometry:
    """Compare inner products of infinitesimal steps in latent space with those of the decoded maps (paper, Eq. 2).

    Parameters
    ----------
    decode : callable or model
        (m, d) latents to (m, D, D, D) maps, or anything with a method `volumes` that does.
    z : (n, d)
        Latents of real particles; pairs of steps start at `n_pairs` of them.
    n_pairs : int
        Pairs of random directions.
    n_active : int, optional
        Take the directions in the span of the leading principal components of `z` only ("active subspace").
        By default all directions, as in the paper.
    step : float
        Length of the steps relative to the standard deviation of the leading component; differences are central.
    """
    volumes: Decode = decode.volumes if hasattr(decode, "volumes") else decode  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(seed)
    z = torch.as_tensor(z, dtype=torch.float32)
    spread, axes = principal_axes(z)
    axes = axes[: n_active or z.shape[1]]
    latent, maps = [], []
    for index in torch.randperm(len(z), generator=generator)[:n_pairs].tolist():
        directions = torch.randn(2, len(axes), generator=generator) @ axes
        directions *= step * spread[0] / len(axes) ** 0.5
        both = volumes(torch.cat([z[index] + directions, z[index] - directions]))
        change = ((both[:2] - both[2:]) / 2).flatten(1).double()
        latent.append(float(directions[0] @ directions[1]))
        maps.append(float(change[0] @ change[1]))
    return Isometry(np.array(latent), np.array(maps))


def principal_axes(z: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations (d,) and unit axes (d, d) in rows of latents (n, d), largest first."""
    _, values, axes = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    return values / max(1, len(z) - 1) ** 0.5, axes


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


def coordinate_r2(z: Tensor, truth: Truth, n_neighbours: int = 10) -> dict[str, float]:
    """Held-out R^2 of each true coordinate, predicted from the latents of the nearest particles of the other half.

    Parameters
    ----------
    z : (n, d)
        Latents, in the order of `truth`.
    """
    from sklearn.neighbors import KNeighborsRegressor

    half, target = len(z) // 2, truth.coordinates
    neighbours = KNeighborsRegressor(n_neighbours, weights="distance")
    predicted = neighbours.fit(np.asarray(z[:half]), target[:half]).predict(np.asarray(z[half:]))
    residual = ((predicted - target[half:]) ** 2).mean(0)
    r2 = 1 - residual / target[half:].var(0)
    return dict(zip(truth.coordinate_names, r2.tolist(), strict=True))


def fsc_to_truth(decode: Decode, z: Tensor, truth: Truth, n_images: int = 100) -> np.ndarray:
    """Mean correlation (D/2,) of maps decoded at the latents of single images with the true map of each image."""
    rows = np.linspace(0, len(z) - 1, min(n_images, len(z))).astype(int)
    curves = [
        fsc(decoded, truth.volume(row), truth.pixel_size).correlation
        for chunk in np.array_split(rows, -(-len(rows) // 10))
        for row, decoded in zip(chunk, decode(z[chunk]), strict=True)
    ]
    return np.mean(curves, axis=0)


def component_of_state(prior: GaussianMixture, z: Tensor, labels: np.ndarray, state: str) -> int:
    """Index of the component that holds most of the particles labelled `state`.

    Raises
    ------
    InputError
        If no particle carries the label.
    """
    members = np.flatnonzero(np.asarray(labels) == state)
    if len(members) == 0:
        known = ", ".join(sorted(set(map(str, labels))))
        raise InputError("component_of_state", f"no particle labelled {state!r}", f"one of {known}", "Choose another.")
    return int(prior.responsibilities(torch.as_tensor(z)[members]).sum(0).argmax())


def block_occupancies(maps: Tensor, truth: Truth) -> np.ndarray:
    """Occupancy (m, 5) of each block of the assembling subunit in maps (m, D, D, D).

    Least squares: each map is written as scale * (core + sum of occupancy * block); the scale is that of the core.
    """
    names = truth.coordinate_names
    empty = truth.volume_at(np.zeros(len(names)))
    parts = [empty] + [truth.volume_at(row) - empty for row in np.eye(len(names), dtype=np.float32)]
    basis = torch.stack(parts).flatten(1).double()
    solution = torch.linalg.lstsq(basis.T, torch.as_tensor(maps).flatten(1).double().T).solution
    return (solution[1:] / solution[:1]).T.numpy()


def block_order(occupancies: np.ndarray, names: tuple[str, ...], threshold: float = 0.5) -> list[str]:
    """Names of the blocks in the order in which their occupancy (K+1, 5) first passes `threshold` for good.

    The crossing is interpolated between steps; blocks that do not end above the threshold are left out.
    """
    steps = {name: passing_step(values, threshold) for name, values in zip(names, occupancies.T, strict=True)}
    return sorted((name for name, step in steps.items() if np.isfinite(step)), key=steps.__getitem__)


def passing_step(values: np.ndarray, threshold: float) -> float:
    """Where a line (K+1,) passes the threshold for good, in steps: 0 if always above, infinity if it ends below."""
    below = np.flatnonzero(values < threshold)
    if not len(below):
        return 0.0
    last = below[-1]
    if last == len(values) - 1:
        return float("inf")
    return float(last + (threshold - values[last]) / (values[last + 1] - values[last]))


def true_block_orders() -> list[tuple[str, ...]]:
    """The orders in which the blocks appear along the four planted routes."""
    from cryotwin_nb.molecules import BLOCKS, ROUTES, STATES

    orders = []
    for route in ROUTES:
        bits = np.array([STATES[state] for state in route])
        orders.append(tuple(BLOCKS[int(np.argmax(step))] for step in np.diff(bits, axis=0)))
    return orders
