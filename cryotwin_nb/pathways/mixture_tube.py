"""Mass of a mixture per unit length along a path, in a tube as wide as the passage, in closed form."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.corridor import bounded
from cryotwin_nb.pathways.line import Line

_EDGE = 4.2  # variance of the tube's Gaussian edge, in units of the variance of the density across the path
_ROUNDS = 10  # rounds in which that variance is found
_LIVE = 0.1  # least ratio of the variance between components to that within them, in a live direction


def log_mass_along(prior: GaussianMixture, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the arc length (N,) along a path, the log of the mass per unit length there, and the length of the path.

    Parameters
    ----------
    prior : GaussianMixture
        Mixture.
    curve : (m, d) float64
        Vertices of the path, which is prolonged by its length at both ends.

    Notes
    -----
    A point at the offset u across the path has the weight exp(-u^T W^-1 u / 2). The integral over the plane across the
    path is then (2 pi)^((d-1)/2) |W|^(1/2) sum_c pi_c N(z; mu_c, Sigma_c + F W F^T), where F is a basis of the plane.
    W is proportional to the covariance of the density in the tube, which is found by iteration. Directions in which all
    components look alike are integrated over.
    """
    live = _live_directions(prior, curve[-1] - curve[0])
    line = Line.through(curve @ live.numpy())
    means, covariances = prior.means.cpu() @ live, live.T @ prior.covariances.cpu() @ live
    points, frames = torch.from_numpy(line.points), torch.from_numpy(line.frames)
    log_weights, dim = prior.weights.cpu().clamp_min(1e-300).log(), points.shape[1]
    if dim == 1:
        return (
            line.position,
            _log_joint(points[:, None] - means, covariances, log_weights).logsumexp(1).numpy(),
            line.length,
        )
    spread = frames.mT @ torch.tensordot(prior.weights.cpu(), covariances, 1) @ frames
    precision = torch.linalg.inv(covariances)
    crossing = torch.einsum("nda,cde,neb->ncab", frames, precision, frames)
    away = points[:, None] - means
    pull = -torch.einsum("nda,cde,nce->nca", frames, precision, away)
    log_mass = points.new_zeros(len(points))
    for _ in range(_ROUNDS):
        edge = _EDGE * spread
        inverse = torch.linalg.inv(edge)
        total = covariances + (frames @ edge @ frames.mT)[:, None]
        joint = _log_joint(away, total, log_weights)
        log_mass = joint.logsumexp(1) + torch.logdet(edge) / 2
        share = (joint - joint.logsumexp(1, keepdim=True)).exp()
        inner = torch.linalg.inv(crossing + inverse[:, None])
        shift = (inner @ pull[..., None])[..., 0]
        mean = torch.einsum("nc,nca->na", share, shift)
        second = torch.einsum("nc,ncab->nab", share, inner + shift[..., None] * shift[..., None, :])
        spread = _widened(second - mean[..., None] * mean[:, None], edge, log_mass)
    return line.position, log_mass.numpy(), line.length


def _log_joint(away: Tensor, covariances: Tensor, log_weights: Tensor) -> Tensor:
    """Return log pi_c N(away; 0, Sigma_c) (N, C) for offsets (N, C, d) and covariances (C, d, d) or (N, C, d, d)."""
    factor = torch.linalg.cholesky(covariances)
    factor = factor.expand(*away.shape[:2], *factor.shape[-2:])
    white = torch.linalg.solve_triangular(factor, away[..., None], upper=False)[..., 0]
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return log_weights - (white.square().sum(-1) + log_det + away.shape[-1] * math.log(2 * math.pi)) / 2


def _widened(inside: Tensor, edge: Tensor, log_mass: Tensor) -> Tensor:
    """Return the variance across the path (N, d-1, d-1) of a density whose product with the edge has that `inside`."""
    root = torch.linalg.cholesky(edge)
    ratios, axes = torch.linalg.eigh(torch.linalg.solve(root, torch.linalg.solve(root, inside).mT))
    ratios = (ratios / (1 - ratios.clamp(max=0.9))).clamp_min(1e-6)
    local = root @ (axes * ratios[:, None]) @ axes.mT @ root.mT
    common = torch.tensordot(log_mass.softmax(0), local, 1)
    return torch.from_numpy(bounded(local.numpy(), common.numpy()))


def _live_directions(prior: GaussianMixture, chord: np.ndarray) -> Tensor:
    """Return an orthonormal basis (d, m) of the directions in which components differ, and of the path's chord."""
    weights, means = prior.weights.cpu(), prior.means.cpu()
    within = torch.tensordot(weights, prior.covariances.cpu(), 1)
    centred = means - weights @ means
    between = (centred * weights[:, None]).T @ centred
    root = torch.linalg.inv(torch.linalg.cholesky(within))
    ratios, axes = torch.linalg.eigh(root @ between @ root.T)
    live = torch.linalg.qr(root.T @ axes[:, ratios > _LIVE])[0]
    rest = torch.from_numpy(chord) - live @ (live.T @ torch.from_numpy(chord))
    if rest.norm() > 0.5 * np.linalg.norm(chord):
        live = torch.cat([live, rest[:, None] / rest.norm()], dim=1)
    return live
