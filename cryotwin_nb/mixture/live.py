"""Dead directions: principal axes of latents or of a mixture that carry nothing.

Their standard deviation is far below that of the widest axis and below the spread within a state, and with it far below
the error of a latent. The encoder makes them smooth functions of the other, live axes. No map changes along them, but
their variance given the live axes is tiny and differs from component to component: densities differ by many nats there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryotwin_nb.mixture.components import Components

_OF_WIDEST = 0.02  # standard deviation of a dead axis, relative to that of the widest axis ...
_OF_LOCAL = 0.25  # ... and relative to the spread within a state
_WIDER = 4.0  # factor on the standard deviations of dead axes, so that no place along them matters
_SHARE, _ROWS = 100, 2000  # spread within a state of latents: distance within which 1 % of them lie; latents asked


def live_axes(deviations: Tensor, local: float) -> int:
    """Return the number of axes that are not dead.

    Parameters
    ----------
    deviations : (d,) float64
        Standard deviations along the principal axes, in decreasing order.
    local : float
        Spread within a state, in the same unit.
    """
    dead = deviations <= min(_OF_WIDEST * float(deviations.max()), _OF_LOCAL * local)
    return max(1, int((~dead).sum()))


def local_spread(z: Tensor) -> float:
    """Return the median radius of a ball around a latent that contains 1 % of the latents (n, d)."""
    some = z[:: max(1, len(z) // _ROWS)]
    place = min(len(some) - 1, 1 + len(some) // _SHARE)
    return float(torch.cdist(some, some).kthvalue(place + 1, dim=1).values.median())


def component_width(mixture: Components) -> float:
    """Return the median, weighted by mass, of the components' standard deviations along their longest axes."""
    longest = torch.linalg.eigvalsh(mixture.covariances)[:, -1].clamp_min(0).sqrt()
    order = longest.argsort()
    middle = torch.searchsorted(mixture.weights[order].cumsum(0), 0.5)
    return float(longest[order[middle.clamp_max(len(order) - 1)]])


def live_dim(weights: Tensor, means: Tensor, covariances: Tensor) -> int:
    """Return the number of live axes of a mixture with weights (C,), means (C, d) and covariances (C, d, d)."""
    return _axes(Components(weights, means, covariances))[2]


def flattened(mixture: Components) -> Components:
    """Return the mixture with one broad Gaussian, common to all components, in dead axes.

    The density of the live axes does not change. Without dead axes, the same object is returned.
    """
    values, axes, live = _axes(mixture)
    if live == len(values):
        return mixture
    kept, others = axes[:, :live], axes[:, live:]
    centre = mixture.weights @ mixture.means
    project = kept @ kept.T
    means = centre + (mixture.means - centre) @ project
    covariances = project @ mixture.covariances @ project + (others * (_WIDER**2 * values[live:])) @ others.T
    return Components(mixture.weights, means, (covariances + covariances.mT) / 2)


def on_sheet(mixture: Components, z: Tensor) -> Tensor:
    """Return latents (n, d) whose coordinates in dead axes are replaced by their expectations given the live axes."""
    values, axes, live = _axes(mixture)
    if live == len(values):
        return z
    means, covariances = mixture.means @ axes, axes.T @ mixture.covariances @ axes
    y = z.to(means) @ axes
    leading = covariances[:, :live, :live]
    slopes = torch.linalg.solve(leading, covariances[:, :live, live:])
    away = y[:, None, :live] - means[:, :live]
    of_live = Components(mixture.weights, means[:, :live], leading).factorised(0.0).log_joint(y[:, :live]).softmax(-1)
    others = means[:, live:] + torch.einsum("ncu,cuv->ncv", away, slopes)
    return torch.cat([y[:, :live], torch.einsum("nc,ncv->nv", of_live, others)], dim=1) @ axes.T


def _axes(mixture: Components) -> tuple[Tensor, Tensor, int]:
    """Return variances (d,) along the principal axes, in decreasing order, the axes (d, d) and how many are live."""
    values, axes = torch.linalg.eigh(mixture.covariance())
    values, axes = values.flip(0).clamp_min(0), axes.flip(1)
    return values, axes, live_axes(values.sqrt(), component_width(mixture))
