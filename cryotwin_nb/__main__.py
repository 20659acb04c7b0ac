"""Command line for batch queues: python -m cryotwin_nb prepare | look | train | embed | pathway | select | demo."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

import numpy as np
from torch import Tensor

from cryotwin_nb.errors import InputError, MissingExtraError
from cryotwin_nb.formats.files import atomic, make_folder, remove_partials

_SEVERAL_PROCESSES = """Several GPUs or processors share the work: torchrun --standalone --nproc-per-node 4
 -m cryotwin_nb train ...; several machines, from a queue: examples/train.slurm."""


_HIGH = 15.0  # nats; a path whose barrier is higher is said to pass where there are no images


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Mistakes in the input are told in one line, without a traceback."""
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note  # type: ignore[assignment]
            options.run(options)
    except (InputError, MissingExtraError, FloatingPointError, OSError, MemoryError) as error:
        number = os.environ.get("RANK", "0")  # of several processes, as torchrun counts them
        print(f"error{f' in process {number}' if number != '0' else ''}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; a training goes on with: train --resume, a preparation with the same command", file=sys.stderr)
        return 130
    return 0


def _note(message: Warning | str, *_: object) -> None:
    """A choice made on the user's behalf, told without the place in the code, and once."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cryotwin_nb",
        description="Latent spaces and conformational pathways from single-particle images with known poses.",
        epilog="A first run: python -m cryotwin_nb demo --output results/demo",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (
        _prepare_options,
        _look_options,
        _train_options,
        _embed_options,
        _pathway_options,
        _select_options,
        _demo_options,
    ):
        add(commands)
    return parser


def _prepare_options(commands) -> None:
    prepare = commands.add_parser("prepare", help="a compact stack on a coarser grid", formatter_class=_Help)
    _particle_options(prepare)
    prepare.add_argument("--output", type=Path, required=True, help=".star file; the stack goes beside it")
    prepare.add_argument("--dtype", choices=["float16", "float32"], default="float16", help="of the stack")
    prepare.add_argument("--no-whitening", action="store_true", help="keep the spectrum of the noise as it is")
    prepare.add_argument("--workers", type=int, help="threads (default: one for each processor)")
    prepare.add_argument("--no-resume", action="store_true", help="begin anew instead of going on")
    prepare.add_argument("--picture", type=Path, help=".png file for what is remarkable about the particles")
    prepare.set_defaults(run=_prepare)


def _look_options(commands) -> None:
    look = commands.add_parser("look", help="are poses, CTF and contrast right? and a first map", formatter_class=_Help)
    _particle_options(look)
    look.add_argument("--images", type=int, default=2000, help="look at no more than this many")
    look.add_argument("--seed", type=int, default=0, help="of their choice")
    look.add_argument("--output", type=Path, help="folder for look.png, map.mrc and the half maps")
    look.set_defaults(run=_look)


def _train_options(commands) -> None:
    train = commands.add_parser(
        "train", help="train a model on particle images", formatter_class=_Help, epilog=_SEVERAL_PROCESSES
    )
    _particle_options(train)
    train.add_argument(
        "--output", type=Path, required=True, help="folder for model.safetensors, checkpoint.pt and latents.npy"
    )
    _architecture_option(train)
    train.add_argument("--latent-dim", type=int, default=8, help="d, dimensions of the latent space (paper: 8)")
    train.add_argument("--components", type=int, default=100, help="C, at most this many Gaussians (paper: 100)")
    basis = "subspace: directions of variation (default: d, or 12 where d is below 5)"
    train.add_argument("--n-basis", type=int, help=basis)
    train.add_argument("--fit-contrast", action="store_true", help="subspace: estimate a contrast for each image")
    train.add_argument("--noise-width", type=float, default=3.0, help="T, the unit of the latents (paper: 3)")
    train.add_argument("--weighting", choices=["volume", "paper"], default="volume", help="of the distortion")
    train.add_argument("--particle-radius", type=float, default=0.4, help="fraction of the box; noise is outside")
    train.add_argument("--epochs", type=int, help="passes over the images (default: 30 subspace, 24 coordinate)")
    train.add_argument("--beta", type=float, default=2.0, help="weight of the rate, in units of the noise")
    train.add_argument("--batch-size", type=int, help="images per step (default: 256 subspace, 16 coordinate)")
    train.add_argument("--learning-rate", type=float, default=1e-3, help="peak rate of RAdam")
    precisions = ["auto", "float32", "bfloat16"]
    train.add_argument("--precision", choices=precisions, default="auto", help="of the networks' products")
    train.add_argument("--seed", type=int, default=0, help="everything random follows from it")
    train.add_argument("--device", help="cpu or cuda; by default a GPU where there is one")
    train.add_argument("--resume", action="store_true", help="go on from OUTPUT/checkpoint.pt, if there is one")
    minutes = "write OUTPUT/checkpoint.pt within an epoch, too, if it takes longer than this"
    train.add_argument("--checkpoint-minutes", type=float, default=10.0, help=minutes)
    cache = "keep prepared images in memory, up to this and half of what is free; 0: read them from disk in every pass"
    train.add_argument("--cache-gib", type=float, default=4.0, help=cache)
    train.set_defaults(run=_train)


def _embed_options(commands) -> None:
    embed = commands.add_parser("embed", help="latents of particle images under a model", formatter_class=_Help)
    embed.add_argument("model", type=Path, help="model.safetensors")
    _particle_options(embed)
    embed.add_argument("--output", type=Path, required=True, help=".npy file for the latents (n, d)")
    embed.add_argument("--device", default="cpu", help="cpu or cuda")
    embed.set_defaults(run=_embed)


def _pathway_options(commands) -> None:
    path = commands.add_parser("pathway", help="maps along a path between two components", formatter_class=_Help)
    path.add_argument("model", type=Path, help="model.safetensors")
    path.add_argument("--list", action="store_true", help="only list the components with their states and weights")
    path.add_argument("--start", help="component to start from, or a state like S1: its heaviest component")
    path.add_argument("--end", help="component or state to end at")
    path.add_argument("--output", type=Path, help="folder for the maps and the ChimeraX script")
    path.add_argument("--chain", action="store_true", help="join sub-paths by way of other components")
    path.add_argument("--max-flux", action="store_true", help="the path of least resistance instead of Algorithm 1")
    path.add_argument("--steps", type=int, default=11, help="K; the path has K+1 maps (paper: 11)")
    path.add_argument("--omega", type=float, default=2.0, help="larger: less continuous (paper: 2)")
    path.add_argument("--samples", type=int, default=1000, help="M, candidates per step (paper: 1000)")
    path.add_argument("--seed", type=int, default=0, help="of the candidates")
    path.add_argument("--box-size", type=int, help="pixels of the original images, for maps on their grid")
    path.add_argument("--device", default="cpu", help="cpu or cuda")
    path.set_defaults(run=_pathway)


def _select_options(commands) -> None:
    choose = commands.add_parser("select", help="particles of a state or near a path", formatter_class=_Help)
    choose.add_argument("model", type=Path, help="model.safetensors")
    _particle_options(choose)
    choose.add_argument("--latents", type=Path, help="latents.npy of these particles; by default they are embedded")
    which = choose.add_mutually_exclusive_group(required=True)
    which.add_argument("--state", help="S1 (the largest), S2 ..., a component's index, or a name in --labels")
    which.add_argument("--near", type=Path, help=".npy file of points, such as the latents.npy of a pathway")
    choose.add_argument("--labels", type=Path, help=".json file of components' names")
    choose.add_argument("--least", type=float, default=0.5, help="probability of the state")
    choose.add_argument("--number", type=int, help="of the particles nearest to a point")
    choose.add_argument("--radius", type=float, help="distance from a point, in the unit of the latents")
    choose.add_argument("--output", type=Path, required=True, help="subset: .star, .cs, or .pkl for cryoDRGN's --ind")
    choose.add_argument("--device", default="cpu", help="cpu or cuda")
    choose.set_defaults(run=_select)


def _demo_options(commands) -> None:
    demo = commands.add_parser("demo", help="everything on embedded data, with the truth beside", formatter_class=_Help)
    demo.add_argument("--output", type=Path, default=Path("results/demo"), help="folder")
    sets = ["assembly-small", "assembly"]
    demo.add_argument("--dataset", choices=sets, default="assembly", help="box 32 (seconds) or 64 (minutes)")
    _architecture_option(demo)
    demo.add_argument("--epochs", type=int, help="passes over the images (default: 30 subspace, 24 coordinate)")
    demo.add_argument("--seed", type=int, default=0, help="of the training and the path")
    demo.set_defaults(run=_demo)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def _architecture_option(parser: argparse.ArgumentParser) -> None:
    explained = "subspace: solved in closed form, then trained; coordinate: the paper's networks, slower by far"
    parser.add_argument("--architecture", choices=["subspace", "coordinate"], default="subspace", help=explained)


def _particle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("particles", type=Path, help=".star, .cs, .mrcs or .txt")
    parser.add_argument("--datadir", type=Path, help="folder that the image names are relative to")
    parser.add_argument("--poses", type=Path, help="cryoDRGN poses.pkl, where the file has no poses")
    parser.add_argument("--ctf", type=Path, help="cryoDRGN ctf.pkl, where the file has no CTF parameters")
    parser.add_argument("--indices", type=Path, help="cryoDRGN ind.pkl: use these particles only")
    parser.add_argument("--pixel-size", type=float, help="Å, instead of what the file says")
    box = (
        "to crop the images to (default: as they are)" if parser.prog.endswith("prepare") else "where the file has none"
    )
    parser.add_argument("--box-size", type=int, help=f"pixels, {box}")
    parser.add_argument("--amplitude-contrast", type=float, help="fraction, where the file has none")
    contrasts = ["auto", "dark", "light"]
    parser.add_argument("--contrast", choices=contrasts, default="auto", help="of the particles as recorded")


def _read(options: argparse.Namespace, box_size: int | None = None, images: bool = True):
    from cryotwin_nb.particles.particles import Particles

    names = ("datadir", "poses", "ctf", "indices", "contrast", "pixel_size", "amplitude_contrast")
    given = {name: getattr(options, name) for name in names}
    return Particles.read(options.particles, **given, box_size=box_size, images=images)


def _prepare(options: argparse.Namespace) -> None:
    from cryotwin_nb.preparation import prepare

    settings = {"dtype": options.dtype, "whiten": not options.no_whitening, "workers": options.workers}
    report = prepare(_read(options), options.output, options.box_size, resume=not options.no_resume, **settings)
    print(report.summary())
    if options.picture:
        from cryotwin_nb.plotting import preparation

        with atomic(options.picture) as partial:
            preparation(report).savefig(partial, dpi=120, bbox_inches="tight")


def _look(options: argparse.Namespace) -> None:
    from cryotwin_nb.preparation.look import first_look

    look = first_look(_read(options, options.box_size), options.images, options.seed, progress=True)
    print(look.summary())
    if options.output:
        from cryotwin_nb import plotting
        from cryotwin_nb.formats.mrc_writing import write_map

        folder = make_folder(options.output)
        for name, volume in {"map": look.map, "half1": look.half_maps[0], "half2": look.half_maps[1]}.items():
            write_map(folder / f"{name}.mrc", volume.numpy(), look.voxel_size)
        with atomic(folder / "look.png") as partial:
            plotting.first_look(look).savefig(partial, dpi=120, bbox_inches="tight")


def _train(options: argparse.Namespace) -> None:
    from cryotwin_nb.runtime import distributed

    with distributed.joined(options.device):
        _train_jointly(options, speaks=distributed.rank() == 0)


def _train_jointly(options: argparse.Namespace, speaks: bool) -> None:
    """Train, in this process or together with others, one of which speaks and writes."""
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.runtime import distributed
    from cryotwin_nb.training import TrainingConfig, fit

    particles = _read(options, options.box_size)
    if speaks:
        print(particles.summary())
        remove_partials(make_folder(options.output))
    settings = {name: getattr(options, name) for name in ("latent_dim", "noise_width", "weighting", "particle_radius")}
    settings |= {"n_components": options.components, "seed": options.seed} | _network_settings(options)
    model = CryoTwin(particles.box_size, options.architecture, **settings)
    checkpoint = options.output / "checkpoint.pt"
    names = ["epochs", "beta", "batch_size", "learning_rate", "precision", "seed", "device"]
    names += ["checkpoint_minutes", "cache_gib"]
    config = TrainingConfig(checkpoint=checkpoint, **{name: getattr(options, name) for name in names})
    resumes = distributed.first(lambda: options.resume and checkpoint.exists())
    fit(model, particles, config, resume=checkpoint if resumes else None)
    if speaks:
        model.save(options.output / "model.safetensors")
    latents = model.embed(particles, progress=True)
    if speaks:
        _save_latents(options.output / "latents.npy", latents)
        print(f"{options.output}: {model.prior.n_components} components in {options.latent_dim} dimensions")


def _network_settings(options: argparse.Namespace) -> dict[str, int]:
    """The options that were given for the networks of the subspace architecture."""
    given = {"n_basis": options.n_basis, "contrast": int(options.fit_contrast)}
    given = {name: value for name, value in given.items() if value}
    if given and options.architecture != "subspace":
        found, expected = "--n-basis or --fit-contrast", "the subspace architecture"
        raise InputError(f"--architecture {options.architecture}", found, expected, "Leave these options out.")
    return given


def _embed(options: argparse.Namespace) -> None:
    from cryotwin_nb.models.cryotwin import CryoTwin

    make_folder(options.output.parent)
    z = CryoTwin.load(options.model, options.device).embed(_read(options, options.box_size), progress=True)
    _save_latents(options.output, z)


def _save_latents(path: Path, z: Tensor) -> None:
    with atomic(path) as partial, open(partial, "wb") as file:
        np.save(file, z.numpy())


def _pathway(options: argparse.Namespace) -> None:
    from cryotwin_nb.exchange.export import write_pathway
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.pathways import find_states, max_flux, ridgeline_chain
    from cryotwin_nb.pathways.ridgeline import ridgeline

    model = CryoTwin.load(options.model, options.device)
    prior = model.prior
    if options.list or options.start is None or options.end is None or options.output is None:
        states = {c: state.name for state in find_states(prior) for c in state.components}
        for index in prior.weights.argsort(descending=True).tolist():
            print(f"component {index:3d}  state {states.get(index, '-'):4s}  weight {float(prior.weights[index]):.3f}")
        if not options.list:
            remedy = "Choose two of the components or states above."
            raise InputError("pathway", "no start, end or output", "--start I --end J --output FOLDER", remedy)
        return
    start, end = (_components(prior, given, None, name)[0] for name, given in
                  (("--start", options.start), ("--end", options.end)))  # fmt: skip
    if options.max_flux:
        path = max_flux(prior, start, end, options.steps)
    else:
        settings = {"omega": options.omega, "n_samples": options.samples, "seed": options.seed}
        path = (ridgeline_chain if options.chain else ridgeline)(prior, start, end, options.steps, **settings)
    pixel_size, barrier = float(model.imaging.pixel_size), float(path.barrier)
    write_pathway(options.output, path, model.volumes(path.latents), pixel_size, box_size=options.box_size)
    print(f"{options.output}: {len(path.latents)} maps, barrier {barrier:.2f} nats")
    if barrier > _HIGH:
        told = f"the density falls to e^-{barrier:.0f} of that at the ends: hardly any image is near"
        print(f"note: {told}. Try --max-flux or other ends; see cryotwin_nb.pathway_support", file=sys.stderr)


def _select(options: argparse.Namespace) -> None:
    from cryotwin_nb.exchange.selection import select_near, select_state, write_selection
    from cryotwin_nb.models.cryotwin import CryoTwin

    model = CryoTwin.load(options.model, options.device)
    particles = _read(options, images=options.latents is None)
    if options.latents is None and particles.box_size != model.config["box_size"]:
        found, expected = (
            f"images of {particles.box_size} pixels",
            f"{model.config['box_size']}, as the model knows them",
        )
        remedy = "Give the latents of these particles: --latents latents.npy, as the commands write it."
        raise InputError(options.particles, found, expected, remedy)
    z = model.embed(particles, progress=True) if options.latents is None else _points(options.latents)
    if len(z) != len(particles):
        remedy = "Give the latents of the same particles, in their order."
        raise InputError(options.latents, f"{len(z)} latents", f"{len(particles)}", remedy)
    if options.near is not None:
        rows = select_near(z, _points(options.near), options.number, options.radius)
    else:
        rows = select_state(z, model.prior, _components(model.prior, options.state, options.labels), options.least)
    write_selection(options.output, particles, rows)
    print(f"{options.output}: {len(rows)} of {len(particles)} particles")


def _points(path: Path) -> np.ndarray:
    try:
        return np.array(np.load(path, mmap_mode="r"), dtype=np.float64)
    except (OSError, ValueError, TypeError, EOFError) as error:
        expected, remedy = "an array (n, d) of numbers", "Give latents.npy as the commands write it."
        raise InputError(path, f"no readable array ({error})", expected, remedy) from error


def _components(prior, state: str, labels: Path | None, where: str = "--state") -> list[int]:
    """The components of a state by its name, or one by its index; the heaviest first."""
    from cryotwin_nb.evaluation import read_labels
    from cryotwin_nb.pathways import find_states

    if labels is not None:
        names = read_labels(labels, prior)
        known = {name: [c for c in names if names[c] == name] for name in names.values()}
    else:
        known = {str(c): [c] for c in range(prior.n_components)}
        known |= {s.name: list(s.components) for s in find_states(prior)}
    if state not in known:
        raise InputError(where, repr(state), f"one of {', '.join(known)}", "`pathway MODEL --list` tells them.")
    return sorted(known[state], key=lambda c: -float(prior.weights[c]))


def _demo(options: argparse.Namespace) -> None:
    from cryotwin_nb import demo

    demo.run(options.output, options.dataset, options.architecture, options.epochs, options.seed)


if __name__ == "__main__":
    sys.exit(main())
