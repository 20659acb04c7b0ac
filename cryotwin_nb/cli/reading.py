"""Options shared by several commands: reading particles and models, and choosing states."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotwin_nb.cli.options import Option, documented, options_of, values_of
from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.formats.files import atomic

if TYPE_CHECKING:
    from torch import Tensor

    from cryotwin_nb.mixture.gaussian import GaussianMixture
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.particles.particles import Particles


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


def load_model(options: argparse.Namespace) -> CryoTwin:
    """Load the model specified by the options."""
    from cryotwin_nb.models.cryotwin import CryoTwin

    return CryoTwin.load(options.model, options.device)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for scripts")


def print_result(options: argparse.Namespace, result: Any, text: str) -> None:
    """Print a result as JSON if requested, otherwise as text."""
    print(json.dumps(result, indent=1) if options.json else text)


def save_latents(path: Path, latents: Tensor, particles: Particles) -> None:
    """Write latents to a .npy file, completely or not at all, and record beside it which particles they belong to."""
    from cryotwin_nb.formats.origins import chain_of, written

    chain = chain_of(particles.source, particles.source_rows)
    with atomic(path) as partial, open(partial, "wb") as file:
        np.save(file, latents.numpy())
    written(path, chain)


def latents_of(particles: Particles, path: Path) -> tuple[Particles, np.ndarray]:
    """Return the particles that a file of latents holds, and their latents (n, d) float64 in the same order.

    Raises
    ------
    InputError
        If the latents belong to other particles, or to the particles in another order.
    """
    from cryotwin_nb.formats.origins import align, chain_of, load, record_of

    z, record = read_points(path), record_of(path)
    if not record.is_file():
        if len(z) != len(particles):
            remedy = "Pass the latents of the same particles, in the same order."
            raise InputError(path, f"{len(z)} latents", f"{len(particles)}, one for each particle", remedy)
        warn_user(f"{path}: no record of the particles ({record.name}); only their number was compared.")
        return particles, z
    recorded = load(record, path.parent)
    if len(z) != len(recorded[0].rows):
        found, expected = f"{len(z)} latents", f"{len(recorded[0].rows)}, as recorded in {record.name}"
        raise InputError(path, found, expected, "Embed the particles again, or delete the record.")
    common = align(chain_of(particles.source, particles.source_rows), recorded)
    if common is None:
        names = " or ".join(dict.fromkeys(str(link.source) for link in recorded))
        sentence = f"The latents in {path} do not belong to the rows of {particles.where}, or not in this order."
        found, remedy = "latents of other particles", f"Pass the particles that were embedded: {names}."
        raise InputError(path, found, f"latents of {particles.where}", remedy, sentence)
    return particles[common[0]], z[common[1]]


def read_points(path: Path) -> np.ndarray:
    """Read latents (n, d) from a .npy file as float64.

    Raises
    ------
    InputError
        If the file does not contain such an array.
    """
    try:
        return np.array(np.load(path, mmap_mode="r"), dtype=np.float64)
    except (OSError, ValueError, TypeError, EOFError) as error:
        expected, remedy = "an array (n, d) of numbers", "Pass a latents.npy file written by `cryotwin`."
        sentence = f"{path} cannot be read as {expected}: {error}."
        raise InputError(path, f"no readable array ({error})", expected, remedy, sentence) from error


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


def ends_of(prior: GaussianMixture, options: argparse.Namespace) -> tuple[int, int]:
    """Return the component with the largest weight of each of the two states given as --start and --end."""
    if options.start is None or options.end is None:
        remedy = "Pass --start and --end; run `cryotwin states MODEL` to list the states."
        sentence = "A path requires two ends."
        raise InputError("--start, --end", "a missing start or end", "two states or components", remedy, sentence)
    start, end = (components_of(prior, getattr(options, name), None, f"--{name}")[0] for name in ("start", "end"))
    return start, end


def add_ends(parser: argparse.ArgumentParser) -> None:
    """Add the options for the two ends of a path."""
    named = "a state such as S1 (its component with the largest weight is used) or a component index"
    parser.add_argument("--start", help=f"start of the path: {named}")
    parser.add_argument("--end", help=f"end of the path: {named}")
