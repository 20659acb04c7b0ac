"""`states`, `pathway` and `routes` commands: a model's states, and maps along the paths between them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryotwin_nb.cli.counting import add_images, advice, images_of
from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.reading import (
    add_ends,
    add_json,
    add_model,
    check_outputs,
    counts_of,
    ends_of,
    load_model,
    print_result,
)
from cryotwin_nb.cli.writing import add_writing, owned

if TYPE_CHECKING:
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.particles.particles import Particles
    from cryotwin_nb.pathways import MeasuredBarrier
    from cryotwin_nb.pathways.ridgeline import Pathway

DONE = 0
_METHODS = ("max_flux", "ridgeline", "chain")
_ENDS = ("prior", "start", "end", "landscape")  # keywords supplied by the command


def add_states(parser: argparse.ArgumentParser) -> None:
    """Add the options of `states`."""
    add_model(parser)
    for option in _state_options():
        option.add_to(parser)
    parser.add_argument("--components", action="store_true", help="also list the components of the mixture")
    parser.add_argument("--latents", type=Path, help="latents.npy: also count particles, and those set aside")
    add_json(parser)


def states(options: argparse.Namespace) -> int:
    """List the states of a model's latent density and their masses."""
    from cryotwin_nb.pathways import find_states

    prior = (model := load_model(options)).prior
    found = find_states(prior, **values_of(options, _state_options()), junk=model.history.junk)
    listed: list[dict[str, Any]] = [
        {"name": s.name, "mass": s.mass, "components": list(s.components), "looks_like_junk": s.junk} for s in found
    ]
    lines = [f"state {s.name:4s}  mass {s.mass:6.1%}  {len(s.components)} components" for s in found]
    lines = [f"{line}  looks like junk" if s.junk else line for line, s in zip(lines, found, strict=True)]
    for i, counts in enumerate(counts_of(options, model, found)):
        listed[i] |= counts
        lines[i] += f"  {counts['particles']} particles, {counts['set_aside']} set aside"
    result: dict[str, Any] = {"states": listed}
    if options.components:
        owner = {c: s.name for s in found for c in s.components}
        order = prior.weights.argsort(descending=True).tolist()
        weights = [{"index": c, "weight": float(prior.weights[c]), "state": owner.get(c)} for c in order]
        result["components"] = weights
        lines += [f"component {w['index']:3d}  weight {w['weight']:6.1%}  state {w['state'] or '-'}" for w in weights]
    print_result(options, result, "\n".join(lines))
    return DONE


def _state_options() -> list[Option]:
    from cryotwin_nb.pathways import find_states

    return options_of(find_states, skip=("prior", "landscape", "junk"))


