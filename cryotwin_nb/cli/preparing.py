"""`prepare` and `look` commands: a compact stack, and a check of poses, CTF and contrast."""

from __future__ import annotations

import argparse
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.reading import (
    add_json,
    add_particles,
    check_outputs,
    particle_files,
    print_result,
    read_particles,
    reading_options,
)
from cryotwin_nb.cli.writing import add_writing, owned
from cryotwin_nb.errors import extras_explained
from cryotwin_nb.formats.files import atomic, require_suffix
from cryotwin_nb.formats.outputs import require_star_name

DONE, PROBLEMS = 0, 1
_LOOK = ("look.html", "look.txt", "look.png", "map.mrc", "half1.mrc", "half2.mrc")


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """Add the options of `prepare`."""
    add_particles(parser, skip=("box_size",))
    parser.add_argument("--output", type=Path, required=True, help=".star file to write; the stack goes next to it")
    add_writing(parser)
    for option in _preparing():
        option.add_to(parser)
    parser.add_argument("--picture", type=Path, help=".png file for plots of defocus, views and suspicious images")
    parser.set_defaults(whiten=None)  # decided by --for-relion unless --no-whiten is given


def prepare(options: argparse.Namespace) -> int:
    """Write a compact stack of the particles."""
    output = require_suffix(options.output, ".star")
    require_star_name(output)
    with ExitStack() as held:
        if options.picture:
            held.enter_context(owned(options, [require_suffix(options.picture, ".png")]))
        held.enter_context(owned(options, [output, output.with_suffix(".mrcs")], locked=[output]))
        return _prepare(options)


def _prepare(options: argparse.Namespace) -> int:
    from cryotwin_nb.formats.partial import OtherAttempt
    from cryotwin_nb.preparation import prepare as run
    from cryotwin_nb.preparation.grids import read_on_one_grid

    if options.picture:
        with extras_explained():
            from cryotwin_nb.plotting import preparation
    reading = values_of(options, reading_options(skip=("box_size",)))
    particles, _ = read_on_one_grid(particle_files(options), reading)
    if options.picture:
        check_outputs(options, [options.picture], options.picture.parent, particles)
    values = values_of(options, _preparing())
    try:
        report = run(particles, options.output, **values)
    except OtherAttempt:
        if not options.overwrite:
            raise
        report = run(particles, options.output, **values | {"resume": False})
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
    parser.add_argument(
        "--output", type=Path, help="folder for look.html, look.txt, look.png, map.mrc and the two half maps"
    )
    add_writing(parser)
    hand = "write and draw the maps in the other hand, mirrored in the plane z = 0 through their centre"
    parser.add_argument("--flip-hand", action="store_true", help=hand)
    parser.add_argument("--paths", action="store_true", help="only list where each stack of the file was found")
    add_json(parser)


def look(options: argparse.Namespace) -> int:
    """Check poses, CTF and contrast; return 1 if there are problems to fix before training."""
    if options.paths:
        return _list_stacks(options)
    if not options.output:
        return _look(options)
    with owned(options, [options.output / name for name in _LOOK], locked=[options.output / _LOOK[0]]):
        return _look(options)


def _look(options: argparse.Namespace) -> int:
    from cryotwin_nb.preparation import first_look

    if options.output:
        with extras_explained():
            import cryotwin_nb.plotting  # noqa: F401
    particles = read_particles(options)
    if options.output:
        check_outputs(options, [options.output / name for name in _LOOK], options.output, particles)
    found = first_look(particles, progress=True, **values_of(options, _looking()))
    reach = found.resolution if math.isfinite(found.resolution) else None
    numbers: dict[str, Any] = {"n_images": found.n_images, "resolution_angstrom": reach, "gain_nats": found.gain}
    errors = found.errors
    numbers |= {"pose_error_degrees": errors and errors.rotation, "shift_error_angstrom": errors and errors.shift}
    numbers["pose_error_interval"] = errors and errors.rotation_interval
    numbers["shift_error_interval"] = errors and errors.shift_interval
    contents, sampling = found.contents, found.sampling
    numbers |= {"contrast_spread": contents and contents.contrast_spread, "junk_share": contents and contents.junk}
    numbers["junk_interval"] = contents and contents.junk_interval
    numbers |= {"evenness": sampling.evenness, "unmeasured_share": sampling.unmeasured}
    numbers |= {"unmeasured_cone_degrees": sampling.cone, "point_group": sampling.group}
    numbers["verdict"] = found.verdict
    listed = [vars(finding) | {"is_problem": finding.is_problem} for finding in found.findings]
    print_result(options, numbers | {"findings": listed}, found.summary())
    if options.output:
        from cryotwin_nb.cli.looking import write_look

        write_look(options.output, found, f"First look at {options.particles[0].name}", options.flip_hand)
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
