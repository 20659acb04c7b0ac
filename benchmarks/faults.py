"""Damaged and exchanged files: python benchmarks/faults.py [--trials 500].

Files of a small training run are damaged by flipping 1 to 4 bits and read again. A damaged file must be refused with an
InputError, or be read with every number unchanged. Then files of different runs and stacks are combined, all of which
must be refused.

Writes benchmarks/results/faults.json: for each kind, how many files were refused, how many were read with all numbers
unchanged, how many with others, how many raised another exception, and the longest time to read one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, write_results

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from stopping import plain

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main as cryotwin
from cryotwin_nb.cli.reading import require_own_latents
from cryotwin_nb.exchange.latents import latents_of
from cryotwin_nb.models.payload import read_payload
from cryotwin_nb.models.storage import read_model

TRAINING = ["--contrast", "dark", "--latent-dim", "2", "--n-components", "3", "--epochs", "1", "--device", "cpu"]
KINDS = ("refused", "read, numbers unchanged", "read, numbers changed", "other exception")


def flipped(content: bytes, part: range, rng: np.random.Generator) -> bytes:
    """Return a file with 1 to 4 bits flipped among the bytes `part`."""
    changed = np.frombuffer(content, np.uint8).copy()
    bits = 8 * part.start + rng.choice(8 * len(part), rng.integers(1, 5), replace=False)
    np.bitwise_xor.at(changed, bits // 8, (1 << (bits % 8)).astype(np.uint8))
    return changed.tobytes()


def outcome(read: Callable[[], Any], expected: Any) -> str:
    """Return which of `KINDS` an attempt to read a file belongs to."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read()
    except ct.InputError:
        return KINDS[0]
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return KINDS[3]
    return KINDS[1] if plain(found) == expected else KINDS[2]


def damaged(path: Path, read: Callable[[], Any], part: range | None, trials: int, seed: int = 0) -> dict[str, float]:
    """Flip bits among the bytes `part` of a file (default: all), and count what reading it leads to."""
    content, rng = path.read_bytes(), np.random.default_rng(seed)
    part = part or range(len(content))
    counts, longest = dict.fromkeys(KINDS, 0), 0.0
    expected = plain(read())
    for _ in range(trials):
        path.write_bytes(flipped(content, part, rng))
        began = time.perf_counter()
        counts[outcome(read, expected)] += 1
        longest = max(longest, time.perf_counter() - began)
    path.write_bytes(content)
    return {**counts, "bytes": len(part), "longest read, s": round(longest, 3)}


def make(folder: Path, n: int) -> None:
    """Write raw and prepared particles, and train two models on them that differ in their seeds."""
    ct.simulate.hinge(n, 16, progress=False).write(folder / "raw.star", progress=False)
    prepared = folder / "prepared.star"
    assert cryotwin(["prepare", f"{folder / 'raw.star'}", "--contrast", "dark", "--output", f"{prepared}"]) == 0
    for seed in (0, 1):
        run = ["train", f"{prepared}", "--output", f"{folder / f'run{seed}'}", "--seed", f"{seed}"]
        assert cryotwin([*run, *TRAINING]) == 0


def stored(folder: Path) -> dict[str, tuple[Path, Callable[[], Any], range | None]]:
    """Return each kind of file, a function that reads all numbers in it, and the bytes to damage if not all."""
    run, star = folder / "run0", folder / "prepared.star"
    model, particles = ct.CryoTwin.load(run / "model.safetensors"), ct.Particles.read(star)
    old = folder / "earlier.pt"
    torch.save(read_payload(run / "checkpoint.pt"), old)  # as written by earlier builds, without a seal

    def latents() -> np.ndarray:
        require_own_latents(run / "latents.npy", model, run / "model.safetensors")
        return latents_of(particles, run / "latents.npy")[1]

    def whitening() -> list[Any]:
        read = ct.Particles.read(star)
        return [vars(read.whitening), read.unwhitened(slice(0, 5))]

    saved, checkpoint = run / "model.safetensors", run / "checkpoint.pt"
    header = range(8 + int.from_bytes(saved.read_bytes()[:8], "little"))
    with zipfile.ZipFile(old) as archive:
        directory = range(archive.start_dir, old.stat().st_size)
    return {
        "model.safetensors": (saved, lambda: read_model(saved), None),
        "model.safetensors, header": (saved, lambda: read_model(saved), header),
        "checkpoint.pt": (checkpoint, lambda: read_payload(checkpoint), None),
        "checkpoint.pt of an earlier build": (old, lambda: read_payload(old), None),
        "checkpoint.pt of an earlier build, zip directory": (old, lambda: read_payload(old), directory),
        "latents.npy": (run / "latents.npy", latents, None),
        "latents.npy.origin.npz": (run / "latents.npy.origin.npz", latents, None),
        "prepared.whitening.npz": (folder / "prepared.whitening.npz", whitening, None),
        "prepared.truth.npz": (folder / "prepared.truth.npz", lambda: vars(ct.Particles.read(star).truth), None),
    }


