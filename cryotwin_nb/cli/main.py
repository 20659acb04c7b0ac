"""`cryotwin COMMAND`: which commands there are, and how they end.

Exit statuses: 0 done; 1 done, and the first look found what must be mended first; 2 refused (arguments, input, disk,
memory); 70 a fault of this program, with a traceback; 130 interrupted, 143 terminated, both resumable.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from types import FrameType
from typing import NamedTuple

from cryotwin_nb.cli.options import Parser
from cryotwin_nb.errors import InputError, MissingExtraError

REFUSED, FAULT, INTERRUPTED, TERMINATED = 2, 70, 130, 143
_SEVERAL = "Several GPUs: torchrun --standalone --nproc-per-node 4 -m cryotwin_nb train ...; see examples/train.slurm."


class _Command(NamedTuple):
    """A command: where it stands, and its help; `add_NAME` there adds its options, `NAME` runs it."""

    module: str
    help: str


COMMANDS = {
    "demo": _Command("demonstration", "run everything on embedded data, with the truth beside"),
    "prepare": _Command("training", "write a compact stack on a coarser grid"),
    "look": _Command("training", "check poses, CTF and contrast, and make a coarse map"),
    "train": _Command("training", "train a model on particle images"),
    "embed": _Command("training", "write the latents of particle images under a model"),
    "states": _Command("exploring", "list the states of a model with their masses"),
    "pathway": _Command("exploring", "write maps along a path between two states"),
    "routes": _Command("exploring", "find all routes between two states, with their shares"),
    "support": _Command("exploring", "compare the maps of a path with those of the images near it"),
    "select": _Command("selecting", "write the particles of a state, or near a path"),
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
"""Former spellings of options, and what is typed now."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    before = _on_termination(_terminate)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note  # type: ignore[assignment]
            return _run(words)
    except (InputError, MissingExtraError, FloatingPointError, OSError, MemoryError) as error:
        number = os.environ.get("RANK", "0")  # of several processes, as torchrun counts them
        print(f"error{f' in process {number}' if number != '0' else ''}: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt as stop:
        print("Interrupted. Resume with `train --resume`, or rerun `prepare`.", file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except Exception:
        traceback.print_exc()
        print("This is a fault of cryotwin_nb. Please report it with the lines above and the command.", file=sys.stderr)
        return FAULT
    finally:
        _on_termination(before)


def parser_of(name: str) -> Parser:
    """The parser of a command."""
    parser = Parser(
        prog=f"cryotwin {name}", description=COMMANDS[name].help, epilog=_SEVERAL if name == "train" else None
    )
    parser.renamed = RENAMED.get(name, {})
    getattr(_module(name), f"add_{name}")(parser)
    return parser


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else REFUSED
    if words[0] == "--version":
        print(f"cryotwin_nb {version('cryotwin_nb')}")
        return 0
    if words[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise InputError("cryotwin", f"the command {words[0]!r}", f"one of {known}", "See `cryotwin --help`.")
    try:
        options = parser_of(words[0]).parse_args(words[1:])
    except SystemExit as end:  # after printing the help
        return int(end.code or 0)
    command: Callable[..., int] = getattr(_module(words[0]), words[0])
    return command(options)


def _overview() -> str:
    lines = ["usage: cryotwin COMMAND [options]", "", "Conformational pathways from single-particle images.", ""]
    lines += [f"  {name:9s} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "`cryotwin COMMAND --help` lists the options. A first run: cryotwin demo"])


def _module(name: str):
    return import_module(f"cryotwin_nb.cli.{COMMANDS[name].module}")


def _note(message: Warning | str, *_: object) -> None:
    """A choice made on the user's behalf, without the place in the code."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {message}", file=sys.stderr)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _on_termination(handler):
    """Set what happens on SIGTERM, where that can be set; returns what happened before."""
    try:
        return signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not the main thread
        return signal.SIG_DFL
