"""`select` command: write the particles that belong to a state or lie near a path, for use in other programs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.reading import (
    LATENTS,
    add_model,
    add_particles,
    check_outputs,
    components_of,
    contrasts_of,
    load_model,
    read_particles,
    read_points,
    require_own_latents,
)
from cryotwin_nb.cli.writing import add_writing, owned
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import require_suffix

DONE = 0
_OF_STATE = re.compile(r"(S\d+|states)\.(star|cs)")


def add_select(parser: argparse.ArgumentParser) -> None:
    """Add the options of `select`."""
    add_model(parser)
    add_particles(parser)
    parser.add_argument("--latents", type=Path, help=LATENTS)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--state", help="a state (S1 is the largest), a component index, or a label from --labels")
    which.add_argument("--good", action="store_true", help="all particles that do not look like junk; needs the images")
    which.add_argument("--near", type=Path, help=".npy file of points, such as the latents.npy of a pathway")
    every = "all states: --output is a folder that receives one file for each state, and states.star with class numbers"
    which.add_argument("--all-states", action="store_true", help=every)
    parser.add_argument("--labels", type=Path, help=".json file of component labels")
    for option in (*_selecting(), *_writing()):
        option.add_to(parser)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="output: .star, .cs, or .pkl for cryoDRGN's --ind; with --all-states, a folder",
    )
    add_writing(parser)


def _selecting() -> list[Option]:
    from cryotwin_nb.exchange import select_near, select_state

    return options_of(select_near, skip=("z", "points")) + options_of(select_state, skip=("z", "prior", "state"))


def _writing() -> list[Option]:
    from cryotwin_nb.exchange import write_selection

    return options_of(write_selection, skip=("path", "particles", "rows", "columns", "run"))


def select(options: argparse.Namespace) -> int:
    """Write the particles that belong to a state or lie near a path."""
    if options.all_states:
        earlier = [file for file in options.output.glob("*") if _OF_STATE.fullmatch(file.name)]
        with owned(options, [options.output / "states.star"], earlier=earlier):
            return _select(options)
    with owned(options, [require_suffix(options.output, ".star", ".cs", ".pkl")]):
        return _select(options)


def _select(options: argparse.Namespace) -> int:
    from cryotwin_nb.evaluation import outlier_scores
    from cryotwin_nb.exchange import select_near, select_state, write_selection, write_states
    from cryotwin_nb.exchange.latents import matched
    from cryotwin_nb.exchange.latents_record import recorded_contrasts, recorded_status
    from cryotwin_nb.exchange.listing import listed_rows
    from cryotwin_nb.formats.origins import origin_of, record_of
    from cryotwin_nb.particles import image_quality
    from cryotwin_nb.pathways import find_states

    if options.good and options.latents is not None:
        raise InputError("--good", "--latents", "images", "Omit --latents: junk is found in the images.")
    model = load_model(options)
    particles = read_particles(options, images=options.latents is None)
    output = options.output
    if options.all_states:
        earlier = [file for name in ("S[0-9]*", "states.*") for file in output.glob(name)]
        check_outputs(options, earlier, output, particles)
    else:
        listed_rows(output, particles, particles.source_rows, options.original)
        check_outputs(options, [output, record_of(output)], output.parent, particles)
    if options.latents is None and particles.box_size != model.config["box_size"]:
        found, expected = f"images of {particles.box_size} pixels", f"the model's {model.config['box_size']} pixels"
        remedy = "Pass the latents of these particles with --latents: a latents.npy file written by `cryotwin`."
        raise InputError(options.particles[0], found, expected, remedy)
    if options.latents is None:
        z: Any = model.embed(particles, progress=True)
        status, contrasts = image_quality(particles).status, contrasts_of(model, particles)
        fitted = None if contrasts is None else np.stack([part.numpy() for part in contrasts])
    else:
        require_own_latents(options.latents, model, options.model)
        particles, places, points = matched(particles, options.latents)
        z, status = points[places], recorded_status(options.latents, len(points))[places]
        fitted = recorded_contrasts(options.latents, len(points))
        fitted = None if fitted is None else fitted[:, places]
    if options.all_states:
        _tell(status)
        added = {"flip_hand": options.flip_hand, "columns": _columns(status, fitted)}
        states = find_states(model.prior, junk=model.history.junk)
        marked = {state.name for state in states if state.junk}
        for path in write_states(output, particles, z, model.prior, states, least=options.least, **added):
            print(f"{path}  looks like junk" if path.stem in marked else path)
        return DONE
    scores = None
    if options.good:
        scores = outlier_scores(model, particles, progress=True)
        rows = scores.kept
        print(*scores.describe(), sep="\n")
    elif options.near is not None:
        rows = select_near(z, read_points(options.near), n=options.n, radius=options.radius)
    else:
        chosen = components_of(model.prior, options.state, options.labels, "--state")
        rows = select_state(z, model.prior, chosen, options.least)
    of_rows = None if fitted is None else fitted[:, rows]
    columns = _columns(status[rows], of_rows) | ({} if scores is None else {"outlier_score": scores.score[rows]})
    columns = {} if output.suffix.lower() == ".pkl" else columns
    write_selection(output, particles, rows, columns, **values_of(options, _writing()))
    _tell(status[rows])
    source = origin_of(output) or options.particles[0]
    print(f"{output}: {len(rows)} of {len(particles)} particles, rows of {source}")
    return DONE


def _columns(status: np.ndarray, contrasts: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return columns of image statuses, if one is not good, and of contrasts (2, k) and their errors, if they vary.

    There are no other columns, because RELION warns of those that it does not know.
    """
    columns = {"image_status": status} if (status != "good").any() else {}
    return columns if contrasts is None else columns | {"contrast": contrasts[0], "contrast_error": contrasts[1]}


def _tell(status: np.ndarray) -> None:
    if aside := int((status == "set aside").sum()):
        print(f"{aside} of {len(status)} images are set aside, as unlike the others (image_status)")
