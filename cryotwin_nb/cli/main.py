"""`cryotwin COMMAND`: list of commands, dispatch and exit statuses.

Exit statuses: 0 success; 1 success, but `look` found problems to fix before training; 2 refused (arguments,
input, disk, memory); 70 bug in this program, with a traceback; 130 interrupted, 143 terminated, both resumable.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from cryotwin_nb.cli.interruption import Interruptible, Terminated, is_main, report
from cryotwin_nb.cli.options import Parser
from cryotwin_nb.errors import InputError, MissingExtraError, explained
from cryotwin_nb.runtime.heartbeat import heartbeat
from cryotwin_nb.runtime.locks import writing

REFUSED, FAULT = 2, 70
_SEVERAL = "Multi-GPU: torchrun --standalone --nproc-per-node 4 -m cryotwin_nb train ...; see examples/train.slurm"


class _Command(NamedTuple):
    """Module and help text of a command; in the module, `add_NAME` adds the options and `NAME` runs the command."""

    module: str
    help: str


COMMANDS = {
    "figures": _Command("figuring", "draw the figures of the cryoTWIN paper from trained models"),
    "demo": _Command("demonstration", "run the complete workflow on simulated data and compare with the ground truth"),
    "prepare": _Command("preparing", "write a compact stack on a coarser grid, for training or for RELION"),
    "look": _Command("looking", "judge poses, CTF, views and contents, and reconstruct a coarse map"),
    "train": _Command("training", "train a model on particle images"),
    "embed": _Command("training", "embed particle images with a model and write their latents"),
    "states": _Command("exploring", "list the states of a model and their masses"),
    "pathway": _Command("exploring", "write maps along a path between two states"),
    "routes": _Command("exploring", "find all routes between two states and their shares"),
    "support": _Command("supporting", "compare the decoded maps of a path with maps from nearby images"),
    "select": _Command("selecting", "write the particles that belong to a state or lie near a path"),
}
RENAMED = {
    "train": {"--components": "--n-components"},
    "look": {"--images": "--n-images"},
    "pathway": {
        "--list": "`cryotwin states`",
        "--max-flux": "--method max_flux, the default",
        "--chain": "--method chain",
        "--steps": "--n-steps",
        "--samples": "--n-samples",
    },
    "select": {"--number": "--n"},
    "prepare": {"--no-whitening": "--no-whiten"},
}
"""Former names of options and their replacements."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    signals = Interruptible()
    with warnings.catch_warnings():
        warnings.showwarning = _note  # type: ignore[assignment]
        shown = words and words[0] in COMMANDS and is_main()
        try:
            with heartbeat(words[0]) if shown else nullcontext(), explained(f"cryotwin {' '.join(words[:1])}"):
                return _run(words, signals)
        except BaseException as error:  # libraries replace a KeyboardInterrupt by other exceptions
            if signals.number or isinstance(error, KeyboardInterrupt):
                return report(signal.SIGTERM if isinstance(error, Terminated) else signals.number)
            return _failed(error)


def _failed(error: BaseException) -> int:
    """Report an exception and return the exit status."""
    if isinstance(error, BrokenPipeError):  # the reader of the output, such as head, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, (InputError, MissingExtraError, FloatingPointError, OSError, MemoryError)):
        number = os.environ.get("RANK", "0")  # rank set by torchrun
        print(f"error{f' in process {number}' if number != '0' else ''}: {error}", file=sys.stderr)
        return REFUSED
    if not isinstance(error, Exception):
        raise error
    traceback.print_exception(error)
    print("This is a bug in cryotwin_nb. Please report it with the lines above and the command.", file=sys.stderr)
    return FAULT


def parser_of(name: str) -> Parser:
    """Return the parser of a command."""
    parser = Parser(
        prog=f"cryotwin {name}", description=COMMANDS[name].help, epilog=_SEVERAL if name == "train" else None
    )
    parser.renamed = RENAMED.get(name, {})
    getattr(_module(name), f"add_{name}")(parser)
    return parser


def _run(words: list[str], signals: Interruptible) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else REFUSED
    if words[0] == "--version":
        print(f"cryotwin_nb {version('cryotwin_nb')}")
        return 0
    if words[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise InputError("cryotwin", f"the command {words[0]!r}", f"one of {known}", "See `cryotwin --help`.")
    with _claimed(words):
        try:
            options = parser_of(words[0]).parse_args(words[1:])
        except SystemExit as end:  # after printing the help
            return int(end.code or 0)
        command: Callable[..., int] = getattr(_module(words[0]), words[0])
        with signals:
            return command(options)


def _claimed(words: list[str]) -> AbstractContextManager[None]:
    """Lock the output, as the command does later, but before PyTorch is imported, which takes a second or more."""
    given = dict(pairwise(words))
    output, wait = given.get("--output", ""), given.get("--wait", "0")
    if not Path(output).name or "\0" in output or not wait.replace(".", "", 1).isdigit() or not is_main():
        return nullcontext()
    return writing(output, wait=float(wait))


def _overview() -> str:
    lines = ["usage: cryotwin COMMAND [options]", "", "Conformational pathways from cryo-EM particle images.", ""]
    lines += [f"  {name:9s} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "`cryotwin COMMAND --help` lists the options. To get started, run `cryotwin demo`."])


def _module(name: str):
    return import_module(f"cryotwin_nb.cli.{COMMANDS[name].module}")


def _note(message: Warning | str, *_: object) -> None:
    """Print a warning as a note, without its location in the code."""
    if is_main():
        print(f"note: {message}", file=sys.stderr)
