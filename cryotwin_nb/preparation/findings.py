"""Result types of `first_look`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from math import exp, isfinite, nan, pi, radians
from typing import Any

import numpy as np
from torch import Tensor

from cryotwin_nb.imaging.fsc import FscCurve
from cryotwin_nb.preparation.contents import Contents
from cryotwin_nb.preparation.views import ViewSampling
from cryotwin_nb.reconstruction.pose_errors import PoseErrors

NOTE, WARNING, MUST_BE_MENDED = "note", "warning", "must be mended"
"""Levels of a finding; only the last means that training would be pointless, and changes the exit status of `look`."""

_DEGREES = 1.5  # smallest rotation error that can be distinguished from motions, if the interval excludes it
_LOST = 0.02  # smallest loss of amplitude at the resolution asked for that is worth a warning
_SPREAD = 0.2  # contrast spread that is noted
_JUNK, _MUCH = 0.01, 0.03  # share of junk that is noted, or worth a warning, if the interval excludes less


@dataclass(frozen=True)
class Finding:
    """What was found out about the particles.

    Attributes
    ----------
    name : str
        Name of the finding.
    evidence : str
        Measurement that reveals it, what it costs, and how certain it is.
    advice : str
        Recommended action.
    level : {"note", "warning", "must be mended"}
        What it means for training: nothing, that results need care, or that results would be wrong.
    """

    name: str
    evidence: str
    advice: str
    level: str = MUST_BE_MENDED

    @property
    def is_problem(self) -> bool:
        """Whether it must be mended before training."""
        return self.level == MUST_BE_MENDED


def inexact(errors: PoseErrors, radius: float, asked: float) -> Iterator[Finding]:
    """Yield findings on errors of rotations and shifts.

    Parameters
    ----------
    errors : PoseErrors
        Typical errors with their intervals.
    radius : float
        Radius of gyration of the particle, Å.
    asked : float
        Resolution at which their cost is given, Å.
    """

    def lost(displacement: float) -> float:
        """Return the share of the amplitude that random displacements along each axis cost at that resolution."""
        return 1 - exp(-2 * (pi * displacement / asked) ** 2)

    def cost(of_least: float, of_most: float) -> str:
        return f"which costs {100 * of_least:.0f} to {100 * of_most:.0f} % of the amplitude at {asked:.3g} Å"

    advice = "Refine the poses locally, or exclude the worst images."
    low, high = errors.rotation_interval
    turned = [lost(radians(end) * radius * 2**0.5 / 3) for end in (low, high)]  # a third of the square for each axis
    if low > _DEGREES and turned[0] > _LOST:
        evidence = (
            f"typical error {errors.rotation:.1f}° ({low:.1f} to {high:.1f}°), apart from motions, {cost(*turned)}"
        )
        if radians(low) * radius * (2 / 3) ** 0.5 > errors.motion:
            yield Finding("rotations are inexact", evidence, advice, WARNING)
        else:
            other = f"parts move by {errors.motion:.2g} Å in ways that principal directions do not show"
            evidence += f"; but {other}, so that it may be more of this motion"
            yield Finding("rotations may be inexact", evidence, advice, NOTE)
    low, high = errors.shift_interval
    moved = [lost(low), lost(high)]
    if moved[0] > _LOST:
        evidence = f"typical error {errors.shift:.1f} Å along each axis ({low:.1f} to {high:.1f} Å)"
        yield Finding("shifts are inexact", f"{evidence}, {cost(*moved)}", advice, WARNING)


def contained(contents: Contents) -> Iterator[Finding]:
    """Yield findings on what the images contain."""
    if contents.contrast_spread > _SPREAD:
        evidence = f"the contrasts have a standard deviation of {100 * contents.contrast_spread:.0f} %, "
        evidence += "with differences of mass that so few and noisy images do not resolve"
        yield Finding("contrast varies", evidence, "Nothing needs to be done: training fits the contrasts.", NOTE)
    low, high = contents.junk_interval
    if low > _JUNK:
        share = f"{100 * contents.junk:.1f} % of the images ({100 * low:.1f} to {100 * high:.1f} %)"
        evidence = f"{share} do not show the particle, or not at the recorded pose"
        advice = "Train a model, look at its `outlier_scores`, and train again on `particles[scores.kept]`."
        yield Finding("junk among the images", evidence, advice, WARNING if low > _MUCH else NOTE)


@dataclass(frozen=True)
class FirstLook:
    """Result of `first_look`.

    Attributes
    ----------
    n_images : int
        Number of images examined.
    voxel_size : float
        Voxel size of the coarse grid, Å.
    map : (D, D, D) float32
        Homogeneous reconstruction with all metadata as stated in the file, image grey value per Å.
    half_maps : (2, D, D, D) float32
        Maps from the two half-sets of the images.
    fsc : FscCurve
        Fourier shell correlation of the half maps.
    gain : float
        Mean log-likelihood of the images of one half-set given the map of the other half-set, minus their mean
        log-likelihood under pure noise; nats per image.
    scores : dict of str to float
        Change in `gain` under each alternative. An alternative with a value above 0 predicts the images better than the
        metadata in the file.
    errors : PoseErrors, optional
        Typical errors of rotations and shifts, apart from motions of the molecule, with their intervals; None if the
        metadata are wrong in another way, because the errors cannot be estimated then.
    contents : Contents, optional
        Spread of the contrasts, share of junk and number of images that count; None as `errors`.
    sampling : ViewSampling
        How the views sample Fourier space.
    direction_resolution : (m,) float64
        Resolution that the map of all images reaches around each of `sampling.directions`, Å: where it correlates by
        0.5 with the truth in a double cone of 20°. Infinite where nothing is measured.
    findings : tuple of Finding
        What must be mended, what needs care, and what else is to be known of the particles, such as that they are a
        symmetry-expanded set; empty if the metadata in the file are consistent with the images.
    """

    n_images: int
    voxel_size: float
    map: Tensor
    half_maps: Tensor
    fsc: FscCurve
    gain: float
    scores: dict[str, float]
    errors: PoseErrors | None
    contents: Contents | None
    sampling: ViewSampling
    direction_resolution: np.ndarray
    findings: tuple[Finding, ...]

    @property
    def pose_error(self) -> float:
        """Typical error of the rotations (root mean square), degrees; NaN if not estimated."""
        return nan if self.errors is None else self.errors.rotation

    @property
    def shift_error(self) -> float:
        """Typical error of the shifts along each axis, Å; NaN if not estimated."""
        return nan if self.errors is None else self.errors.shift

    @property
    def resolution(self) -> float:
        """Resolution at a half-map FSC of 0.143, Å; limited by the coarse grid, infinite if they agree by chance."""
        return self.fsc.resolution(0.143)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Findings that must be mended before training."""
        return tuple(finding for finding in self.findings if finding.is_problem)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that need care."""
        return tuple(finding for finding in self.findings if finding.level == WARNING)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.problems:
            return f"Must be mended before training: {'; '.join(f.name for f in self.problems)}."
        if self.warnings:
            return f"Ready for training, with care: {'; '.join(f.name for f in self.warnings)}."
        return "Ready for training: nothing wrong with poses, shifts, CTF, pixel size, contrast or views."

    def table(self) -> list[tuple[str, str]]:
        """Return the measurements as names and texts."""
        limit = 2 * self.voxel_size
        best = ", the limit of the coarse grid" if self.resolution <= 1.001 * limit else ""
        agree = f"{self.resolution:.3g} Å{best}" if isfinite(self.resolution) else "none, no better than of noise"
        rows = [
            ("examined", f"{self.n_images:,} images to {limit:.3g} Å"),
            ("agreement of the half maps", agree),
            ("gain", f"{self.gain:.1f} nats per image, of one half's images by the other half's map"),
        ]
        if self.errors is not None:
            rows += self.errors.table()
        if self.contents is not None:
            rows += self.contents.table()
        return [*rows, ("views", self._views()), ("handedness", "cannot be determined from images")]

    def _views(self) -> str:
        unmeasured = f"{100 * self.sampling.unmeasured:.0f} % of the directions unmeasured"
        return f"evenness {self.sampling.evenness:.2f}, {unmeasured}"

    def summary(self) -> str:
        """Return the results as a few lines of text, the verdict first."""
        lines = [self.verdict]
        for finding in self.findings:
            lines.append(f"- {finding.level}: {finding.name}: {finding.evidence}. {finding.advice}")
        return "\n".join([*lines, *(f"{name}: {text}" for name, text in self.table())])

    def show(self) -> Any:
        """Return the page of `plotting.first_look_page`, which Jupyter shows; its `save` writes an HTML file."""
        return import_module("cryotwin_nb.plotting").first_look_page(self)  # drawing is not needed to look

    def __repr__(self) -> str:
        return f"<{self.summary()}>"
