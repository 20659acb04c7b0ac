"""Images for counting along paths, as options of `pathway` and `routes`, and the barriers measured with them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cryotwin_nb.cli.options import values_of
from cryotwin_nb.cli.reading import read_points, reading_options, require_own_latents

if TYPE_CHECKING:
    from cryotwin_nb.mixture.gaussian import GaussianMixture
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.particles.particles import Particles
    from cryotwin_nb.pathways import MeasuredBarrier
    from cryotwin_nb.pathways.ridgeline import Pathway

_SKIPPED = ("box_size",)  # also an option of `write_pathway`


class Images(NamedTuple):
    """Images given on the command line: latents or likelihood, groups, and the particles that they belong to."""

    latents: Any = None
    groups: np.ndarray | None = None
    particles: Particles | None = None

    def barrier_of(self, path: Pathway, prior: GaussianMixture) -> MeasuredBarrier:
        """Return the barrier of a path from these images or, without images, from the mixture."""
        from cryotwin_nb.pathways import measure_barrier

        return measure_barrier(path, self.latents, prior=prior, groups=self.groups)


def add_images(parser: argparse.ArgumentParser, uses: str) -> None:
    """Add the options for images or their latents; `uses` completes their help."""
    particles = f"particles whose images {uses}; with --latents: only to draw the copies of an image together"
    parser.add_argument("--particles", type=Path, help=particles)
    latents = f"latents (.npy, .pkl, .cs, .txt) that {uses}, instead of the images"
    parser.add_argument("--latents", type=Path, help=latents)
    group = parser.add_argument_group("reading the particles")
    for option in reading_options(_SKIPPED):
        option.add_to(group)


def images_of(options: argparse.Namespace, model: CryoTwin, check: Callable[[Any], None]) -> Images:
    """Return the images given by --particles or --latents; `check` is called with the particles before any work."""
    from cryotwin_nb.particles.particles import Particles

    particles: Particles | None = None
    latents: Any = None
    if options.particles is not None:
        reading = values_of(options, reading_options(_SKIPPED))
        particles = Particles.read(options.particles, **reading, images=options.latents is None)
    check(particles)
    if options.latents is not None:
        require_own_latents(options.latents, model, options.model)
        latents = read_points(options.latents)
    elif particles is not None:
        latents = model.likelihood(particles, progress=True)
    return Images(latents, None if particles is None else particles.identity, particles)


def advice(barrier: MeasuredBarrier, options: argparse.Namespace) -> str:
    """Return what to do about a path that no image supports; empty if nothing needs to be done."""
    if barrier.gap is not None:
        other = "other ends" if getattr(options, "method", "max_flux") == "max_flux" else "--method max_flux"
        return f"part of the path {'may hold' if barrier.n_in_gap else 'holds'} no image. Try {other}."
    if not barrier.counted and barrier.value > 5:
        return "no images were counted. Pass --particles or --latents to count those on the path."
    return ""
