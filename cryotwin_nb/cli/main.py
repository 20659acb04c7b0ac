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
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import version
from types import FrameType
from typing import NamedTuple

from cryotwin_nb.cli.options import Parser
from cryotwin_nb.errors import InputError, MissingExtraError, explained
from cryotwin_nb.runtime.heartbeat import heartbeat

REFUSED, FAULT, INTERRUPTED, TERMINATED = 2, 70, 130, 143
_SEVERAL = "Multi-GPU: torchrun --standalone --nproc-per-node 4 -m cryotwin_nb train ...; see examples/train.slurm"


class _Command(NamedTuple):
    """Module and help text of a command; in the module, `add_NAME` adds the options and `NAME` runs the command."""

    module: str
    help: str


COMMANDS = {
    "demo": _Command("demonstration", "run the complete workflow on simulated data and compare with the ground truth"),
    "prepare": _Command("training", "write a compact stack on a coarser grid, for training or for RELION"),
    "look": _Command("training", "check poses, CTF and contrast, and reconstruct a coarse map"),
    "train": _Command("training", "train a model on particle images"),
    "embed": _Command("training", "embed particle images with a model and write their latents"),
    "states": _Command("exploring", "list the states of a model and their masses"),
    "pathway": _Command("exploring", "write maps along a path between two states"),
    "routes": _Command("exploring", "find all routes between two states and their shares"),
    "support": _Command("exploring", "compare the decoded maps of a path with maps from nearby images"),
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


class Terminated(KeyboardInterrupt):
    """Raised when the process receives SIGTERM."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    before = _on_termination(_terminate)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note  # type: ignore[assignment]
            shown = words and words[0] in COMMANDS and os.environ.get("RANK", "0") == "0"
            with heartbeat(words[0]) if shown else nullcontext(), explained(f"cryotwin {' '.join(words[:1])}"):
                return _run(words)
    except BrokenPipeError:  # the reader of the output, such as head, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, MissingExtraError, FloatingPointError, OSError, MemoryError) as error:
        number = os.environ.get("RANK", "0")  # rank set by torchrun
        print(f"error{f' in process {number}' if number != '0' else ''}: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt as stop:
        print("Interrupted. `train --resume` and `prepare` resume where they stopped.", file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except Exception:
        traceback.print_exc()
        print("This is a bug in cryotwin_nb. Please report it with the lines above and the command.", file=sys.stderr)
        return FAULT
    finally:
        _on_termination(before)


def parser_of(name: str) -> Parser:
    """Return the parser of a command."""
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
    lines = ["usage: cryotwin COMMAND [options]", "", "Conformational pathways from cryo-EM particle images.", ""]
    lines += [f"  {name:9s} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "`cryotwin COMMAND --help` lists the options. To get started, run `cryotwin demo`."])


def _module(name: str):
    return import_module(f"cryotwin_nb.cli.{COMMANDS[name].module}")


def _note(message: Warning | str, *_: object) -> None:
    """Print a warning as a note, without its location in the code."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {message}", file=sys.stderr)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _on_termination(handler):
    """Set the SIGTERM handler where possible and return the previous one."""
    try:
        return signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not the main thread
        return signal.SIG_DFL
