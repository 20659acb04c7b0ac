"""States that look like junk: their images agree with each other, but share no part of the molecule with the rest.

Conformations of one molecule, aligned with each other, have a region in common: at least the part that the alignment
followed. Images of another molecule, or of another alignment, have none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cryotwin_nb.imaging.fourier import fft3, grid, ifft3, n_shells, shell_mean
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.pathways.states import State
from cryotwin_nb.reconstruction.homogeneous import Reconstruction, reconstruct

_SIZE = 32  # box to which maps are cropped in Fourier space: a common region shows at moderate resolution
_WINDOW = 0.25  # standard deviation of the windows in which maps are compared, relative to the particle radius
_SHARED = 0.2  # part of the signal that two conformations have in common at least
_ALIKE = 0.4  # correlation there. True maps: above 0.55 for conformations of three molecules, below 0.25 for others
_LEAST_FSC = 0.143  # of half maps in the shells that are compared
_LEAST_SHELLS = 4  # number of shells from which maps are compared
_FEWEST = 40  # images that a state is reconstructed from
_STRONG = 0.05  # signal, relative to its maximum, below which a window is left out


class _Halves(NamedTuple):
    """Half maps in Fourier space (2, D, D, D), their common power per shell and their FSC, (n_shells,) float64."""

    spectra: Tensor
    power: Tensor
    fsc: Tensor


def judged(
    model: CryoTwin, particles: Particles, states: list[State], own: np.ndarray, good: np.ndarray
) -> tuple[list[State], list[str], list[int]]:
    """Return the states with `junk` set for those that look like junk, reasons, and the states of other particles.

    There is a reason for each state, empty unless it looks like junk. Noise has latents in the middle of all others,
    where a rare state can be, so a state with enough good images is judged by these alone.

    Parameters
    ----------
    model, particles : CryoTwin, Particles
        Model and its images.
    states : list of State
        States of the model's prior.
    own : (n,) int64
        Index of the state of each image.
    good : (n,) bool
        Images that are not junk on their own; only these are reconstructed.
    """
    reasons = []
    rows = [np.flatnonzero(good & (own == i)) for i in range(len(states))]
    for i, few in enumerate(rows):
        bad = int((own == i).sum()) - len(few)
        reasons.append(f"{bad} of its {bad + len(few)} images are junk" if len(few) < min(bad, _FEWEST) else "")
    compared = [i for i in range(len(states)) if len(rows[i]) >= _FEWEST]
    maps = [_halves(reconstruct(particles[rows[i]], imaging=model.imaging)) for i in compared]
    radius = model.imaging.particle_radius / model.imaging.plane.box_size
    alike = np.eye(len(maps))
    for a in range(len(maps)):
        for b in range(a):
            alike[a, b] = alike[b, a] = shared_part(maps[a], maps[b], radius)
    foreign = apart(alike, np.array([len(rows[i]) for i in compared]))
    for a in foreign:
        others = np.delete(alike[a], a)
        reasons[compared[a]] = f"no part of its map is found in other states (correlation {others.max():.2f} at most)"
    marked = [replace(s, junk=bool(reason)) for s, reason in zip(states, reasons, strict=True)]
    return marked, reasons, [compared[a] for a in foreign]


def apart(alike: np.ndarray, sizes: np.ndarray) -> list[int]:
    """Return the states that no chain of similar states links to most of the images.

    Parameters
    ----------
    alike : (S, S) float
        Correlation of each two states in the region that they share; NaN if unknown, which counts as alike.
    sizes : (S,) int
        Number of images of each state.
    """
    from scipy.sparse.csgraph import connected_components

    if not len(sizes):
        return []
    group = connected_components(~(alike < _ALIKE), directed=False)[1]
    held = np.bincount(group, weights=sizes)
    largest = int(held.argmax())
    return [] if held[largest] < held.sum() / 2 else np.flatnonzero(group != largest).tolist()


def shared_part(first: _Halves, second: _Halves, radius: float) -> float:
    """Return the correlation of two maps in the best fifth of their signal, corrected for noise; NaN if not resolved.

    The spectra are whitened, because all compact particles agree at low resolution, and the shells weighted by their
    expected correlation with the truth. Correlations are local, in Gaussian windows; the signal of each map there is
    the product of its half maps, which have independent noise. `radius` is that of the particle, as a fraction of the
    box.
    """
    resolved = (first.fsc > _LEAST_FSC) & (second.fsc > _LEAST_FSC)
    resolved[0] = True
    resolved = resolved.long().cumprod(0).bool()
    resolved[0] = False
    if resolved.sum() < _LEAST_SHELLS:
        return float("nan")
    reliable = [2 * f / (1 + f) for f in (first.fsc, second.fsc)]
    weights = (reliable[0] * reliable[1]).clamp_min(0).sqrt() * resolved
    (a, b), (c, d) = (_filtered(maps, weights) for maps in (first, second))
    sigma = _WINDOW * radius * len(a)
    both = gaussian_filter((a + b) * (c + d), sigma) / 4
    signal = np.sqrt(gaussian_filter(a * b, sigma).clip(0) * gaussian_filter(c * d, sigma).clip(0))
    inside = signal > _STRONG * signal.max()
    local = both[inside] / signal[inside]
    order = np.argsort(-local)
    held = signal[inside][order].cumsum()
    return float(local[order][np.searchsorted(held, _SHARED * held[-1])])


def _halves(found: Reconstruction) -> _Halves:
    """Return the half maps of a reconstruction for comparison with others."""
    size = found.half_maps.shape[-1]
    margin = max(0, (size - _SIZE) // 2)
    kept = slice(margin, size - margin)
    first, second = spectra = fft3(found.half_maps)[:, kept, kept, kept]
    shell, shells = _shells(len(first)), n_shells(len(first))
    power = shell_mean((first * second.conj()).real.flatten(), shell, shells).double()
    total = shell_mean(spectra.abs().square().mean(0).flatten(), shell, shells).double()
    return _Halves(spectra, power, (power / total.clamp_min(1e-30)).clamp(0, 1))


def _shells(size: int) -> Tensor:
    return grid(size, 3).reshape(-1, 3).float().norm(dim=-1).round().long()


def _filtered(maps: _Halves, weights: Tensor) -> np.ndarray:
    """Return half maps (2, D, D, D) with the amplitude `weights` (n_shells,) instead of their own."""
    size, known = maps.spectra.shape[-1], torch.zeros(int(_shells(maps.spectra.shape[-1]).max()) + 1)
    known[: len(weights)] = (weights * maps.power.clamp_min(1e-30).rsqrt()).float()
    return ifft3(maps.spectra * known[_shells(size)].view(size, size, size)).real.numpy()
