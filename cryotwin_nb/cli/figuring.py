"""`figures` command: the figures of the paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.writing import add_writing, owned


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Add the options of `figures`."""
    output = Path("results/figures")
    parser.add_argument("--output", type=Path, default=output, help=f"folder for all figures (default: {output})")
    parser.add_argument("--only", nargs="+", default=[], metavar="NUMBER", help="numbers of figures, such as 2a 4")
    models = "folder with stored models (default: notebooks/models beside the package); missing ones are trained"
    parser.add_argument("--models", type=Path, help=models)
    add_writing(parser)
    for option in _options():
        option.add_to(parser)


def figures(options: argparse.Namespace) -> int:
    """Draw the figures of the paper."""
    from cryotwin_nb.demo.paper import make_figures

    outputs = [options.output / name for name in ("figures.json", "captions.md")]
    with owned(options, outputs, keeps=True):
        make_figures(
            options.output,
            only=options.only,
            models=options.models,
            overwrite=options.overwrite,
            **values_of(options, _options()),
        )
    return 0


def _options() -> list[Option]:
    from cryotwin_nb.demo.paper import make_figures

    return options_of(make_figures, skip=("output", "only", "models", "overwrite"))
