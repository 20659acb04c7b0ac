"""Result types of `first_look`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, nan

from torch import Tensor

from cryotwin_nb.imaging.fsc import FscCurve
from cryotwin_nb.reconstruction.pose_errors import PoseErrors

_DEGREES = 1.5  # rotation error that is reported, if the interval excludes it
_BLUR = 0.05  # same for the shift error, as a fraction of the resolution examined


@dataclass(frozen=True)
class Finding:
    """Problem found in the particles.

    Attributes
    ----------
    name : str
        Name of the problem.
    evidence : str
        Measurement that reveals it.
    advice : str
        Recommended action.
    is_problem : bool
        Whether something should be changed before training; False for information.
    """

    name: str
    evidence: str
    advice: str
    is_problem: bool = True


def inexact(errors: PoseErrors, finest: float) -> Iterator[Finding]:
    """Yield findings on errors of rotations and shifts; `finest` is the resolution examined, Å."""
    advice = "Refine the poses locally, or exclude the worst images."
    low, high = errors.rotation_interval
    if low > _DEGREES:
        evidence = f"typical error {errors.rotation:.1f}° ({low:.1f} to {high:.1f}°), apart from motions"
        yield Finding("rotations are inexact", evidence, advice)
    low, high = errors.shift_interval
    if low > _BLUR * finest:
        evidence = f"typical error {errors.shift:.1f} Å along each axis ({low:.1f} to {high:.1f} Å)"
        evidence += f", which blurs detail finer than {5.3 * errors.shift:.2g} Å"
        yield Finding("shifts are inexact", evidence, advice)


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
    findings : tuple of Finding
        Problems found, and what else is to be known of the particles, such as that they are a symmetry-expanded set;
        empty if the metadata in the file are consistent with the images.
    """

    n_images: int
    voxel_size: float
    map: Tensor
    half_maps: Tensor
    fsc: FscCurve
    gain: float
    scores: dict[str, float]
    errors: PoseErrors | None
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
        """Findings that are problems."""
        return tuple(finding for finding in self.findings if finding.is_problem)

    def summary(self) -> str:
        """Return the results as a few lines of text."""
        limit = 2 * self.voxel_size
        best = " (the limit of the coarse grid)" if self.resolution <= 1.001 * limit else ""
        agree = f"half maps agree to {self.resolution:.3g} Å{best}"
        agree = agree if isfinite(self.resolution) else "half maps agree no better than those of noise"
        lines = [
            f"{self.n_images:,} images examined to {limit:.3g} Å: {agree}; "
            f"each half map predicts the other half's images with a gain of {self.gain:.1f} nats per image",
        ]
        if self.errors is not None:
            lines.append(str(self.errors))
        for finding in self.findings:
            mark = "!" if finding.is_problem else "-"
            lines.append(f"{mark} {finding.name}: {finding.evidence}. {finding.advice}")
        if not self.problems:
            checked = "poses, shifts, CTF, pixel size or contrast"
            lines.append(f"nothing wrong with {checked} (handedness cannot be determined)")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.summary()}>"
