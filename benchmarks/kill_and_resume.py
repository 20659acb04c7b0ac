"""Training runs killed at random times and resumed: python benchmarks/kill_and_resume.py [--kills 20].

For each architecture, `python -m cryotwin_nb train ... --resume` is started repeatedly and killed (SIGKILL) after a
random time, until it has been killed the given number of times; the last run finishes. Model and latents must then be
bit-identical to those of an uninterrupted run.

Writes benchmarks/results/kill_and_resume.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import machine, write_results

import cryotwin_nb as ct

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SETTINGS = {
    "subspace": "--latent-dim 3 --n-components 8 --epochs 10 --batch-size 32",
    "coordinate": "--latent-dim 2 --n-components 4 --epochs 3 --batch-size 16 --checkpoint-minutes 0.002",
}


def command(star: Path, output: Path, architecture: str) -> list[str]:
    start = [sys.executable, "-m", "cryotwin_nb", "train", str(star), "--output", str(output), "--resume"]
    return [*start, "--architecture", architecture, "--device", "cpu", "--cache-gib", "0", "--contrast", "dark",
            *SETTINGS[architecture].split()]  # fmt: skip


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def modified(path: Path) -> int:
    """Return the modification time of a file in nanoseconds; 0 if it does not exist."""
    return path.stat().st_mtime_ns if path.exists() else 0


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors stored by a finished run."""
    latents = torch.as_tensor(np.load(folder / "latents.npy"))
    return ct.CryoTwin.load(folder / "model.safetensors").state_dict() | {"latents": latents}


def kill_and_resume(folder: Path, star: Path, architecture: str, n_kills: int, rng: np.random.Generator) -> dict:
    """Compare an uninterrupted run with one that is killed `n_kills` times."""
    whole, killed = folder / f"{architecture}-whole", folder / f"{architecture}-killed"
    began = time.perf_counter()
    assert start(command(star, whole, architecture)).wait() == 0
    duration = time.perf_counter() - began
    runs, moments, advanced = 0, [], 0
    while len(moments) < n_kills:
        process, before = start(command(star, killed, architecture)), modified(killed / "checkpoint.pt")
        # any time after the start of the process; every third time only after further progress
        waits_for_progress = runs % 3 == 0
        began = time.perf_counter()
        while waits_for_progress and process.poll() is None and modified(killed / "checkpoint.pt") == before:
            time.sleep(0.005)
        wait = rng.uniform(0, 0.1 * duration if waits_for_progress else 0.7 * duration)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            moments.append(round(time.perf_counter() - began, 3))
        advanced += modified(killed / "checkpoint.pt") > before
        runs += 1
        if process.returncode == 0:  # it finished before the kill: start a new run
            compare(whole, killed)
            for file in killed.iterdir():
                file.unlink()
    assert start(command(star, killed, architecture)).wait() == 0
    compare(whole, killed)
    left = sorted(path.name for path in killed.iterdir())
    return {
        "kills": len(moments),
        "seconds from start to kill": moments,
        "runs that came further before they were killed": advanced,
        "seconds of the uninterrupted run": duration,
        "equal to the bit": True,
        "files left": left,
    }


def compare(whole: Path, killed: Path) -> None:
    """Exit with an error unless two finished runs stored the same results."""
    expected, found = tensors(whole), tensors(killed)
    different = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    if different or expected.keys() != found.keys():
        raise SystemExit(f"{killed}: differs from an uninterrupted run in {different}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of kills per architecture")
    parser.add_argument("--n", type=int, default=200, help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random times")
    parser.add_argument("--folder", type=Path, default=Path("results/kill_and_resume"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if any(args.folder.iterdir()):
        parser.error(f"{args.folder} is not empty")
    star = args.folder / "particles.star"
    ct.simulate.assembly(args.n, 16, pixel_size=20.0, progress=False).write(star, progress=False)
    rng = np.random.default_rng(args.seed)
    results = {kind: kill_and_resume(args.folder, star, kind, args.kills, rng) for kind in SETTINGS}
    write_results("kill_and_resume", {"machine": machine(), "n": args.n, **results})
    for kind, result in results.items():
        print(f"{kind}: killed {result['kills']} times, bit-identical")


if __name__ == "__main__":
    main()
