"""`prepare` command: a compact stack."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.reading import (
    add_particles,
    check_outputs,
    particle_files,
    reading_options,
)
from cryotwin_nb.cli.writing import add_writing, owned
from cryotwin_nb.errors import extras_explained
from cryotwin_nb.formats.files import atomic, require_suffix
from cryotwin_nb.formats.outputs import require_star_name

DONE, PROBLEMS = 0, 1


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
