"""`select` command: write the particles that belong to a state or lie near a path, for use in other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from cryotwin_nb.cli.options import Option, options_of
from cryotwin_nb.cli.reading import add_model, add_particles, components_of, load_model, read_particles, read_points
from cryotwin_nb.errors import InputError

DONE = 0


def add_select(parser: argparse.ArgumentParser) -> None:
    """Add the options of `select`."""
    add_model(parser)
    add_particles(parser)
    parser.add_argument("--latents", type=Path, help="latents.npy of these particles; by default, embed them")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--state", help="a state (S1 is the largest), a component index, or a label from --labels")
    which.add_argument("--near", type=Path, help=".npy file of points, such as the latents.npy of a pathway")
    parser.add_argument("--labels", type=Path, help=".json file of component labels")
    for option in _selecting():
        option.add_to(parser)
    parser.add_argument("--output", type=Path, required=True, help="output: .star, .cs, or .pkl for cryoDRGN's --ind")


def _selecting() -> list[Option]:
    from cryotwin_nb.exchange import select_near, select_state

    return options_of(select_near, skip=("z", "points")) + options_of(select_state, skip=("z", "prior", "state"))


def select(options: argparse.Namespace) -> int:
    """Write the particles that belong to a state or lie near a path."""
    from cryotwin_nb.exchange import select_near, select_state, write_selection

    model = load_model(options)
    particles = read_particles(options, images=options.latents is None)
    if options.latents is None and particles.box_size != model.config["box_size"]:
        found, expected = f"images of {particles.box_size} pixels", f"the model's {model.config['box_size']} pixels"
        remedy = "Pass the latents of these particles with --latents: a latents.npy file written by `cryotwin`."
        raise InputError(options.particles[0], found, expected, remedy)
    z = model.embed(particles, progress=True) if options.latents is None else read_points(options.latents)
    if len(z) != len(particles):
        remedy = "Pass the latents of the same particles, in the same order."
        raise InputError(options.latents, f"{len(z)} latents", f"{len(particles)}, one for each particle", remedy)
    if options.near is not None:
        rows = select_near(z, read_points(options.near), n=options.n, radius=options.radius)
    else:
        chosen = components_of(model.prior, options.state, options.labels, "--state")
        rows = select_state(z, model.prior, chosen, options.least)
    write_selection(options.output, particles, rows)
    print(f"{options.output}: {len(rows)} of {len(particles)} particles")
    return DONE
