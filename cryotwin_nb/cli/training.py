"""`train` and `embed` commands: from a particle file to a model and latents."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.reading import (
    add_model,
    add_particles,
    check_outputs,
    contrasts_of,
    load_model,
    read_particles,
)
from cryotwin_nb.cli.writing import REPLACED, add_wait, add_writing, owned
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import require_suffix
from cryotwin_nb.formats.origins import record_of

if TYPE_CHECKING:
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.particles.particles import Particles

DONE = 0


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    add_particles(parser)
    files = "folder for model.safetensors, checkpoint.pt and latents.npy"
    parser.add_argument("--output", type=Path, required=True, help=files)
    before = parser.add_mutually_exclusive_group()
    before.add_argument("--resume", action="store_true", help="resume from the checkpoint, if there is one")
    before.add_argument("--overwrite", action="store_true", help=REPLACED)
    add_wait(parser)
    silent = "under torchrun, minutes after which a process is given up that sends no heartbeat (default: 10)"
    parser.add_argument("--patience", type=float, default=10.0, metavar="MINUTES", help=silent)
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
        if title == "subspace":
            fixed = "do not fit contrasts, even if they vary"
            section.add_argument(
                "--no-fit-contrast", dest="fit_contrast", action="store_false", default=None, help=fixed
            )


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

    with distributed.joined(options.device, options.patience), ExitStack() as held:
        if is_main := distributed.rank() == 0:
            files = [_checkpoint(options), *_results(options.output)]
            earlier = [*files, _unfinished(files[0])]
            held.enter_context(owned(options, files, earlier=earlier, keeps=options.resume))
        distributed.first(lambda: None)  # the others wait for the first process to hold the locks
        _train(options, is_main)
    return DONE


def _checkpoint(options: argparse.Namespace) -> Path:
    return options.checkpoint or options.output / "checkpoint.pt"


def _results(folder: Path) -> tuple[Path, Path]:
    return folder / "model.safetensors", folder / "latents.npy"


def _unfinished(checkpoint: Path) -> Path:
    """Return the checkpoint of a run that replaces an earlier one: it gets its final name at the end."""
    return checkpoint.with_name(f"{checkpoint.stem}.unfinished{checkpoint.suffix}")


def _started(options: argparse.Namespace) -> tuple[Path, bool]:
    """Return the checkpoint that this run writes, and whether it resumes from it."""
    checkpoint = _checkpoint(options)
    unfinished = _unfinished(checkpoint)
    if (options.overwrite and checkpoint.exists()) or (options.resume and unfinished.exists()):
        checkpoint = unfinished
    return checkpoint, options.resume and checkpoint.exists()


def _train(options: argparse.Namespace, is_main: bool) -> None:
    """Train a model; only the main process prints and writes."""
    from cryotwin_nb.exchange.latents_record import save_latents
    from cryotwin_nb.formats.sets import file_set
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.models.storage import fingerprint
    from cryotwin_nb.runtime import distributed
    from cryotwin_nb.training import TrainingConfig, fit

    particles = read_particles(options)
    checkpoint, resumes = distributed.first(lambda: _started(options))
    model_file, latents_file = _results(options.output)
    if is_main:
        print(particles.summary())
        outputs = [checkpoint, _checkpoint(options), model_file, latents_file, record_of(latents_file)]
        check_outputs(options, outputs, options.output, particles)
    settings = values_of(options, model_options()) | _given(options)
    model = CryoTwin(particles.box_size, **settings)
    values = values_of(options, training_options()) | {"checkpoint": checkpoint}
    fit(model, particles, TrainingConfig(seed=options.seed, **values), resume=checkpoint if resumes else None)
    latents = model.embed(particles, progress=True)
    if is_main:
        contrasts = contrasts_of(model, particles)
        judged = _judged(model, particles)
        with file_set(options.output):
            model.save(model_file)
            save_latents(latents_file, latents, particles, fingerprint(model.state_dict()), model_file, contrasts)
        if checkpoint != _checkpoint(options):
            os.replace(checkpoint, _checkpoint(options))
        if contrasts is not None and (means := contrasts.of_groups(particles.optics_group)):
            shown = ", ".join(f"{mean:.2f} in group {group}" for group, mean in means.items())
            print(f"The mean contrast differs between optics groups: {shown}. It is fitted for each image.")
        print(
            f"{options.output}: {model.prior.n_components} components in {model.latent_dim} dimensions",
            *judged,
            sep="\n",
        )


def _judged(model: CryoTwin, particles: Particles) -> list[str]:
    """Record in the model which states look like junk; return lines about them and about junk images, if any."""
    from cryotwin_nb.evaluation import outlier_scores

    if len(particles) < 2:
        return []
    scores = outlier_scores(model, particles, progress=True)
    model.history.junk = scores.junk_components
    lines = scores.describe()
    return [*lines[1:], "to leave them out: `cryotwin select --good`, and train again"] if lines[1:] else []


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the given options of the chosen architecture; refuse options of the other architecture."""
    networks = network_options()
    own = {option.keyword for option in networks[options.architecture]}
    given = {}
    for option in (option for group in networks.values() for option in group):
        value = getattr(options, option.target)
        if value is None:
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
    add_writing(parser)
    for option in _embedding():
        option.add_to(parser)


def embed(options: argparse.Namespace) -> int:
    """Embed particles with a model and write their latents."""
    output = require_suffix(options.output, ".npy")
    with owned(options, [output, record_of(output)], earlier=[output], locked=[output]):
        return _embed(options, output)


def _embed(options: argparse.Namespace, output: Path) -> int:
    from cryotwin_nb.exchange.latents_record import save_latents
    from cryotwin_nb.models.storage import fingerprint

    model, particles = load_model(options), read_particles(options)
    check_outputs(options, [output, record_of(output)], output.parent, particles)
    z = model.embed(particles, progress=True, **values_of(options, _embedding()))
    weights, contrasts = fingerprint(model.state_dict()), contrasts_of(model, particles)
    save_latents(output, z, particles, weights, options.model, contrasts)
    return DONE


def _embedding() -> list[Option]:
    from cryotwin_nb.models.cryotwin import CryoTwin

    return options_of(CryoTwin.embed, skip=("particles", "progress"))
