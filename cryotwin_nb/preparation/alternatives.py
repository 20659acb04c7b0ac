"""Tests of the metadata of particles against alternatives, each adopted if it certainly predicts the images better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.preparation.changes import (
    OTHERS,
    Change,
    ctf_changes,
    pixel_changes,
    pixel_name,
    pose_changes,
    shift_changes,
)
from cryotwin_nb.preparation.findings import Finding
from cryotwin_nb.preparation.hypotheses import Assumption, Sample, without_ctf
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes
from cryotwin_nb.reconstruction.pose_errors import PoseErrors, pose_errors, quick_subspace

_CERTAIN = 6.0  # number of standard errors by which an alternative must predict better
_IN_FOCUS = 500.0  # Å; no image is recorded closer to focus, so smaller values mean that the defocus is missing
_PARTLY = 0.1  # relative increase in gain required before some images are assumed to have no CTF
_OTHER_UNIT = 0.2  # relative errors left by another unit of the shifts, above which the shifts are inexact instead
_FOR_POSES = 2000  # images from which errors of the poses are estimated
_PART_WITHOUT, _PART_FLIPPED = "CTF missing in a part", "phases of a part flipped"

_ADVICE = {
    "pose": "Correct the conversion of the angles; Particles.read(poses=...) documents the convention of each program.",
    "shift": "Correct the sign, order or unit of the shifts: moving an image by its shift, in Å, must centre it.",
    "ctf": "Extract the particles without CTF correction, or correct the CTF columns of the file.",
    "pixel": "Check the pixel size (also after binning) and pass pixel_size= in Å; a wrong defocus looks similar.",
}


class Alternatives:
    """Tests of a sample: the current assumption about how its images were formed, and the findings so far."""

    def __init__(self, sample: Sample, seed: int, bar: tqdm) -> None:
        self.sample, self.seed, self.bar = sample, seed, bar
        self.state = sample.stated()
        self.findings: list[Finding] = []
        self.scores: dict[str, float] = {}
        self._flipped = 0.0  # share of images that appear phase-flipped

    def test(self) -> list[Finding]:
        """Return what is wrong with the metadata; `scores` then has the change in gain of each alternative."""
        if self._has_ctf():
            self._alternatives()
            self._contrast()
        return self.findings

    def _gains(self, state: Assumption) -> Tensor:
        self.bar.update()
        return self.sample.gains(state)

    def _has_ctf(self) -> bool:
        """Return whether enough images have a defocus in the file, and restrict the sample to those images."""
        ctf = self.state.ctf
        defocus = np.maximum(np.abs(ctf.defocus_u), np.abs(ctf.defocus_v))
        missing = torch.as_tensor((defocus < _IN_FOCUS) & (ctf.phase_shift == 0))
        share = float(missing.float().mean())
        if share < 0.001:
            return True
        evidence = f"defocus below {_IN_FOCUS / 1e4:g} µm for {100 * share:.0f} % of the images"
        gains, enough = self._gains(self.state), int((~missing).sum()) >= 50
        if enough:
            means = float(gains[missing].mean()), float(gains[~missing].mean())
            evidence += f", with a mean gain of {means[0]:.1f} nats compared with {means[1]:.1f} for the others"
            self.sample = self.sample.part(~missing)
            self.state = self.sample.stated()
        whole = "all" if share > 0.999 else f"{100 * share:.0f} % of the"
        advice = "Read the CTF from the job that estimated it, or exclude these images with indices=."
        self.findings.append(Finding(f"CTF parameters missing for {whole} images", evidence, advice))
        return enough

    def _alternatives(self) -> None:
        """Adopt the best alternative as long as one predicts better than the current assumption."""
        for attempt in range(3):
            gains = self._gains(self.state)
            tried = {name: (family, state, self._gains(state)) for family, name, state in self._changed()}
            better = {name: float((tried[name][2] - gains).mean()) for name in tried}
            # Images of species that differ from the average map are also predicted slightly better with another CTF.
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
            if family == "shift" and self._are_inexact(state):
                return
            self.state = state
            self._note(best, family, float(gains.mean()), float(after.mean()))

    def _interpolated(self, state: Assumption, better: dict) -> tuple[Assumption, Tensor]:
        """Interpolate the pixel size by a parabola through the best score and its neighbours; also return gains."""
        scores = [better.get(pixel_name(state.pixel + step), 0.0) for step in (-0.05, 0.0, 0.05)]  # 0: stated size
        bend = scores[0] - 2 * scores[1] + scores[2]
        if abs(state.pixel - 1) < 0.14 and bend < 0:
            state = replace(state, pixel=state.pixel + 0.025 * (scores[0] - scores[2]) / bend)
        return state, self._gains(state)

    def _changed(self) -> Iterator[tuple[str, str, Assumption]]:
        """Yield the alternatives to the current assumption as (family, name, assumption)."""
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
        """Return the assumption in which each image has flipped phases if that makes the image more likely."""
        gain, self._flipped, error = self.sample.flips(self.state)
        if self._flipped < max(0.15, 4 * error):
            return self.state
        kind = torch.where((self.state.kind == 0) & (gain > 0), 2, self.state.kind)
        return replace(self.state, kind=kind)

    def _is_certain(self, name: str, difference: Tensor, better: dict[str, float]) -> bool:
        return name != OTHERS and better[name] > 0 and float(difference.mean()) > _CERTAIN * self._error(difference)

    def _error(self, difference: Tensor) -> float:
        """Return the standard error of the mean over images, whose copies count once."""
        return float(difference.std()) * (self.sample.copies / len(difference)) ** 0.5

    def _note(self, name: str, family: str, before: float, after: float) -> None:
        changed = "under this assumption"
        if family == "pixel":
            given = self.sample.full_pixel_size
            changed = f"at about {given * self.state.pixel:.3g} Å instead of {given:.3g} Å"
        evidence = f"{changed} the mean gain is {after:.1f} nats per image instead of {before:.1f}"
        if name in (_PART_WITHOUT, _PART_FLIPPED):
            share = self._flipped if name == _PART_FLIPPED else float((self.state.kind == 1).float().mean())
            name = f"{name.removesuffix(' in a part').replace(' of a part', '')} in {100 * share:.0f} % of the images"
        self.findings.append(Finding(name, evidence, _ADVICE[family]))

    def _without_poses(self, exchanged: Tensor, gains: Tensor) -> bool:
        """Return whether poses predict no better than other particles' poses, so that nothing else can be tested."""
        difference = gains - exchanged
        if float(difference.mean()) > _CERTAIN * self._error(difference):
            return False
        evidence = f"the mean gain is {float(gains.mean()):.1f} nats per image"
        evidence += f", and {float(exchanged.mean()):.1f} with the poses of other particles"
        advice = "Check that poses and images are in the same order, and that the shifts are in Å."
        self.findings.append(Finding("poses do not fit the images", evidence, advice))
        return True

    def _contrast(self) -> None:
        """Check the contrast: density is positive, so the positive part of the map must predict better."""
        positive, negative = self.sample.signs(self.state)
        self.scores["contrast inverted"] = negative - positive
        if negative <= 1.2 * positive:
            return
        parts = f"{negative:.1f} versus {positive:.1f} nats"
        evidence = f"the negative part of the map predicts the images better than the positive one ({parts})"
        other = "light" if self.sample.particles.contrast == "dark" else "dark"
        advice = f"Read the particles with contrast={other!r}."
        self.findings.append(Finding("contrast inverted", evidence, advice))

    def _are_inexact(self, state: Assumption) -> bool:
        """Return whether smaller shifts as in `state` are still inexact; inexact shifts predict better if smaller."""
        size, changed = (float(s.shifts.square().mean().sqrt()) for s in (self.state, state))
        return changed < 0.99 * size and errors_of(self.sample, state, self.seed).shift > _OTHER_UNIT * size


def errors_of(sample: Sample, state: Assumption, seed: int, found: Eigenvolumes | None = None) -> PoseErrors:
    """Return the typical errors of the poses of an assumption, from some of the images and the principal directions."""
    batches = sample.batches(state, _FOR_POSES)
    found = quick_subspace(sample.imaging, batches, sample.mask, seed) if found is None else found
    return pose_errors(sample.imaging, batches, found, sample.particles.pixel_size, seed)
