"""`support` command: which maps of a path the images support."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.reading import (
    LATENTS,
    add_json,
    add_model,
    add_particles,
    check_outputs,
    load_model,
    print_result,
    read_particles,
    read_points,
    require_own_latents,
)
from cryotwin_nb.cli.writing import add_writing, owned
from cryotwin_nb.formats.files import require_suffix

DONE = 0


def add_support(parser: argparse.ArgumentParser) -> None:
    """Add the options of `support`."""
    add_model(parser)
    add_particles(parser)
    path = "folder written by `pathway`, or a .npy file of points (m, d)"
    parser.add_argument("--path", type=Path, required=True, help=path)
    parser.add_argument("--latents", type=Path, help=LATENTS)
    parser.add_argument("--output", type=Path, help=".json file for the resolution and number of images at each point")
    add_writing(parser)
    for option in _support_options():
        option.add_to(parser)
    add_json(parser)


def _support_options() -> list[Option]:
    from cryotwin_nb.evaluation import pathway_support

    skip = ("model", "particles", "path", "maps", "latents", "imaging", "halves", "blocks", "progress")
    return options_of(pathway_support, skip=skip)


def support(options: argparse.Namespace) -> int:
    """Compare the decoded maps of a path with maps reconstructed from nearby images."""
    if not options.output:
        return _support(options)
    with owned(options, [require_suffix(options.output, ".json")]):
        return _support(options)


def _support(options: argparse.Namespace) -> int:
    from cryotwin_nb.evaluation import pathway_support
    from cryotwin_nb.exchange.export import written_earlier
    from cryotwin_nb.exchange.latents import latents_of
    from cryotwin_nb.formats.files import atomic

    model, particles = load_model(options), read_particles(options)
    if options.output:
        inputs = written_earlier(options.path)
        check_outputs(options, [options.output], options.output.parent, particles, inputs)
    points = read_points(options.path / "latents.npy" if options.path.is_dir() else options.path)
    latents = None
    if options.latents is not None:
        require_own_latents(options.latents, model, options.model)
        particles, latents = latents_of(particles, options.latents)
    given = values_of(options, _support_options())
    found = pathway_support(model, particles, points.astype(np.float32), latents=latents, progress=True, **given)
    listed = [
        {
            "effective_images": float(n),
            "resolution_angstrom": float(resolution) if math.isfinite(resolution) else None,
            "reasons": found.reasons(point),
            "undecided": point in found.undecided,
        }
        for point, (n, resolution) in enumerate(zip(found.n_effective, found.resolution, strict=True))
    ]
    print_result(options, {"points": listed}, found.summary())
    if options.output:
        with atomic(options.output) as partial:
            partial.write_text(json.dumps({"points": listed}, indent=1))
    return DONE