def exchanged(folder: Path) -> dict[str, bool]:
    """Combine files that do not belong together; return for each combination whether it was refused."""
    star, runs = folder / "prepared.star", [folder / "run0", folder / "run1"]
    model, latents, points = (runs[0] / "model.safetensors", runs[1] / "latents.npy", folder / "points.npy")
    np.save(points, np.load(runs[0] / "latents.npy")[:2])
    given = ["--latents", f"{latents}"]
    commands = {
        "select": [f"{star}", *given, "--state", "S1", "--output", f"{folder / 's.star'}"],
        "support": [f"{star}", *given, "--path", f"{points}"],
        "routes": [*given, "--start", "0", "--end", "1"],
    }
    refused = {
        f"{name} with latents of another model": cryotwin([name, f"{model}", *arguments]) == 2
        for name, arguments in commands.items()
    }
    resumed = [*TRAINING, "--seed", "1", "--resume", "--checkpoint", f"{runs[0] / 'checkpoint.pt'}"]
    command = ["train", f"{star}", "--output", f"{folder / 'resumed'}", *resumed]
    refused["train --resume with a checkpoint of another run"] = cryotwin(command) == 2
    for suffix in (".star", ".mrcs", ".whitening.npz"):
        refused[f"{suffix} of another set of as many particles"] = mixed(folder, suffix)
    return refused


def mixed(folder: Path, suffix: str) -> bool:
    """Replace one file of a prepared set by one of another set; return whether the result is refused."""
    place = folder / "mixed"
    place.mkdir()
    for path in folder.glob("prepared.*"):
        shutil.copy(path, place / path.name)
    n = len(ct.Particles.read(folder / "prepared.star"))
    other = ct.simulate.hinge(n, 16, seed=1, progress=False)
    ct.prepare(other, folder / "other" / "prepared.star", progress=False)
    source = folder / ("raw.star" if suffix == ".star" else f"other/prepared{suffix}")
    shutil.copy(source, place / f"prepared{suffix}")
    shutil.copy(folder / "raw.mrcs", place / "raw.mrcs")
    read = outcome(lambda: ct.Particles.read(place / "prepared.star", contrast="dark"), None)
    shutil.rmtree(place)
    return read == KINDS[0]


def seconds_per_gib(size: int = 2**28) -> float:
    """Return the time to compute the checksum of a model, per GiB."""
    from cryotwin_nb.models.storage import fingerprint

    state = {"networks.weights": torch.rand(size // 4)}
    began = time.perf_counter()
    fingerprint(state)
    return round((time.perf_counter() - began) * 2**30 / size, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500, help="damaged files of each kind")
    parser.add_argument("--n", type=int, default=100, help="number of images")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, args.n)
        flips = {}
        for kind, (path, read, part) in stored(folder).items():
            flips[kind] = damaged(path, read, part, args.trials)
            print(kind, flips[kind], flush=True)
        combined = exchanged(folder)
    results = {"machine": machine(), "flipped bits": flips, "exchanged files refused": combined}
    write_results("faults", results | {"checksum, s per GiB": seconds_per_gib()})
    for what, refused in combined.items():
        print(f"{what}: {'refused' if refused else 'accepted'}")


if __name__ == "__main__":
    main()
