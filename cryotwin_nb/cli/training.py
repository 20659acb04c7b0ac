"""`prepare`, `look`, `train` and `embed` commands: from a particle file to a model and latents."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.reading import (
    add_json,
    add_model,
    add_particles,
    check_outputs,
    load_model,
    particle_files,
    print_result,
    read_particles,
    reading_options,
)
from cryotwin_nb.errors import InputError, extras_explained
from cryotwin_nb.formats.files import atomic, require_suffix
from cryotwin_nb.formats.origins import record_of

DONE, PROBLEMS = 0, 1


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """Add the options of `prepare`."""
    add_particles(parser, skip=("box_size",))
    parser.add_argument("--output", type=Path, required=True, help=".star file to write; the stack goes next to it")
    for option in _preparing():
        option.add_to(parser)
    parser.add_argument("--picture", type=Path, help=".png file for plots of defocus, views and suspicious images")
    parser.set_defaults(whiten=None)  # decided by --for-relion unless --no-whiten is given


def prepare(options: argparse.Namespace) -> int:
    """Write a compact stack of the particles."""
    from cryotwin_nb.preparation import prepare as run
    from cryotwin_nb.preparation.grids import read_on_one_grid

    if options.picture:
        require_suffix(options.picture, ".png")
        with extras_explained():
            from cryotwin_nb.plotting import preparation
    reading = values_of(options, reading_options(skip=("box_size",)))
    particles, _ = read_on_one_grid(particle_files(options), reading)
    if options.picture:
        check_outputs(options, [options.picture], options.picture.parent, particles)
    report = run(particles, options.output, **values_of(options, _preparing()))
    print(report.summary())
    if options.picture:
        with atomic(options.picture) as partial:
            preparation(report).savefig(partial, dpi=120, bbox_inches="tight")
    return DONE


def _preparing() -> list[Option]:
    from cryotwin_nb.preparation import prepare as run

    options = options_of(run, skip=("particles", "output", "progress"))
    return [option._replace(default=True) if option.keyword == "whiten" else option for option in options]


def add_look(parser: argparse.ArgumentParser) -> None:
    """Add the options of `look`."""
    add_particles(parser)
    for option in _looking():
        option.add_to(parser)
    parser.add_argument("--output", type=Path, help="folder for look.png, map.mrc and the two half maps")
    hand = "write and draw the maps in the other hand, mirrored in the plane z = 0 through their centre"
    parser.add_argument("--flip-hand", action="store_true", help=hand)
    parser.add_argument("--paths", action="store_true", help="only list where each stack of the file was found")
    add_json(parser)


def look(options: argparse.Namespace) -> int:
    """Check poses, CTF and contrast; return 1 if there are problems to fix before training."""
    from cryotwin_nb.preparation import first_look

    if options.paths:
        return _list_stacks(options)
    if options.output:
        with extras_explained():
            from cryotwin_nb.plotting import first_look as draw
    particles = read_particles(options)
    if options.output:
        names = ("map.mrc", "half1.mrc", "half2.mrc", "look.png")
        check_outputs(options, [options.output / name for name in names], options.output, particles)
    found = first_look(particles, progress=True, **values_of(options, _looking()))
    reach = found.resolution if math.isfinite(found.resolution) else None
    numbers = {"n_images": found.n_images, "resolution_angstrom": reach, "gain_nats": found.gain}
    numbers |= {"pose_error_degrees": found.pose_error, "shift_error_angstrom": found.shift_error}
    print_result(options, numbers | {"findings": [vars(f) for f in found.findings]}, found.summary())
    if options.output:
        from cryotwin_nb.cli.looking import write_look

        write_look(options.output, found, draw, options.flip_hand)
    return PROBLEMS if found.problems else DONE


def _list_stacks(options: argparse.Namespace) -> int:
    """Print where each stack was found, without reading images; return 1 if one is missing."""
    files = read_particles(options, images=False).files
    lines = [f"{name} -> {'not found' if path is None else path}" for name, path in files.items()]
    print_result(options, {name: None if path is None else str(path) for name, path in files.items()}, "\n".join(lines))
    return PROBLEMS if None in files.values() else DONE


def _looking() -> list[Option]:
    from cryotwin_nb.preparation import first_look

    return options_of(first_look, skip=("particles", "progress"))


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    add_particles(parser)
    files = "folder for model.safetensors, checkpoint.pt and latents.npy"
    parser.add_argument("--output", type=Path, required=True, help=files)
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint, if there is one")
    model, networks, training = model_options(), network_options(), training_options()
    for title, group in {"model": model, "training": training}.items():
        section = parser.add_argument_group(title)
        for option in group:
            option.add_to(section)
    for title, group in networks.items():
        section = parser.add_argument_group(f"{title} architecture")
        for option in group:
            if option.keyword not in _shared(networks) or title == "subspace":
                option._replace(default=None).add_to(section)


def model_options() -> list[Option]:
    """Return the keywords of `CryoTwin` as options, except the box size and architecture-specific keywords."""
    from cryotwin_nb.models.cryotwin import CryoTwin

    return options_of(CryoTwin, skip=("box_size", "options"))


def network_options() -> dict[str, list[Option]]:
    """Return the options of each architecture."""
    from cryotwin_nb.models.networks import CoordinateOptions, SubspaceOptions

    spelled = {"contrast": "fit_contrast"}  # --contrast already sets the contrast of the recorded images
    return {
        kind.architecture: [o._replace(spelled=spelled.get(o.keyword, "")) for o in options_of(kind)]
        for kind in (SubspaceOptions, CoordinateOptions)
    }


def training_options() -> list[Option]:
    """Return the keywords of `TrainingConfig` as options, except the seed, which is shared with the model."""
    from cryotwin_nb.training.config import TrainingConfig

    return options_of(TrainingConfig, skip=("seed",))


def _shared(networks: dict[str, list[Option]]) -> set[str]:
    first, second = ({option.keyword for option in group} for group in networks.values())
    return first & second


def train(options: argparse.Namespace) -> int:
    """Train a model, in a single process or in several processes started by torchrun."""
    from cryotwin_nb.runtime import distributed

    with distributed.joined(options.device):
        _train(options, is_main=distributed.rank() == 0)
    return DONE


def _train(options: argparse.Namespace, is_main: bool) -> None:
    """Train a model; only the main process prints and writes."""
    from cryotwin_nb.exchange.latents_record import save_latents
    from cryotwin_nb.formats.sets import file_set
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.models.storage import fingerprint
    from cryotwin_nb.runtime import distributed
    from cryotwin_nb.training import TrainingConfig, fit

    particles = read_particles(options)
    checkpoint = options.checkpoint or options.output / "checkpoint.pt"
    model_file, latents_file = options.output / "model.safetensors", options.output / "latents.npy"
    if is_main:
        print(particles.summary())
        outputs = [checkpoint, model_file, latents_file, record_of(latents_file)]
        check_outputs(options, outputs, options.output, particles)
    settings = values_of(options, model_options()) | _given(options)
    model = CryoTwin(particles.box_size, **settings)
    values = values_of(options, training_options()) | {"checkpoint": checkpoint}
    resumes = distributed.first(lambda: options.resume and checkpoint.exists())
    fit(model, particles, TrainingConfig(seed=options.seed, **values), resume=checkpoint if resumes else None)
    latents = model.embed(particles, progress=True)
    if is_main:
        with file_set(options.output):
            model.save(model_file)
            save_latents(latents_file, latents, particles, fingerprint(model.state_dict()), model_file)
        print(f"{options.output}: {model.prior.n_components} components in {model.config['latent_dim']} dimensions")


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the given options of the chosen architecture; refuse options of the other architecture."""
    networks = network_options()
    own = {option.keyword for option in networks[options.architecture]}
    given = {}
    for option in (option for group in networks.values() for option in group):
        value = getattr(options, option.target)
        if value is None or value is False:
            continue
        if option.keyword not in own:
            sentence = f"{option.flag} does not belong to the {options.architecture} architecture."
            raise InputError(option.flag, f"{value}", "an option of this architecture", "Remove this option.", sentence)
        given[option.keyword] = value
    return given


def add_embed(parser: argparse.ArgumentParser) -> None:
    """Add the options of `embed`."""
    add_model(parser)
    add_particles(parser)
    parser.add_argument("--output", type=Path, required=True, help=".npy file for the latents (n, d)")
    for option in _embedding():
        option.add_to(parser)


def embed(options: argparse.Namespace) -> int:
    """Embed particles with a model and write their latents."""
    from cryotwin_nb.exchange.latents_record import save_latents
    from cryotwin_nb.models.storage import fingerprint

    output = require_suffix(options.output, ".npy")
    model, particles = load_model(options), read_particles(options)
    check_outputs(options, [output, record_of(output)], output.parent, particles)
    z = model.embed(particles, progress=True, **values_of(options, _embedding()))
    save_latents(output, z, particles, fingerprint(model.state_dict()), options.model)
    return DONE


def _embedding() -> list[Option]:
    from cryotwin_nb.models.cryotwin import CryoTwin

    return options_of(CryoTwin.embed, skip=("particles", "progress"))
