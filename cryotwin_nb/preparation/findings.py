"""Result types of `first_look`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from cryotwin_nb.imaging.fsc import FscCurve


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
    pose_error : float
        Typical error of the rotations (root mean square), degrees; motions of the molecule also count as errors.
    shift_error : float
        Typical error of the shifts along each axis, Å.
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
    pose_error: float
    shift_error: float
    findings: tuple[Finding, ...]

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
            f"typical error: rotations {self.pose_error:.1f}°, shifts {self.shift_error:.1f} Å per axis "
            "(including motions of the molecule)",
        ]
        for finding in self.findings:
            mark = "!" if finding.is_problem else "-"
            lines.append(f"{mark} {finding.name}: {finding.evidence}. {finding.advice}")
        if not self.problems:
            checked = "poses, shifts, CTF, pixel size or contrast"
            lines.append(f"nothing wrong with {checked} (handedness cannot be determined)")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.summary()}>"
