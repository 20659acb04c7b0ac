"""`demo` command: the complete workflow on simulated data."""

from __future__ import annotations

import argparse
from pathlib import Path

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.writing import add_writing, owned


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add the options of `demo`."""
    output = Path("results/demo")
    parser.add_argument("--output", type=Path, default=output, help=f"folder for all results (default: {output})")
    add_writing(parser)
    for option in demo_options():
        option.add_to(parser)


def demo_options() -> list[Option]:
    """Return the keywords of `demo.run` as options."""
    from cryotwin_nb.demo import run

    return options_of(run, skip=("output",))


def demo(options: argparse.Namespace) -> int:
    """Simulate, train, find a path, and compare it with the ground truth."""
    from cryotwin_nb import demo as demonstration

    outputs = [options.output / name for name in ("table.json", "model.safetensors", "checkpoint.pt")]
    with owned(options, outputs):
        demonstration.run(options.output, **values_of(options, demo_options()))
    return 0
