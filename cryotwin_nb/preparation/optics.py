"""Findings on metadata that are possible but improbable: angles in radians, and contrast transfer functions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from cryotwin_nb.imaging.optics import CTF
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.preparation.findings import MUST_BE_MENDED, NOTE, WARNING, Finding

_FINE = 8.0  # Å; images that are sampled more coarsely need not show a zero of the CTF
_RADIANS = np.pi + 0.01  # tilts up to here, degrees, look like radians
_SEVERAL = 100  # images for a value that never varies to be remarkable


def improbable(particles: Particles) -> Iterator[Finding]:
    """Yield findings on the angles and the optics of particles."""
    rotations, ctf = particles.require_views()
    yield from _radians(np.asarray(rotations, dtype=np.float64))
    yield from _without_zeros(ctf, 2 * particles.pixel_size)
    if len(ctf) >= _SEVERAL and np.array_equal(ctf.defocus_u, ctf.defocus_v):
        evidence = "both defocus values are equal in all images"
        advice = "If the microscope was well aligned, nothing needs to be done; otherwise estimate the CTF again."
        yield Finding("no astigmatism", evidence, advice, NOTE)


def _radians(rotations: np.ndarray) -> Iterator[Finding]:
    """Yield a finding if angles that are taken for degrees cover the range of radians."""
    tilt = np.degrees(np.arccos(rotations[:, 2, 2].clip(-1, 1)))
    sine, cosine = rotations[:, 1, 0] - rotations[:, 0, 1], rotations[:, 0, 0] + rotations[:, 1, 1]
    turned = np.degrees(np.abs(np.arctan2(sine, cosine)))  # rot + psi
    if len(tilt) < _SEVERAL or tilt.max() > _RADIANS or turned.max() > 4 * _RADIANS or np.median(tilt) < 0.5:
        return
    evidence = f"all tilts lie between 0 and {tilt.max():.2f}°, and all views around one direction"
    yield Finding("angles look like radians", evidence, "Write the angles in degrees.", MUST_BE_MENDED)


def _without_zeros(ctf: CTF, nyquist: float) -> Iterator[Finding]:
    if nyquist > _FINE:
        return
    defocus = (np.abs(ctf.defocus_u) + np.abs(ctf.defocus_v)) / 2
    ring = np.linspace(0, 1 / max(nyquist, 4.0), 200)
    middle = np.argsort(defocus)[len(defocus) // 2]
    curve = ctf[[middle]](torch.as_tensor(np.stack([ring, 0 * ring], 1), dtype=torch.float32))[0, 1:]
    if bool((curve.sign() != curve[0].sign()).any()):
        return
    evidence = (
        f"with a median defocus of {defocus[middle] / 1e4:.3g} µm, it has no zero up to {max(nyquist, 4.0):.3g} Å"
    )
    yield Finding("the CTF does not oscillate", evidence, "Check the units of defocus (Å) and voltage (kV).", WARNING)
