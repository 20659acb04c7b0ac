"""Strange numbers and names: python benchmarks/numeric_faults.py [WORD ...].

Each of the inputs listed in `strange_images`, `strange_latents` and `strange_names` is passed to a public function in a
process of its own. It must be refused with an `InputError`, or give finite numbers.

Writes benchmarks/results/numeric_faults.json: how many inputs were refused, gave finite numbers, gave others, raised
another exception or did not end within the time limit, and the inputs of the last three kinds. With words, only inputs
that contain all of them are run, and nothing is written.
"""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import os
import pkgutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import matplotlib as mpl
import numpy as np
import strange_images
import strange_latents
import strange_names
import torch
from common import machine, write_results

import cryotwin_nb as ct

REFUSED, FINITE, OTHER, FOREIGN, LATE = "refused", "finite", "NaN or infinity", "other exception", "did not end"
LIMIT = 60  # seconds
_UNKNOWN = (  # NaN where not computed, or infinite where the images show nothing, as documented
    *("residual", "share_interval", "frequency", "noise", "resolution", "departure", "offset", "shell_support"),
    *("shell_error", "local_support", "local_error", "decoded_fsc", "half_map_fsc"),
)


def arrays(value: Any) -> Iterator[np.ndarray]:
    """Yield all arrays and floats in a result."""
    if isinstance(value, torch.Tensor):
        yield value.detach().cpu().numpy()
    elif isinstance(value, (np.ndarray, float)):
        yield np.asarray(value)
    elif isinstance(value, ct.GaussianMixture):
        yield from arrays([value.weights, value.means, value.covariances])
    elif dataclasses.is_dataclass(value):
        yield from arrays([getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in _UNKNOWN])
    elif isinstance(value, dict):
        yield from arrays(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from arrays(inner)


def outcome(use: Callable[[], Any]) -> tuple[str, str]:
    """Return the kind of outcome, and the message of an exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = use()
    except (ct.InputError, FloatingPointError) as error:  # the latter is documented by `fit`
        return REFUSED, str(error)
    except Exception as error:
        last = [f for f in traceback.extract_tb(error.__traceback__) if "cryotwin_nb/" in f.filename][-1:]
        place = f" at {os.path.basename(last[0].filename)}:{last[0].lineno}" if last else ""
        return FOREIGN, f"{type(error).__name__}: {str(error)[:150]}{place}"
    finite = all(np.isfinite(a).all() for a in arrays(result) if a.dtype.kind in "fc")
    return (FINITE, "") if finite else (OTHER, "")


def in_process(use: Callable[[], Any]) -> tuple[str, str]:
    """Run `outcome` in a forked process with a time limit."""

    def send(connection: Connection) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        connection.send(outcome(use))

    context = multiprocessing.get_context("fork")
    mine, other = context.Pipe()
    process = context.Process(target=send, args=(other,))
    process.start()
    other.close()
    try:
        return mine.recv() if mine.poll(LIMIT) else (LATE, "")
    except EOFError:
        return FOREIGN, "the process died"
    finally:
        process.kill()
        process.join()


def main() -> None:
    words = sys.argv[1:]
    torch.set_num_threads(1)
    mpl.use("agg")
    strange_latents.trained(), strange_latents.prior()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.walk_packages(ct.__path__, "cryotwin_nb."):  # import everything before forking
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        importlib.import_module("openTSNE")
    parts = (strange_images, strange_latents, strange_names)
    lists = [getattr(part, name) for part in parts for name in dir(part) if name.startswith("of_")]
    counts, faults = Counter[str](), {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, use in (case for make in lists for case in make()):
            if not all(word in name for word in words):
                continue
            began = time.perf_counter()
            kind, message = in_process(use)
            counts[kind] += 1
            seconds = time.perf_counter() - began
            if kind in (OTHER, FOREIGN, LATE):
                faults[name] = f"{kind} {message}"
            first = message.splitlines()[0] if message else ""
            print(f"{kind:16s} {seconds:5.1f} s  {name}  {first}", flush=True)
    print(dict(counts))
    if not words:
        write_results("numeric_faults", {"machine": machine(), "inputs": dict(counts), "faults": faults})


if __name__ == "__main__":
    main()
