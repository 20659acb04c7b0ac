"""Options shared by several commands: reading particles and models, and choosing states."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotwin_nb.cli.options import Option, documented, options_of, values_of
from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.formats.files import require_writable

if TYPE_CHECKING:
    from cryotwin_nb.mixture.gaussian import GaussianMixture
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.models.records import ImageContrasts
    from cryotwin_nb.particles.particles import Particles
    from cryotwin_nb.pathways import State

LATENTS = "latents of these particles: latents.npy, cryoDRGN's z.pkl or 3D Variability's .cs; by default, embed them"


def reading_options(skip: tuple[str, ...] = ()) -> list[Option]:
    """Return the keywords of `Particles.read`, except the file itself, as options."""
    from cryotwin_nb.particles.particles import Particles

    return options_of(Particles.read, skip=("path", "images", *skip))


def add_particles(parser: argparse.ArgumentParser, skip: tuple[str, ...] = ()) -> None:
    """Add the argument for the particle file and the options for reading it."""
    from cryotwin_nb.particles.particles import Particles

    parser.add_argument("particles", type=Path, nargs="+", help=documented(Particles.read)["path"][0])
    group = parser.add_argument_group("reading the particles")
    for option in reading_options(skip):
        option.add_to(group)


def read_particles(options: argparse.Namespace, images: bool = True, skip: tuple[str, ...] = ()) -> Particles:
    """Read the particles specified by the options."""
    from cryotwin_nb.particles.particles import Particles

    return Particles.read(particle_files(options), **values_of(options, reading_options(skip)), images=images)


def particle_files(options: argparse.Namespace) -> Path | list[Path]:
    """Return the particle file given as an argument, or the list of several."""
    return options.particles if len(options.particles) > 1 else options.particles[0]


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for the trained model and the compute device."""
    parser.add_argument("model", type=Path, help="trained model (.safetensors), or a checkpoint (.pt)")
    parser.add_argument("--device", default="cpu", help="PyTorch device, such as cpu or cuda (default: cpu)")


def contrasts_of(model: CryoTwin, particles: Particles) -> ImageContrasts | None:
    """Return the contrasts of images; None if the model has found that they do not vary, or does not fit them."""
    varying = model.networks.makes_records and float(model.networks.contrast_spread) > 0
    return model.contrasts(particles, progress=True) if varying else None


def load_model(options: argparse.Namespace) -> CryoTwin:
    """Load the model specified by the options."""
    from cryotwin_nb.models.cryotwin import CryoTwin

    return CryoTwin.load(options.model, options.device)


_OUTPUTS = ("output", "picture", "checkpoint")


def check_outputs(
    options: argparse.Namespace,
    outputs: Iterable[Path],
    folder: Path,
    particles: Particles | None = None,
    inputs: Iterable[Path] = (),
) -> None:
    """Refuse outputs that are inputs or the user's own records, and check that `folder` is writable, before any work.

    The inputs are all paths among the options, those that the particles come from, and `inputs`.
    """
    from cryotwin_nb.formats.origins import record_of
    from cryotwin_nb.formats.outputs import refuse_inputs
    from cryotwin_nb.particles.writing import inputs_of, refuse_foreign_records

    outputs = list(outputs)
    given = [value for name, value in vars(options).items() if name not in _OUTPUTS]
    named = [path for value in given for path in (value if isinstance(value, list) else [value])]
    paths = [path for path in named if isinstance(path, Path)]
    read = [] if particles is None else inputs_of(particles)
    refuse_inputs(outputs, [*paths, *map(record_of, paths), *read, *inputs])
    refuse_foreign_records(outputs)
    require_writable(folder)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for scripts")


def print_result(options: argparse.Namespace, result: Any, text: str) -> None:
    """Print a result as JSON if requested, otherwise as text."""
    print(json.dumps(result, indent=1) if options.json else text)


def require_own_latents(path: Path, model: CryoTwin, model_file: Path) -> None:
    """Raise `InputError` if a file of latents was changed since it was written, or belongs to another model."""
    from cryotwin_nb.exchange.latents_record import require_latents_of
    from cryotwin_nb.models.storage import fingerprint

    require_latents_of(path, fingerprint(model.state_dict()), model_file)


def read_points(path: Path) -> np.ndarray:
    """Read latents (n, d) from a file as float64; see `read_latents`."""
    from cryotwin_nb.exchange import read_latents
    from cryotwin_nb.exchange.export import require_listed

    values = read_latents(path).double().numpy()
    require_listed(path)
    return values


def counts_of(options: argparse.Namespace, model: CryoTwin, states: Sequence[State]) -> list[dict[str, int]]:
    """Return the number of particles in each state, and of those set aside in training; nothing without latents."""
    from cryotwin_nb.exchange import select_state
    from cryotwin_nb.exchange.latents_record import recorded_status

    if options.latents is None:
        return []
    require_own_latents(options.latents, model, options.model)
    z = read_points(options.latents)
    aside = recorded_status(options.latents, len(z)) == "set aside"
    members = [select_state(z, model.prior, state) for state in states]
    return [{"particles": len(rows), "set_aside": int(aside[rows].sum())} for rows in members]


def components_of(prior: GaussianMixture, name: str, labels: Path | None, where: str) -> list[int]:
    """Return the components that a state name, index or label refers to, in order of decreasing weight.

    Raises
    ------
    InputError
        If there is no such state, component or label.
    """
    from cryotwin_nb.evaluation import read_labels
    from cryotwin_nb.pathways import find_states

    if labels is not None:
        names = read_labels(labels, prior)
        known = {label: [c for c in names if names[c] == label] for label in names.values()}
    else:
        known = {state.name: list(state.components) for state in find_states(prior)}
        known |= {str(c): [c] for c in range(prior.n_components)}
    if name not in known:
        named = [label for label in known if not label.isdigit()]
        numbers = "" if labels is not None else f", or a component from 0 to {prior.n_components - 1}"
        expected = f"one of {', '.join(named)}{numbers}"
        raise InputError(where, repr(name), expected, "Run `cryotwin states MODEL` to list them.")
    return sorted(known[name], key=lambda c: -float(prior.weights[c]))


def ends_of(model: CryoTwin, options: argparse.Namespace) -> tuple[int, int]:
    """Return the component with the largest weight of each of the two states given as --start and --end.

    A note names an end that looks like junk.
    """
    if options.start is None or options.end is None:
        remedy = "Pass --start and --end; run `cryotwin states MODEL` to list the states."
        sentence = "A path requires two ends."
        raise InputError("--start, --end", "a missing start or end", "two states or components", remedy, sentence)
    names = options.start, options.end
    start, end = (components_of(model.prior, name, None, f"--{w}")[0] for name, w in zip(names, ("start", "end")))
    if junk := [name for name, c in zip(names, (start, end), strict=True) if c in model.history.junk]:
        warn_user(f"{' and '.join(junk)} looks like junk: `cryotwin states MODEL` lists the states.")
    return start, end


def add_ends(parser: argparse.ArgumentParser) -> None:
    """Add the options for the two ends of a path."""
    named = "a state such as S1 (its component with the largest weight is used) or a component index"
    parser.add_argument("--start", help=f"start of the path: {named}")
    parser.add_argument("--end", help=f"end of the path: {named}")
