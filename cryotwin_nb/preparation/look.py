"""First look at particles: a coarse map in seconds, and a quality check of poses, CTF, contrast, views and contents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import POSITIVE, InputError, guarded
from cryotwin_nb.imaging.fourier import grid
from cryotwin_nb.imaging.fsc import FscCurve
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.preparation.alternatives import Alternatives, errors_of
from cryotwin_nb.preparation.contents import Contents, estimates, junk_share, optics_of
from cryotwin_nb.preparation.directional import directional_resolution
from cryotwin_nb.preparation.findings import NOTE, Finding, FirstLook, contained, inexact
from cryotwin_nb.preparation.hypotheses import Sample
from cryotwin_nb.preparation.listing import listed
from cryotwin_nb.preparation.optics import improbable
from cryotwin_nb.preparation.orientation import depends_on_view, oriented
from cryotwin_nb.preparation.views import ViewSampling, sampling_of
from cryotwin_nb.reconstruction.pose_errors import quick_subspace

_LEAST, _LARGEST = 32, 48  # limits of the coarse box size, pixels: half the image box size, clipped to this range
_FINE = 64  # largest box size for the resolution in each direction, pixels
_EVEN = 0.9  # evenness of the views from which the coarse box is enough


@guarded(n_images=(1, 2**62), resolution=POSITIVE)
def first_look(
    particles: Particles,
    n_images: int = 5000,
    resolution: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> FirstLook:
    """Reconstruct a coarse map of some particles, and judge their metadata, poses, views and contents.

    Parameters
    ----------
    particles : Particles
        Particles with poses and CTF.
    n_images : int
        Maximum number of images examined, drawn at random.
    resolution : float, optional
        Resolution at which the cost of findings is given, Å; by default that of the pixel size.
    seed : int
        Seed of the random draw.
    progress : bool
        Show a progress bar.

    Returns
    -------
    FirstLook
        Map, half maps and their correlation, scores of the alternatives, and findings with advice.

    Raises
    ------
    InputError
        If there are fewer than 100 images, or they lack poses or CTF.

    Notes
    -----
    The module `hypotheses` describes how alternatives are scored. The best alternative is adopted and the others are
    tested again, until none predicts better. The contrast is checked on the map, whose density must be positive. If
    nothing must be mended, six principal directions are fitted, from which errors of the poses, the spread of contrasts
    and the share of junk are estimated apart from motions.

    Examples
    --------
    >>> look = ct.first_look(particles)
    >>> [finding.name for finding in look.findings]
    []
    """
    rotations, ctf = particles.require_views()
    if min(len(particles), n_images) < 100:
        found = f"{min(len(particles), n_images)} images"
        raise InputError("first_look", found, "at least 100", "Pass more particles, or increase n_images.")
    size = particles.box_size
    sample = Sample(particles, n_images, min(size, max(_LEAST, min(_LARGEST, size // 4 * 2))), seed)
    stated, voxel = sample.stated(), sample.particles.pixel_size
    half_maps = torch.stack([sample.reconstruct(stated, rows) for rows, _ in sample.halves()])
    gain, curve = float(sample.gains(stated, list(half_maps)).mean()), sample.agreement(half_maps)
    sampling, errors, contents = sampling_of(rotations), None, None
    with tqdm(desc="first look", unit="test", disable=not progress) as bar:
        tests = Alternatives(sample, seed, bar)
        findings = tests.test()
        bar.update()
        directional = _directional(particles, sample, curve, sampling, seed)
        bar.update()
        if not findings:
            batches = sample.batches(stated)
            structures = quick_subspace(sample.imaging, batches, sample.mask, seed)
            bar.update()
            errors = errors_of(sample, stated, seed, structures)
            bar.update()
            contrast, error, coordinates = estimates(structures, sample.imaging, batches)
            junk, interval, spread = junk_share(contrast, error)
            n_unique = len(np.unique(particles.identity))
            effective = n_unique * (1 - interval[0]) * sampling.evenness
            optics = optics_of(ctf, particles.optics_group)
            contents = Contents(n_unique, spread, junk, interval, effective, optics)
            findings += inexact(errors, _radius(structures.mean) * voxel, resolution or 2 * particles.pixel_size)
            findings += [*contained(contents), *depends_on_view(coordinates, stated.rotations[:, :, 2].numpy())]
    findings += oriented(sampling, directional, 2 * voxel)
    return FirstLook(
        n_images=len(sample),
        voxel_size=voxel,
        map=sample.reconstruct(stated, torch.arange(len(sample))),
        half_maps=half_maps,
        fsc=curve,
        gain=gain,
        scores=tests.scores,
        errors=errors,
        contents=contents,
        sampling=sampling,
        direction_resolution=directional,
        findings=(*findings, *improbable(particles), *_bad(sample), *listed(particles)),
    )


def _bad(sample: Sample) -> Iterator[Finding]:
    if lines := sample.quality.describe(listed=20):
        advice = "They are left out or mended here and in all fits; look at them, and remove them if they are junk."
        yield Finding("bad images", "; ".join(lines), advice, NOTE)


def _radius(volume: Tensor) -> float:
    """Return the radius of gyration of a map's positive density, voxels."""
    square = grid(len(volume), 3).double().square().sum(-1)
    density = volume.double().clamp_min(0)
    return float((density * square).sum() / density.sum().clamp_min(1e-300)) ** 0.5


def _directional(
    particles: Particles, sample: Sample, curve: FscCurve, sampling: ViewSampling, seed: int
) -> np.ndarray:
    """Return the resolution in each direction, from half maps on a finer grid if the views are uneven."""
    size = min(particles.box_size, _FINE)
    if sampling.evenness < _EVEN and size > sample.imaging.plane.box_size:
        sample = Sample(particles, len(sample), size, seed)
        curve = sample.agreement(torch.stack([sample.reconstruct(sample.stated(), r) for r, _ in sample.halves()]))
    larger = 2 * len(particles) / len(sample)
    return directional_resolution(curve.correlation, curve.frequency, sampling.directions, sampling.sampling, larger)
