"""Options and checks of the commands that write files: one writer, and nothing is replaced unless asked for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryotwin_nb.cli.reading import check_outputs
from cryotwin_nb.errors import InputError
from cryotwin_nb.runtime.locks import writing

REPLACED = "replace the output of an earlier run, which stays until the new one is complete"


def add_writing(parser: argparse._ActionsContainer) -> None:
    """Add the options for an output that exists, or that another process is writing."""
    parser.add_argument("--overwrite", action="store_true", help=REPLACED)
    add_wait(parser)


def add_wait(parser: argparse._ActionsContainer) -> None:
    """Add the option to wait for another writer."""
    wait = "how long to wait for another process that is writing the output, s (default: 0)"
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help=wait)


@contextmanager
def owned(
    options: argparse.Namespace,
    outputs: Iterable[Path],
    earlier: Iterable[Path] | None = None,
    locked: Iterable[Path] | None = None,
    keeps: bool | None = None,
) -> Iterator[None]:
    """Hold the locks of outputs from before the work to its end, and refuse to replace earlier ones unless asked.

    Parameters
    ----------
    options : Namespace
        Options of the command.
    outputs : iterable of Path
        Files to write, all in one folder. None of them can be an input.
    earlier : iterable of Path, optional
        Files whose presence means that an earlier run has been here; by default, the outputs.
    locked : iterable of Path, optional
        Files to lock; by default, the outputs.
    keeps : bool, optional
        Whether the command continues earlier work (--resume); None if it has no such option.

    Raises
    ------
    InputError
        If an output is an input, another process is writing it, or an earlier run wrote it.
    """
    outputs = list(outputs)
    folder = outputs[0].parent
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        check_outputs(options, outputs, folder)
        with writing(*(outputs if locked is None else locked), wait=options.wait):
            there = sorted({path for path in (outputs if earlier is None else earlier) if path.exists()})
            if there and not (options.overwrite or keeps):
                raise _refusal(there, keeps is not None)
            yield
    finally:
        with suppress(OSError):
            for path in made:  # those that are still empty
                path.rmdir()


def _refusal(there: list[Path], resumes: bool) -> InputError:
    more = f", and {len(there) - 1} more files" if len(there) > 1 else ""
    sentence = f"{there[0]}{more.replace('1 more files', '1 more file')}: written by an earlier run."
    remedy = "Add --overwrite to replace it, or choose another output."
    if resumes:
        remedy = "Add --resume to continue that run, or --overwrite to start again and replace it."
    return InputError(there[0], "an earlier output", "a new one", remedy, sentence)
