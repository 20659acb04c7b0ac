"""Latents far from all others, which would rule the fit of a mixture: of damaged images, for example."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cryotwin_nb.errors import warn_user
from cryotwin_nb.mixture.clusters import clusters
from cryotwin_nb.mixture.em import Latents, expectation_maximisation

_NEIGHBOUR = 5  # groups of at most this many latents are isolated if they are far from all others
_APART = 8.0  # distance to that neighbour, relative to its 90th percentile, from which a latent is examined
_WIDE = 0.7  # least distance to that neighbour, in units of the spread of the latents along their widest axis
_AWAY = 5.0  # distance from a mixture fitted to the others, relative to the largest distance of these
_LISTED = 5
_LEFT_OUT = "latents lie far from all others"


@contextmanager
def unnamed() -> Iterator[None]:
    """Fit mixtures without naming what is left out: for latents whose rows are not those that the user knows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*{_LEFT_OUT}")
        yield


def set_aside(z: Tensor, n_components: int, seed: int) -> Tensor:
    """Return which latents (n,) bool are kept: all but those that are isolated, which a warning names.

    A latent is isolated if its fifth-nearest neighbour is far away, compared with those of 90 % of the latents and with
    their spread, and if it is far from a mixture fitted to the others, compared with these. The distance from a mixture
    is the root of twice the difference from the highest log density, as for a Gaussian. The tail of a density is not
    isolated. A single isolated latent lowers the held-out likelihood of a mixture by thousands of nats, whatever the
    number of components, and so decides their number.

    Parameters
    ----------
    z : (n, d) float64
        Latents.
    n_components : int
        Largest number of components.
    seed : int
        Random seed.
    """
    examined = _candidates(z)
    others = ~examined
    if not examined.any() or others.sum() < 8:
        return torch.ones_like(examined)
    centre, spread = z[others].mean(0), z[others].std(0).clamp_min(1e-12)
    x = (z - centre) / spread
    count = min(n_components, max(1, int(others.sum()) // 8))
    log_prob = _log_prob(x, x[others], count, seed)
    distance = (2 * (log_prob[others].max() - log_prob)).clamp_min(0).sqrt()
    far = examined & (distance > _AWAY * distance[others].max())
    if far.any():
        rows = far.nonzero().flatten().tolist()
        more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
        listed = ", ".join(map(str, rows[:_LISTED])) + more
        text = f"{len(rows)} of {len(z)} {_LEFT_OUT} and are left out of the fit of the mixture"
        warn_user(f"{text}: row {listed}. Look at their images." if len(rows) == 1 else f"{text}: rows {listed}.")
    return ~far


def _candidates(z: Tensor) -> Tensor:
    """Return which latents (n,) bool are much farther from their neighbours than most, and than the usual spread."""
    from scipy.spatial import cKDTree

    points = z.cpu().numpy()
    if len(points) <= 2 * _NEIGHBOUR:
        return torch.zeros(len(z), dtype=torch.bool, device=z.device)
    distance = torch.as_tensor(cKDTree(points).query(points, k=_NEIGHBOUR + 1)[0][:, -1]).to(z)
    usual = torch.quantile(distance[:: max(1, len(distance) // 100_000)], 0.9)
    spread = (z - z.median(0).values).abs().quantile(0.683, dim=0).max()  # standard deviation, for a Gaussian
    return (distance > _APART * usual) & (distance > _WIDE * spread)


def _log_prob(x: Tensor, others: Tensor, count: int, seed: int) -> Tensor:
    """Return the log densities (n,) of all latents under a mixture fitted to the others."""
    generator, fitted = torch.Generator().manual_seed(seed), Latents(others, torch.ones_like(others[:, 0]))
    start = clusters(fitted, count, torch.ones_like(x[0]), 2.0, generator)
    mixture, _ = expectation_maximisation(fitted, start, 2.0, 20, 1e-3)
    return Latents(x, torch.ones_like(x[:, 0])).log_prob(mixture)
