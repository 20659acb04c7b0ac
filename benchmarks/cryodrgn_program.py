"""cryoDRGN as an external program: run its commands and read its output files, without importing any of its code."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import peak_memory
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.formats import cryodrgn
from cryotwin_nb.imaging.fourier import grid

WIDTH_256 = ("--enc-dim", "256", "--dec-dim", "256")


def write_inputs(particles: ct.Particles, stem: Path) -> None:
    """Write stem.star and stem.mrcs, and stem_poses.pkl and stem_ctf.pkl for cryoDRGN."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    size, pixel = particles.box_size, particles.pixel_size
    cryodrgn.write_poses(f"{stem}_poses.pkl", particles.rotations, particles.shifts, size, pixel)
    cryodrgn.write_ctf(f"{stem}_ctf.pkl", particles.ctf, size, pixel)
    particles.write(f"{stem}.star", progress=False)


@dataclass(frozen=True)
class Run:
    """A training run of `cryodrgn train_vae`.

    Attributes
    ----------
    executable : str
        The command.
    stem : Path
        Stem of the inputs that `write_inputs` wrote.
    folder : Path
        Folder of the run; epochs already in it are kept and continued.
    options : tuple of str
        Options in addition to those of every run. Without --uninvert-data the maps of these particles are negative.
    """

    executable: str
    stem: Path
    folder: Path
    options: tuple[str, ...] = ()

    def command(self, epochs: int) -> list[str]:
        inputs = [f"{self.stem}.mrcs", "--poses", f"{self.stem}_poses.pkl", "--ctf", f"{self.stem}_ctf.pkl"]
        fixed = ["--zdim", "8", "--no-analysis", "--uninvert-data", "-o", str(self.folder), "-n", str(epochs)]
        return [self.executable, "train_vae", *inputs, *fixed, *self.options]

    @property
    def epochs(self) -> int:
        """Epochs whose weights and latents are in the folder."""
        done = {kind: {int(f.suffixes[0][1:]) for f in self.folder.glob(f"{kind}.*.pkl")} for kind in ("weights", "z")}
        return max(done["weights"] & done["z"], default=0)

    @property
    def seconds(self) -> list[float]:
        """Seconds of each epoch, from the log, excluding the embedding of all images that follows an epoch."""
        found = {}
        for line in (self.folder / "run.log").read_text().splitlines():
            if match := re.search(r"=====> Epoch: (\d+) .*Finished in (\d+):(\d+):([\d.]+)", line):
                hours, minutes, seconds = map(float, match.groups()[1:])
                found[int(match[1])] = 3600 * hours + 60 * minutes + seconds
        return [found[epoch] for epoch in range(1, self.epochs + 1)]

    @property
    def peak_memory(self) -> float:
        """Peak memory of all blocks trained so far, GiB."""
        return max(map(float, (self.folder / "peak_memory.txt").read_text().split()))

    def train(self, epochs: int) -> None:
        """Train up to the given number of epochs; each block of epochs shuffles with a different seed."""
        done, peak = self.epochs, 0.0
        if done >= epochs:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [*self.command(epochs), "--seed", str(done)]
        command += ["--load", str(self.folder / f"weights.{done}.pkl")] if done else []
        log = self.folder / "output.txt"
        with open(log, "a") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
            while process.poll() is None:
                peak = max(peak, peak_memory(process.pid))
                time.sleep(0.5)
        if process.returncode:
            raise RuntimeError(f"cryoDRGN ended with {process.returncode}: see {log}")
        with open(self.folder / "peak_memory.txt", "a") as file:
            file.write(f"{peak}\n")

    def throughput(self, n_images: int) -> tuple[float, float]:
        """Return images per second in steady state and GiB, from the start of an epoch that is then stopped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        seen: list[tuple[int, float]] = []
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen([*self.command(1), "--log-interval", "32"], **pipes) as process:
            for line in process.stdout:
                if match := re.search(r"\[(\d+)/\d+ particles\]", line):
                    seen.append((int(match[1]), time.perf_counter()))
                    peak = peak_memory(process.pid)
                    if seen[-1][0] >= n_images:
                        process.kill()
                        break
        if len(seen) < 3:
            raise RuntimeError(f"cryoDRGN reported {len(seen)} times, expected 3 or more: give more images")
        (first, began), (last, ended) = seen[1], seen[-1]
        return (last - first) / (ended - began), peak

    def latents(self, epoch: int) -> Tensor:
        """Return the posterior means (n, 8) of the latents after an epoch."""
        return torch.as_tensor(cryodrgn.read_latents(self.folder / f"z.{epoch}.pkl")[0])

    def volumes(self, epoch: int, z: Tensor, pixel_size: float) -> Tensor:
        """Return maps (m, D, D, D) at latents (m, 8) after an epoch, by one call of `cryodrgn eval_vol`.

        As with `CryoTwin.volumes`, the mean density is set such that it is 0 outside the particle's radius.
        """
        table, maps = self.folder / "z.txt", self.folder / "maps"
        for old in maps.glob("*.mrc"):
            old.unlink()
        np.savetxt(table, z.numpy())
        command = [self.executable, "eval_vol", self.folder / f"weights.{epoch}.pkl", "-c", self.folder / "config.yaml"]
        command += ["--zfile", table, "-o", maps, "--Apix", str(pixel_size)]
        subprocess.run(command, check=True, capture_output=True)
        files = sorted(maps.glob("*.mrc"), key=lambda file: int(file.stem.split("_")[1]))
        volumes = torch.stack([torch.as_tensor(ct.read_map(file)[0]) for file in files])
        outside = grid(volumes.shape[-1], 3).float().norm(dim=-1) > 0.4 * volumes.shape[-1]
        return volumes - volumes[:, outside].mean(1)[:, None, None, None]


def in_one_call(measure: Callable, decode: Callable[[Tensor], Tensor], box_size: int) -> object:
    """Return measure(decode) for a slow decoder: a dry run with dummy maps collects all latents for a single call."""
    asked: list[Tensor] = []

    def record(z: Tensor) -> Tensor:
        asked.append(z)
        return torch.rand(len(z), box_size, box_size, box_size)

    measure(record)
    maps = iter(decode(torch.cat(asked)).split([len(z) for z in asked]))
    return measure(lambda _: next(maps))