def add_pathway(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pathway`."""
    add_model(parser)
    add_ends(parser)
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for maps, latents and scripts for ChimeraX, PyMOL and Mol*"
    )
    add_writing(parser)
    methods = "max_flux: path of least resistance; ridgeline: Algorithm 1 of the paper; chain: joined ridgelines"
    parser.add_argument("--method", choices=_METHODS, default="max_flux", help=f"{methods} (default: max_flux)")
    add_images(parser, "are counted along the path for its barrier")
    for option in _path_options():
        option.add_to(parser)
    for option in _writing_options():
        option.add_to(parser)
    add_json(parser)


def _path_options() -> list[Option]:
    """Return the keywords of all methods as options, without duplicates."""
    from cryotwin_nb.pathways import max_flux, ridgeline

    both = [*options_of(ridgeline, _ENDS), *options_of(max_flux, _ENDS)]
    return list({option.keyword: option for option in both}.values())


def _writing_options() -> list[Option]:
    from cryotwin_nb.exchange import write_pathway

    return options_of(write_pathway, skip=("folder", "path", "maps", "voxel_size", "barrier"))


def pathway(options: argparse.Namespace) -> int:
    """Compute a path between two states and write its maps."""
    with owned(options, [options.output / "path.json"]):
        return _pathway(options)


def _pathway(options: argparse.Namespace) -> int:
    from cryotwin_nb.exchange.export import written_earlier
    from cryotwin_nb.pathways import max_flux, ridgeline, ridgeline_chain

    model = load_model(options)
    start, end = ends_of(model, options)
    earlier = written_earlier(options.output)
    images = images_of(options, model, lambda particles: check_outputs(options, earlier, options.output, particles))
    given = values_of(options, _path_options())
    own = {"max_flux": ("n_steps", "exponent", "spacing", "seed")}
    names = own.get(options.method, ("n_steps", "omega", "n_samples", "seed", "concentration"))
    methods: dict[str, Any] = {"max_flux": max_flux, "ridgeline": ridgeline, "chain": ridgeline_chain}
    method = methods[options.method]
    path = method(model.prior, start, end, **{name: given[name] for name in names})
    barrier = images.barrier_of(path, model.prior)
    _write(options, options.output, path, model, barrier)
    result = {"maps": len(path.latents), "method": path.method, "barrier_nats": float(path.barrier)}
    result |= {"measured_barrier": barrier.summary(), "folder": str(options.output)}
    print_result(options, result, f"{options.output}: {len(path.latents)} maps; {barrier}")
    if advice(barrier, options):
        print(f"note: {advice(barrier, options)}", file=sys.stderr)
    return DONE


def _write(options: argparse.Namespace, folder: Path, path: Pathway, model: CryoTwin, barrier: MeasuredBarrier) -> None:
    from cryotwin_nb.exchange import write_pathway
    from cryotwin_nb.exchange.export import require_room_for_maps

    require_room_for_maps(folder, len(path.latents), options.box_size or model.config["box_size"])
    pixel_size, maps = float(model.imaging.pixel_size), model.volumes(path.latents)
    write_pathway(folder, path, maps, pixel_size, **values_of(options, _writing_options()), barrier=barrier)


def add_routes(parser: argparse.ArgumentParser) -> None:
    """Add the options of `routes`."""
    add_model(parser)
    add_ends(parser)
    add_images(parser, "determine shares and barriers, which are otherwise those of the mixture")
    parser.add_argument("--output", type=Path, help="output folder; the maps of each route are written to a subfolder")
    add_writing(parser)
    for option in (*_route_options(), *_writing_options()):
        option.add_to(parser)
    add_json(parser)


def _route_options() -> list[Option]:
    from cryotwin_nb.pathways import find_routes

    skip = ("prior", "start", "end", "evidence", "states", "progress", "landscape", "groups")
    return options_of(find_routes, skip=skip)


def routes(options: argparse.Namespace) -> int:
    """Find all routes between two states and their shares of the flux."""
    if not options.output:
        return _routes(options)
    with owned(options, [options.output / "routes"], earlier=options.output.glob("route_*/path.json")):
        return _routes(options)


def _routes(options: argparse.Namespace) -> int:
    import torch

    from cryotwin_nb.exchange.export import written_earlier
    from cryotwin_nb.pathways import find_routes, find_states

    model = load_model(options)
    start, end = ends_of(model, options)
    folders = options.output.glob("route_*") if options.output else ()
    earlier = [file for folder in folders for file in written_earlier(folder)]

    def check(particles: Particles | None) -> None:
        if options.output:
            check_outputs(options, earlier, options.output, particles)

    images = images_of(options, model, check)
    evidence = torch.as_tensor(images.latents) if options.latents is not None else images.latents
    given = values_of(options, _route_options())
    if images.groups is not None:
        given["groups"] = images.groups
    found = find_routes(model.prior, start, end, evidence=evidence, progress=True, **given)
    barriers = [images.barrier_of(route, model.prior) for route in found]
    titles = {s.name: s.title for s in find_states(model.prior, junk=model.history.junk)}
    listed: list[dict[str, Any]] = [
        {
            "share": route.share,
            "share_interval": list(route.share_interval) if route.frequency > 0 else None,
            "states": [s.name for s in route.states],
            "looks_like_junk": [s.name for s in route.states if titles[s.name] != s.name],
            "barrier_nats": float(route.barrier),
            "measured_barrier": barrier.summary(),
        }
        for route, barrier in zip(found, barriers, strict=True)
    ]
    lines = []
    for entry, barrier in zip(listed, barriers, strict=True):
        low, high = entry["share_interval"] or (None, None)
        interval = "" if low is None else f" ({low:.0%}-{high:.0%})"
        lines.append(
            f"{entry['share']:6.1%}{interval}  {' -> '.join(titles[name] for name in entry['states'])}  {barrier}"
        )
    print_result(options, {"routes": listed}, "\n".join(lines) or "no route")
    if options.output:
        for number, (route, barrier) in enumerate(zip(found, barriers, strict=True), 1):
            _write(options, options.output / f"route_{number:02d}", route, model, barrier)
    return DONE
