"""A first look at particles: a map in seconds, and whether poses, CTF and contrast are what the file says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.preparation.changes import (
    OTHERS,
    Change,
    ctf_changes,
    pixel_changes,
    pixel_name,
    pose_changes,
    shift_changes,
)
from cryotwin_nb.preparation.findings import Finding, FirstLook
from cryotwin_nb.preparation.hypotheses import Assumption, Sample, without_ctf
from cryotwin_nb.preparation.pose_errors import typical_errors

_LEAST, _LARGEST = 32, 48  # pixels of the coarse grid: half of those of the images, within these
_CERTAIN = 6.0  # standard errors by which another state has to predict better
_IN_FOCUS = 500.0  # Å: no image is recorded with less, apart from those whose defocus is not in the file
_PARTLY = 0.1  # by how much of it the gain has to rise if some images are taken to have no CTF
_DEGREES = 4.25  # errors of poses that cost: see benchmarks/pose_errors.py
_BLUR = 0.19  # errors of shifts that cost: share of the finest detail looked at, whose amplitude they halve
_PART_WITHOUT, _PART_FLIPPED = "CTF missing in a part", "phases of a part flipped"

_ADVICE = {
    "pose": "Correct the conversion of the angles; every program's convention is in Particles.read(poses=...).",
    "shift": "Correct the sign, order or unit of the shifts: Å, added to the image to centre it.",
    "ctf": "Extract the particles with the CTF left as it is, or correct the CTF columns of the file.",
    "pixel": "Check the pixel size (after binning, too) and give pixel_size= in Å; a wrong defocus looks alike.",
}


def first_look(particles: Particles, n_images: int = 2000, seed: int = 0, progress: bool = False) -> FirstLook:
    """Reconstruct a coarse map of some particles, and test what the file says about them against alternatives.

    Parameters
    ----------
    particles : Particles
        With poses and CTF.
    n_images : int
        At most this many are looked at, drawn at random.
    seed : int
        Seed of the random draw.

    Returns
    -------
    FirstLook
        Map, half maps and their correlation, scores of the alternatives, and findings with advice.

    Raises
    ------
    InputError
        If there are fewer than 100 images, or they lack poses or CTF.

    Notes
    -----
    The alternatives: see `hypotheses`. The best is taken on before others are tried, until none predicts better.
    Whether the contrast is right shows in the map: density is positive.
    """
    particles.require_views()
    if min(len(particles), n_images) < 100:
        found = f"{min(len(particles), n_images)} images"
        raise InputError("first_look", found, "at least 100", "Give more particles.")
    size = particles.box_size
    sample = Sample(particles, n_images, min(size, max(_LEAST, min(_LARGEST, size // 4 * 2))), seed)
    with tqdm(desc="first look", unit="hypothesis", disable=not progress) as bar:
        return _Look(sample, seed, bar).result()


class _Look:
    """One first look: what is taken to be true by now, and what was found on the way."""

    def __init__(self, sample: Sample, seed: int, bar: tqdm) -> None:
        self.sample, self.seed, self.bar = sample, seed, bar
        self.state = sample.stated()
        self.findings: list[Finding] = []
        self.scores: dict[str, float] = {}
        self._flipped = 0.0  # share of the images that look phase-flipped

    def result(self) -> FirstLook:
        sample, stated = self.sample, self.state
        half_maps = torch.stack([sample.reconstruct(stated, rows) for rows, _ in sample.halves()])
        whole = sample.reconstruct(stated, torch.arange(len(sample)))
        gains = sample.gains(stated, list(half_maps))
        voxel, gain = sample.particles.pixel_size, float(gains.mean())
        if self._has_ctf():
            self._alternatives()
            self._contrast()
        errors = typical_errors(self.sample, self.state)
        self._errors(*errors)
        curve, n = fsc(half_maps[0], half_maps[1], voxel), len(sample)
        return FirstLook(n, voxel, whole, half_maps, curve, gain, self.scores, *errors, tuple(self.findings))

    def _gains(self, state: Assumption) -> Tensor:
        self.bar.update()
        return self.sample.gains(state)

    def _has_ctf(self) -> bool:
        """Whether the file has the defocus of enough images to go on; only those are looked at further."""
        ctf = self.state.ctf
        defocus = np.maximum(np.abs(ctf.defocus_u), np.abs(ctf.defocus_v))
        missing = torch.as_tensor((defocus < _IN_FOCUS) & (ctf.phase_shift == 0))
        share = float(missing.float().mean())
        if share < 0.001:
            return True
        evidence = f"a defocus of at most {_IN_FOCUS / 1e4:g} µm for {100 * share:.0f} % of the images"
        gains, enough = self._gains(self.state), int((~missing).sum()) >= 50
        if enough:
            evidence += f", which gain {float(gains[missing].mean()):.1f} nats, the others {gains[~missing].mean():.1f}"
            self.sample = self.sample.part(~missing)
            self.state = self.sample.stated()
        whole = "all" if share > 0.999 else f"{100 * share:.0f} % of the"
        advice = "Read the CTF from the job that estimated it, or leave these images out with indices=."
        self.findings.append(Finding(f"CTF parameters missing for {whole} images", evidence, advice))
        return enough

    def _alternatives(self) -> None:
        """Take on the best alternative as long as one predicts better than what is taken to be true."""
        for attempt in range(3):
            gains = self._gains(self.state)
            tried = {name: (family, state, self._gains(state)) for family, name, state in self._changed()}
            better = {name: float((tried[name][2] - gains).mean()) for name in tried}
            # Other species than that of the average map look like images with another CTF, but not by much.
            better[_PART_WITHOUT] -= _PARTLY * max(float(gains.mean()), 1.0)
            if attempt == 0:
                self.scores |= better
            certain = [name for name in tried if self._is_certain(name, tried[name][2] - gains, better)]
            best = max(certain, key=better.__getitem__, default=OTHERS)
            family, state, after = tried[best]
            if (best == OTHERS or family not in ("pose", "shift")) and self._without_poses(tried[OTHERS][2], gains):
                return
            if best == OTHERS:
                return
            if family == "pixel":
                state, after = self._interpolated(state, better)
            self.state = state
            self._note(best, family, float(gains.mean()), float(after.mean()))

    def _interpolated(self, state: Assumption, better: dict) -> tuple[Assumption, Tensor]:
        """The state with the pixel size at the top of a parabola through the best and its neighbours."""
        scores = [better.get(pixel_name(state.pixel + step), 0.0) for step in (-0.05, 0.0, 0.05)]  # 0: the present one
        bend = scores[0] - 2 * scores[1] + scores[2]
        if abs(state.pixel - 1) < 0.14 and bend < 0:
            state = replace(state, pixel=state.pixel + 0.025 * (scores[0] - scores[2]) / bend)
        return state, self._gains(state)

    def _changed(self) -> Iterator[tuple[str, str, Assumption]]:
        """The alternatives to the present state: family, name, state."""
        families: dict[str, dict[str, Change]] = {
            "pose": pose_changes(self.seed),
            "shift": shift_changes(self.sample.full_pixel_size) if bool(self.state.shifts.any()) else {},
            "ctf": ctf_changes(),
            "pixel": pixel_changes() if self.state.pixel == 1 else {},
        }
        for family, changes in families.items():
            for name, change in changes.items():
                yield family, name, change(self.state)
        yield "ctf", _PART_WITHOUT, without_ctf(self.sample, self.state)
        yield "ctf", _PART_FLIPPED, self._partly_flipped()

    def _partly_flipped(self) -> Assumption:
        """The state in which those images have flipped phases that are likelier so."""
        gain, self._flipped, error = self.sample.flips(self.state)
        if self._flipped < max(0.15, 4 * error):
            return self.state
        kind = torch.where((self.state.kind == 0) & (gain > 0), 2, self.state.kind)
        return replace(self.state, kind=kind)

    def _is_certain(self, name: str, difference: Tensor, better: dict[str, float]) -> bool:
        mean, error = float(difference.mean()), float(difference.std()) / len(difference) ** 0.5
        return name != OTHERS and better[name] > 0 and mean > _CERTAIN * error

    def _note(self, name: str, family: str, before: float, after: float) -> None:
        evidence = f"so the images gain {after:.1f} nats each, as the file says {before:.1f}"
        if family == "pixel":
            given = self.sample.full_pixel_size
            evidence = f"with about {given * self.state.pixel:.3g} Å instead of {given:.3g} Å {evidence[3:]}"
        if name in (_PART_WITHOUT, _PART_FLIPPED):
            share = self._flipped if name == _PART_FLIPPED else float((self.state.kind == 1).float().mean())
            name = f"{name.removesuffix(' in a part').replace(' of a part', '')} in {100 * share:.0f} % of the images"
        self.findings.append(Finding(name, evidence, _ADVICE[family]))

    def _without_poses(self, exchanged: Tensor, gains: Tensor) -> bool:
        """Whether the poses predict no better than those of other particles do: then nothing else can be told."""
        difference = gains - exchanged
        if float(difference.mean()) > _CERTAIN * float(difference.std()) / len(gains) ** 0.5:
            return False
        evidence = f"the images gain {float(gains.mean()):.1f} nats each with them, {float(exchanged.mean()):.1f} with"
        advice = "Check that poses and images are in the same order, and that the shifts are in Å."
        self.findings.append(Finding("poses do not fit the images", f"{evidence} those of other particles", advice))
        return True

    def _contrast(self) -> None:
        """Density is positive: the positive part of the map has to predict better than the negative one."""
        positive, negative = self.sample.signs(self.state)
        self.scores["contrast inverted"] = negative - positive
        if negative <= 1.2 * positive:
            return
        parts = f"{negative:.1f} against {positive:.1f} nats"
        evidence = f"the negative part of the map predicts the images better than the positive one ({parts})"
        other = "light" if self.sample.particles.contrast == "dark" else "dark"
        advice = f"Read the particles with contrast={other!r}."
        self.findings.append(Finding("contrast inverted", evidence, advice))

    def _errors(self, degrees: float, shift: float) -> None:
        """Errors of poses and shifts that cost resolution and what the latents tell, if all else is right."""
        if self.findings:
            return
        costs = "Refine the poses locally, or leave the worst images out; small motions will not be told apart."
        if degrees > _DEGREES:
            evidence = f"typically {degrees:.1f}° (large motions of the molecule look alike)"
            self.findings.append(Finding("rotations are inexact", evidence, costs))
        finest = 2 * self.sample.particles.pixel_size
        if shift > _BLUR * finest:
            evidence = f"typically {shift:.1f} Å along each axis, which blurs what is finer than {5.3 * shift:.2g} Å"
            self.findings.append(Finding("shifts are inexact", evidence, costs))
