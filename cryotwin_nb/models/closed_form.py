"""Closed-form passes of the subspace architecture: maps, directions, contrasts and their number, without gradients.

The resolution increases from pass to pass. Passes with a Gaussian density of the coefficients come first; during these,
directions that the images do not support are dropped, and so are contrasts that do not vary. The last passes use a
mixture as the density of the coefficients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from cryotwin_nb.imaging.masks import map_mask
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.isolated import unnamed
from cryotwin_nb.models.records import Records, deconvolved, transformed, unpack
from cryotwin_nb.particles.formation import Chunks
from cryotwin_nb.reconstruction.backprojection import MARGIN
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes, begin, iterate
from cryotwin_nb.reconstruction.spectrum import Spectrum
from cryotwin_nb.runtime import distributed

_RADII = (0.3, 0.3, 0.3, 0.3, 0.5, 0.5, 0.7, 1.0, 1.0)  # maximum |k| of each Gaussian-prior pass, fraction of Nyquist
N_PASSES = len(_RADII) + 3
_TIGHTENED = 7  # pass before which the mask is fitted to the density (option tight_mask)
_SAMPLE = 5000  # images used to fit the density of the coefficients and to choose the directions
_COMPONENTS = 32  # maximum number of components of that density
_CONTRAST_SPREAD = 0.1  # initial standard deviation of the contrasts
_LEAST_SPREAD = 0.03  # smaller spreads are not fitted, unless asked for
_ERRORS = 5.0  # standard errors of the spread below which it is not fitted either
_DECIDED = 6  # pass from which this is decided
_SPARE = {4: 4, 6: 2, len(_RADII): 0}  # directions kept after some passes, in addition to those found to be live


def passes(
    networks: Any, chunks: Chunks, beta: float, done: int, groups: np.ndarray | None
) -> Iterator[tuple[float, float, float]]:
    """Run the passes after the first `done` on `SubspaceNetworks`; yield radius, log-evidence and duration of each."""
    radius, options = networks.imaging.plane.box_size / 2 + MARGIN, networks.options
    for number in range(done, N_PASSES):
        started, share, evidence = time.perf_counter(), 1.0, float("nan")
        if number == 0:
            networks.reset()
            spread = _CONTRAST_SPREAD if options.contrast else 0.0
            n_basis = len(networks.basis)
            start = begin(networks.imaging, chunks(), networks.mask, n_basis, networks.seed, spread)
            networks.eigenvolumes = start
        elif number <= len(_RADII):
            if options.tight_mask and number == _TIGHTENED:
                _tighten(networks)
            share = _RADII[number - 1]
            found, evidence, _ = iterate(networks.eigenvolumes, networks.imaging, chunks(), share * radius)
            networks.eigenvolumes = _decided(networks, found) if number >= _DECIDED else found
            if number in _SPARE:
                _choose(networks, chunks, share * radius, _SPARE[number])
            networks.density.set(networks.eigenvolumes.prior)
        else:
            if number == len(_RADII) + 1:
                records = _sample(networks, chunks)
                networks.density.set(_deconvolved(networks, records, partial(_start, networks, records, groups), 60))
            density = networks.density.mixture
            moments = networks.eigenvolumes.moments(density)
            found, evidence, frame = iterate(networks.eigenvolumes, networks.imaging, chunks(), radius, moments)
            networks.eigenvolumes = _decided(networks, found)
            networks.density.set(transformed(density, *frame))
            records = _sample(networks, chunks)
            if float(networks.contrast_spread):  # the contrasts' errors depend on the density
                networks.density.set(_deconvolved(networks, records, lambda: networks.density.mixture, 20))
            networks.scale.fill_(_scale(networks, records, beta))
        yield share * radius, evidence, time.perf_counter() - started


def _tighten(networks: Any) -> None:
    """Restrict the mask to regions in which the density or one of its variations is large."""
    power = networks.mean.square() + torch.tensordot(networks.variances.float(), networks.basis.square(), 1)
    networks.mask.mul_(map_mask(power.sqrt()).to(networks.mask))


def _decided(networks: Any, found: Eigenvolumes) -> Eigenvolumes:
    """Return the result of a pass, with all contrasts 1 if the images do not show that they vary."""
    least = max(_LEAST_SPREAD, _ERRORS * found.contrast_error)
    off = networks.options.contrast == "auto" and found.contrast_spread < least
    return replace(found, contrast_spread=0.0) if off else found


def _choose(networks: Any, chunks: Chunks, radius: float, spare: int) -> None:
    """Measure the spectrum; keep the directions that the images support, and `spare` more."""
    found = Spectrum.of(networks.eigenvolumes, chunks(_SAMPLE), networks.imaging, radius)
    networks.spectrum = found = distributed.first(lambda: found)
    networks.chosen |= not spare
    if networks.chooses_basis:
        last = max((i + 1 for i, live in enumerate(found.live) if live), default=0)
        least = 1 if networks.chooses_dim else networks.latent_dim
        n_basis = min(len(networks.basis), max(least, last + spare if spare else found.n_live))
        networks.resize(n_basis if networks.chooses_dim else networks.latent_dim, n_basis)
    elif networks.chooses_dim and not spare:
        networks.resize(max(1, found.n_live), len(networks.basis))
    if not spare:
        live = torch.tensor(found.live[: len(networks.basis)], device=networks.mask.device)
        networks.ignore(~live)


def _start(networks: Any, records: Records, groups: np.ndarray | None) -> GaussianMixture:
    """Return a mixture fitted to the coefficients of images, with which the deconvolution starts."""
    n, own = len(records.b), None if groups is None else groups[: len(records.b)]
    with unnamed():
        return GaussianMixture.fit(records.expected, min(_COMPONENTS, n), seed=networks.seed, groups=own)


def _deconvolved(
    networks: Any, records: Records, start: Callable[[], GaussianMixture], max_iter: int
) -> GaussianMixture:
    """Return the density that the coefficients would have without image noise (extreme deconvolution)."""

    def fitted() -> GaussianMixture:
        return deconvolved(records.b, unpack(records.precision), networks.variances, start(), max_iter).to("cpu")

    return distributed.first(fitted).to(networks.mask.device)  # each process has its own GPU


def _sample(networks: Any, chunks: Chunks) -> Records:
    """Return the records of the first `_SAMPLE` images."""
    mine = Records(*map(torch.cat, zip(*[networks.prepare(batch) for batch in chunks(_SAMPLE)], strict=True)))
    n = round(distributed.total(len(mine.b)))
    return Records(*(distributed.gather(part, n) for part in tuple(mine)))


def _scale(networks: Any, records: Records, beta: float) -> float:
    """Return the scale s in c = s z at which noise of width T adds beta/2 to the distortion in each dimension."""
    diagonal = unpack(records.G_weighted).diagonal(dim1=-2, dim2=-1)
    ratio = float(diagonal[:, : networks.latent_dim].mean())
    return (6 * beta / networks.noise_width**2 / ratio) ** 0.5
