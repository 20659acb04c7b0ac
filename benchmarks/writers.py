"""Two writers of one output, and Ctrl-C at random moments: python benchmarks/writers.py [--delays 20] [--moments 20].

`prepare`, `train` and `pathway` are started twice on one output with different options, the second after each
of several delays. One must finish with the result of a run alone, bit by bit; the other must be refused.

Then each command receives SIGINT at random moments from its start to its end. It must print one line, exit with status
130, and leave no hidden file but the unfinished stack of `prepare`.

Writes benchmarks/results/writers.json.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_results

import cryotwin_nb as ct

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
REFUSALS = ("is being written by process", "written by an earlier run")
READ = ["raw.star", "--contrast", "dark"]
TRAIN = ["train", *READ, "--latent-dim", "2", "--n-components", "3", "--epochs", "4", "--device", "cpu"]
ENDS = ["--start", "0", "--end", "1"]
MODEL, LATENTS = "run/model.safetensors", ["--latents", "run/latents.npy"]
PAIRS = {
    "prepare": (["prepare", *READ, "--output", "out/p.star", "--workers", "1"], ["--dtype", "float32"]),
    "train": ([*TRAIN, "--output", "out"], ["--seed", "1"]),
    "pathway": (["pathway", MODEL, *ENDS, "--output", "out"], ["--n-steps", "5"]),
}
COMMANDS = {
    **{name: words for name, (words, _) in PAIRS.items()},
    "look": ["look", *READ, "--n-images", "100", "--output", "out"],
    "embed": ["embed", MODEL, *READ, "--output", "out/z.npy"],
    "states": ["states", MODEL],
    "routes": ["routes", MODEL, *ENDS, "--output", "out"],
    "select": ["select", MODEL, *READ, *LATENTS, "--state", "0", "--output", "out/s.star"],
    "all states": ["select", MODEL, *READ, *LATENTS, "--all-states", "--output", "out"],
    "support": ["support", MODEL, *READ, *LATENTS, "--path", "path", "--output", "out/s.json"],
}


def start(words: list[str], folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "cryotwin_nb", *words]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    obey = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores SIGINT, and so its children
    try:
        return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **pipes)
    finally:
        signal.signal(signal.SIGINT, obey)


def make(folder: Path, n: int) -> None:
    """Write particles, a trained model and a path."""
    ct.simulate.hinge(n, 24, progress=False).write(folder / "raw.star", progress=False)
    for words in ([*TRAIN, "--output", "run"], ["pathway", MODEL, *ENDS, "--output", "path"]):
        process = start(words, folder)
        assert process.wait() == 0


def results(folder: Path) -> dict[str, Any]:
    """Return the numbers in an output, without times of writing."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".mrc", ".mrcs"):
            found[path.name] = path.read_bytes()[1024:]
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = {name: arrays[name].tobytes() for name in arrays if "notes" not in name}
        elif path.suffix == ".star":
            found[path.name] = path.read_bytes().partition(b"\n")[2]  # the first line contains the time
        elif path.suffix in (".json", ".mvsj"):  # times, and the digests of maps whose headers contain the time
            found[path.name] = re.sub(r'"(timestamp": "[^"]*"|sha256": \{[^}]*\})', "", path.read_text())
        elif path.suffix in (".safetensors", ".pt"):
            state = ct.CryoTwin.load(path).state_dict()
            found[path.name] = {name: value.numpy().tobytes() for name, value in state.items()}
        else:
            found[path.name] = path.read_bytes()
    return found


def alone(words: list[str], folder: Path) -> tuple[dict[str, Any], float]:
    """Return the results of a run alone, and its duration in seconds."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    began = time.perf_counter()
    process = start(words, folder)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    return results(folder / "out"), time.perf_counter() - began


def two_writers(name: str, folder: Path, n_delays: int) -> dict[str, Any]:
    """Start a command twice on one output with each delay; count the outcomes."""
    words, other = PAIRS[name][0], [*PAIRS[name][0], *PAIRS[name][1]]
    expected, duration = alone(words, folder)
    expected_other, _ = alone(other, folder)
    counts, times, said = Counter(), [], Counter()
    for delay in np.linspace(0, 0.9 * duration, n_delays):
        shutil.rmtree(folder / "out")
        (folder / "out").mkdir()
        first = start(words, folder)
        time.sleep(delay)
        began = time.perf_counter()
        second = start(other, folder)
        error = second.communicate()[1]
        seconds = time.perf_counter() - began
        error_first = first.communicate()[1]
        codes = first.returncode, second.returncode
        wanted, error = (expected, error) if codes == (0, 2) else (expected_other, error_first)
        counts["one finished, the other was refused"] += sorted(codes) == [0, 2]
        counts["bit-equal to a run alone"] += results(folder / "out") == wanted
        counts["the second was refused"] += codes == (0, 2)
        said[next((text for text in REFUSALS if text in error), error)] += 1
        if codes == (0, 2) and REFUSALS[0] in error:
            times.append(seconds)
    longest = {"seconds to the refusal, median": round(float(np.median(times)), 2), "longest": round(max(times), 2)}
    return {
        "delays": n_delays,
        **counts,
        "reasons": dict(said),
        **longest,
        "seconds of a run alone": round(duration, 2),
    }


def interrupted(name: str, folder: Path, n_moments: int, rng: np.random.Generator) -> dict[str, Any]:
    """Send SIGINT to a command at random moments; count the outcomes."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    began = time.perf_counter()
    assert start(COMMANDS[name], folder).communicate()[0] is None
    duration, counts = time.perf_counter() - began, Counter()
    for moment in rng.uniform(0, duration, n_moments):
        shutil.rmtree(folder / "out", ignore_errors=True)
        process = start(COMMANDS[name], folder)
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1].replace("\r", "\n")
        lines = error.count("Interrupted. ")
        outcome = f"status {process.returncode}, {lines} lines"
        if process.returncode == 130 and lines == 1 and "Traceback" not in error:
            outcome = "status 130, one line"
        elif process.returncode in (0, 1) and not lines and "Traceback" not in error:
            outcome = "finished before"
        elif "cryotwin_nb/" not in error and process.returncode in (1, -signal.SIGINT):  # Python's own start
            outcome = "before the first line of cryotwin_nb"
        else:
            print(name, moment, outcome, error, sep="\n")
        counts[outcome] += 1
        hidden = [path.name for path in folder.rglob(".*") if "unfinished" not in path.name]
        counts["hidden files left"] += len(hidden)
    return {"moments": n_moments, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", type=int, default=20, help="delays of the second writer")
    parser.add_argument("--moments", type=int, default=20, help="interruptions of each command")
    parser.add_argument("--n", type=int, default=1000, help="number of images")
    args = parser.parse_args()
    rng, pairs, stopped = np.random.default_rng(0), {}, {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder, args.n)
        for name in PAIRS if args.delays else ():
            pairs[name] = two_writers(name, folder, args.delays)
            print(name, pairs[name], flush=True)
        for name in COMMANDS if args.moments else ():
            stopped[name] = interrupted(name, folder, args.moments, rng)
            print(name, stopped[name], flush=True)
    write_results("writers", {"machine": machine(), "n": args.n, "two writers": pairs, "interrupted": stopped})


if __name__ == "__main__":
    main()
