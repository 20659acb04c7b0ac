"""Damaged files for every reader: python benchmarks/fuzz_readers.py [--inputs N] [--seed S] [--only NAME ...].

Small valid files are damaged at random (`fuzz_damage.py`): bits flipped, parts removed, repeated or moved, format
tokens inserted, and, with knowledge of the format, labels renamed or doubled, numbers replaced by extreme ones, header
fields and the types of columns changed. Each reader must return a result or raise `InputError`. Counted as failures:
any other exception, a RuntimeWarning, more than 5 s, more than 1 GiB of additional memory, a crash of the process.

The inputs follow from the seed and their number: a failure is repeated by --only NAME --first NUMBER --inputs 1.
Writes the counts to results/fuzz_readers.json. `tests/test_fuzz_readers.py` runs the general damage in the test suite.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_results
from fuzz_damage import archive, columns, either, general, mrc, table, tensors, text
from fuzz_files import write_more
from test_fuzz_readers import READERS, read_particles, write_set

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.origins import record_of

SECONDS, BYTES, BATCH = 5, 2**30, 10_000


def read_metadata(path: Path) -> None:
    particles = ct.Particles.read(path, images=False)
    assert len(particles.identity) == len(particles)
    particles.summary(), particles.columns


def read_both(path: Path) -> None:
    read_metadata(path)
    read_particles(path)


def read_joined(path: Path) -> None:
    both = [path.with_name("first.cs"), path.with_name("second.cs")]
    read_metadata(both)  # type: ignore[arg-type]
    particles = ct.Particles.read(both[::-1])
    assert np.isfinite(particles.images(slice(None))).all()


def read_copied(path: Path) -> None:
    star = path.with_name("copied.star")
    copy = ct.write_selection(path.with_name("copy.star"), ct.Particles.read(star, images=False), [0, 2])
    for file in (copy, record_of(copy)):
        file.unlink()


def read_added(path: Path) -> None:
    particles = path.with_name("second.cs" if path.suffix == ".cs" else "old.star")
    ct.Particles.read(particles, poses=path, ctf=path, images=False)


def read_latents(path: Path) -> None:
    particles = ct.Particles.read(path.with_name("second.cs"), images=False)
    assert ct.read_latents(path, particles).shape[0] == len(particles)


def read_run(path: Path) -> None:
    ct.read_cryodrgn(path.parent)


Damage = Callable[[bytes, random.Random], bytes]
CAMPAIGN: dict[str, tuple[tuple[str, ...], Callable[[Path], Any], tuple[Damage, ...]]] = {
    "STAR, metadata": (("new.star", "old.star", "rich.star"), read_metadata, (columns, columns, text, general)),
    "STAR, images": (("new.star", "old.star", "rich.star"), read_particles, (columns, columns, text, general)),
    ".cs": (("table.cs", "rich.cs"), read_both, (table, general)),
    ".cs, joined": (("first.cs", "second.cs"), read_joined, (table, general)),
    "poses and CTF of another file": (("first.cs", "new.star"), read_added, (either, general)),
    "latents": (("latents.cs", "latents.npy", "latents.txt"), read_latents, (either, general)),
    "MRC map": (("map.mrc",), READERS["map.mrc"], (mrc, general)),
    "MRC stack": (("stack.mrcs",), read_particles, (mrc, general)),
    "list of stacks": (("list.txt",), read_particles, (text, general)),
    "poses.pkl": (("poses.pkl",), READERS["poses.pkl"], (general,)),
    "ctf.pkl": (("ctf.pkl",), READERS["ctf.pkl"], (general,)),
    "ind.pkl": (("ind.pkl", "listed.pkl"), READERS["ind.pkl"], (general,)),
    "z.N.pkl": (("z.1.pkl",), READERS["z.1.pkl"], (general,)),
    "config.yaml": (("config.yaml",), read_run, (text, general)),
    "whitening": (("set.whitening.npz",), READERS["set.whitening.npz"], (archive, general)),
    "record of rows": (("copied.star.origin.npz",), read_copied, (archive, general)),
    "truth": (("set.truth.npz",), READERS["set.truth.npz"], (archive, general)),
    "model.safetensors": (("model.safetensors",), READERS["model.safetensors"], (tensors, general)),
    "model.pt": (("model.pt",), READERS["model.pt"], (general,)),
}


class Hang(BaseException):
    """An input took longer than the limit."""


def one(name: str, number: int, seed: int, folder: Path, good: dict[str, bytes]) -> str | None:
    """Read one damaged file; return "read", "refused" or a description of the failure."""
    files, read, damages = CAMPAIGN[name]
    rng = random.Random(f"{seed} {name} {number}")
    file = rng.choice(files)
    path = folder / file
    path.write_bytes(rng.choice(damages)(good[file], rng))
    started = time.perf_counter()
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            read(path)
        outcome = "read"
    except InputError as error:
        outcome = "memory: in an InputError" if "MemoryError" in str(error) or "allocate" in str(error) else "refused"
    except Hang:
        outcome = "hang"
    except MemoryError:
        outcome = "memory: " + origin()
    except BaseException as error:
        outcome = f"foreign: {type(error).__name__} {origin()}"
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        path.write_bytes(good[file])
    return outcome if time.perf_counter() - started < SECONDS else "hang"


def origin() -> str:
    """Return the deepest line of the package in the current traceback."""
    frames = [f for f in traceback.extract_tb(sys.exc_info()[2]) if "cryotwin_nb/" in f.filename]
    return f"{frames[-1].filename.rpartition('cryotwin_nb/')[2]}:{frames[-1].lineno}" if frames else "outside"


def work(name: str, first: int, last: int, seed: int) -> None:
    """Read the inputs from `first` to `last`; print the number and outcome of each failure and the counts."""
    os.nice(10)
    signal.signal(signal.SIGALRM, stop)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_set(folder)
        write_more(folder)
        files, read, _ = CAMPAIGN[name]
        good = {file: (folder / file).read_bytes() for file in files}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for file in files:  # also imports the modules that are loaded late, before memory is limited
                read(folder / file)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, resource.RLIM_INFINITY))
        for number in range(first, last):
            print(json.dumps({"at": number}), flush=True)
            outcome = one(name, number, seed, folder, good)
            counts[outcome.split(":")[0]] += 1
            if outcome not in ("read", "refused"):
                print(json.dumps({"number": number, "outcome": outcome}), flush=True)
    print(json.dumps({"counts": counts}), flush=True)


def stop(*_: object) -> None:
    raise Hang


def campaign(name: str, first: int, inputs: int, seed: int) -> dict:
    """Read the inputs in fresh processes, `BATCH` each; a process that dies is a failure of the input it was at."""
    counts: Counter[str] = Counter()
    failures: dict[str, int] = {}
    at, started = first, time.perf_counter()
    while at < first + inputs:
        last = min(at + BATCH, first + inputs)
        command = [sys.executable, __file__, "--worker", name, str(at), str(last), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        reached = max((line["at"] for line in lines if "at" in line), default=None)
        if reached is None:
            raise RuntimeError(done.stderr)
        for line in lines:
            if "outcome" in line:
                failures.setdefault(line["outcome"], line["number"])
        counts.update(next((line["counts"] for line in lines if "counts" in line), {}))
        if done.returncode:
            kind = f"the process ended with {done.returncode}: {done.stderr[-300:]}"
            failures.setdefault(kind, reached)
            counts.update({"crash": 1, "not counted": reached - at})
            last = reached + 1
        at = last
    result = {"inputs": inputs, "outcomes": dict(counts), "seconds": round(time.perf_counter() - started)}
    return result | ({"failures (first input of each)": failures} if failures else {})


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], *map(int, sys.argv[3:6]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(CAMPAIGN))
    options = parser.parse_args()
    results: dict = {"seed": options.seed, "machine": machine()}
    for name in options.only:
        results[name] = campaign(name, options.first, options.inputs, options.seed)
        print(name, json.dumps(results[name], indent=1), flush=True)
        if options.inputs > 1:
            write_results("fuzz_readers", results)


if __name__ == "__main__":
    main()
