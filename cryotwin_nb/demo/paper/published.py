"""The paper's own data set, EMPIAR-10076, from the files of cryoDRGN's tutorial: what is there, and what it takes."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch

from cryotwin_nb import data
from cryotwin_nb.demo.paper.training import PAPER, minutes_of
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.cryodrgn import read_indices
from cryotwin_nb.formats.pickles import read_pickles
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.preparation import prepare
from cryotwin_nb.runtime.memory import available

NAME = "empiar-10076"
_STACKS = ("particles.*.txt", "particles.*.mrcs", "Parameters.star")
_POSES, _CTF, _KEPT = ("poses.pkl",), ("ctf.pkl",), ("filtered.ind.pkl", "ind.pkl", "ind_keep.pkl")
_LABELS = ("published_labels.*", "labels.*")
_CRYODRGN = (f"cryodrgn-{NAME}.npz",)
_SAMPLE = 120  # images of the trial
_GIB_AT_128 = 4.0  # peak of a training at 128 voxels, images streamed (benchmarks/results/published_layout.json)
_BYTES_BESIDE = 200e6  # models, checkpoints and figures


@dataclass(frozen=True)
class Published:
    """Files of the data set in one folder, or in its subfolder `inputs`.

    Attributes
    ----------
    folder : Path
        Folder of the files.
    stack : Path
        Particles: list of stacks (.txt), stack (.mrcs) or STAR file.
    poses, ctf : Path
        Pose and CTF files for cryoDRGN.
    kept, labels, cryodrgn : Path or None
        Selection of particles; published labels, one per particle; stored results or a run folder of cryoDRGN.
    """

    folder: Path
    stack: Path
    poses: Path
    ctf: Path
    kept: Path | None
    labels: Path | None
    cryodrgn: Path | None

    @classmethod
    def find(cls, folder: Path) -> Published:
        """Find the files in a folder.

        Raises
        ------
        InputError
            If the stack, the poses or the CTF are missing.
        """
        found = {name: _first(folder, names) for name, names in (("stack", _STACKS), ("poses", _POSES), ("ctf", _CTF))}
        lacking = [names[0] for (name, path), names in zip(found.items(), (_STACKS, _POSES, _CTF)) if path is None]
        if lacking:
            remedy = f"`cryotwin_nb.data.download({NAME!r}, {str(folder)!r})` fetches the files of the archive (51 GB)."
            raise InputError(folder, f"no {', '.join(lacking)}", "the files of cryoDRGN's tutorial", remedy)
        run = next((path.parent for path in sorted(folder.glob("*/z.*pkl"))), None)
        kept, labels, results = (_first(folder, names) for names in (_KEPT, _LABELS, _CRYODRGN))
        stack, poses, ctf = (path for path in found.values() if path is not None)
        return cls(folder, stack, poses, ctf, kept, labels, results or run)

    def particles(self) -> Particles:
        """Read the selected particles; images are read when they are needed."""
        return Particles.read(self.stack, datadir=self.stack.parent, poses=self.poses, ctf=self.ctf, indices=self.kept)

    def labels_of(self, n: int) -> np.ndarray | None:
        """Return the labels (n,) of the n selected particles as text, from one per particle of the stack or of these.

        Raises
        ------
        InputError
            If there are neither as many labels as particles in the stack nor as many as selected ones.
        """
        if self.labels is None:
            return None
        labels = _read_labels(self.labels)
        if len(labels) != n and self.kept is not None:
            rows = read_indices(self.kept)
            if rows.dtype == bool or rows.max() < len(labels):
                labels = labels[rows]
        if len(labels) != n:
            raise InputError(self.labels, f"{len(labels):,} labels", f"{n:,}", "Pass one label per particle.")
        return labels

    def notes(self) -> list[str]:
        """Return what cannot be verified and what is missing, one sentence each.

        Raises
        ------
        InputError
            If a file differs from the published checksum.
        """
        known, unverified = data.datasets()[NAME].files, []
        for file in known:
            path = _first(self.folder, (file.name,))
            if path is None:
                continue
            if file.sha256 == data.UNVERIFIED:
                unverified.append(file.name)
            elif (found := pooch.file_hash(str(path), alg="sha256")) != file.sha256:
                raise InputError(path, f"sha256 {found}", file.sha256, "Download the file again.")
        notes = []
        if unverified:
            notes.append(f"No checksum is published for {', '.join(unverified)}: their content is not verified.")
        if self.kept is None:
            notes.append(f"No {_KEPT[0]}: all particles are used, junk included.")
        if self.labels is None:
            notes.append("No published labels (published_labels.txt, .npy or .pkl): the states are named S1, S2, ...")
        if self.cryodrgn is None:
            notes.append(f"No {_CRYODRGN[0]} and no run folder of cryoDRGN: its column is left out.")
        elif self.cryodrgn.is_dir():
            notes.append("cryoDRGN: latents of a run folder; its maps and its isometry need its program: left out.")
        return notes


@dataclass(frozen=True)
class Plan:
    """Space, memory and time that the figures of a data set take on this machine."""

    published: Published
    particles: Particles
    box_size: int
    output: Path
    hours: dict[str, float]
    measured: int

    @classmethod
    def of(cls, published: Published, output: Path, box_size: int) -> Plan:
        """Check that memory and disk suffice, then time a sample of the images.

        Raises
        ------
        InputError
            If the disk or the memory is too small.
        """
        particles = published.particles()
        plan = cls(published, particles, min(box_size, particles.box_size), output, {}, 0)
        plan.require_room()
        rows = np.linspace(0, len(particles) - 1, min(_SAMPLE, len(particles))).astype(int)
        return cls(published, particles, plan.box_size, output, plan._timed(particles[rows]), len(rows))

    @property
    def disk(self) -> float:
        """Bytes of the prepared stack (float16), models and figures."""
        return 2.0 * len(self.particles) * self.box_size**2 + _BYTES_BESIDE

    @property
    def memory(self) -> float:
        """Bytes of memory at the peak of training."""
        return _GIB_AT_128 * 2**30 * max((self.box_size / 128) ** 3, 0.1)

    def require_room(self) -> None:
        """Raise `InputError` if the disk or the memory is too small."""
        for name, where, needed, free in (
            ("disk", self.output, self.disk, float(shutil.disk_usage(_existing(self.output)).free)),
            ("memory", f"box size {self.box_size}", self.memory, available()),
        ):
            if needed > free:
                sentence = f"{where}: {name} of {needed / 1e9:.1f} GB is needed, and {free / 1e9:.1f} GB is free."
                remedy = "Free some, or choose a smaller --box-size or another --output."
                raise InputError(where, f"{free / 1e9:.1f} GB", f"{needed / 1e9:.1f} GB", remedy, sentence)

    def __str__(self) -> str:
        size, hours = self.particles.box_size, ", ".join(f"{name} {h:.2g} h" for name, h in self.hours.items())
        machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
        lines = [
            f"{NAME}: {len(self.particles):,} particles of {size} x {size} pixels in {self.published.stack}, "
            f"used at {self.box_size} x {self.box_size}",
            f"disk: {self.disk / 1e9:.1f} GB in {self.output}; memory: {self.memory / 1e9:.1f} GB",
            f"time on this machine ({machine}): {hours}; extrapolated from {self.measured} images",
            "not run by us: these figures have been drawn from simulated images in this layout only",
            *self.published.notes(),
        ]
        return "\n".join(lines)

    def prepared(self) -> Particles:
        """Return the particles of the prepared stack, which is written first, or continued, if it is not there."""
        file = self.output / f"{NAME}.{self.box_size}.star"
        if not file.exists():
            prepare(self.particles, file, box_size=self.box_size)
        found = Particles.read(file, contrast="dark")
        if len(found) != len(self.particles):
            remedy = "Remove it, or choose another --output."
            raise InputError(file, f"{len(found):,} particles", f"{len(self.particles):,}", remedy)
        return found

    def _timed(self, sample: Particles) -> dict[str, float]:
        """Return the hours of each step, from a sample of the images."""
        scale = len(self.particles) / len(sample) / 60
        with tempfile.TemporaryDirectory() as folder:
            file, started = Path(folder) / "sample.star", time.perf_counter()
            prepare(sample, file, box_size=self.box_size, progress=False)
            hours = {"preparing": (time.perf_counter() - started) * scale / 60}
            small = Particles.read(file, contrast="dark")
            for name in ("subspace", "coordinate"):
                model = CryoTwin(self.box_size, name, **PAPER)  # type: ignore[arg-type]
                hours[name] = minutes_of(model, small, len(self.particles)) / 60
        return hours


def _first(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    """Return the first file that matches a pattern, in a folder or its subfolder `inputs`."""
    for pattern in patterns:
        for place in (folder, folder / "inputs"):
            for path in sorted(place.glob(pattern)):
                return path
    return None


def _read_labels(path: Path) -> np.ndarray:
    if path.suffix == ".pkl":
        (content,) = read_pickles(path)
    else:
        content = np.load(path, allow_pickle=False) if path.suffix == ".npy" else path.read_text("utf-8").split()
    return np.asarray(content).astype(str).ravel()


def _existing(path: Path) -> Path:
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
