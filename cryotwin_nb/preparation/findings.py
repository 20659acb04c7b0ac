"""What a first look gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cryotwin_nb.imaging.fsc import FscCurve


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the particles.

    Attributes
    ----------
    name : str
        What is wrong.
    evidence : str
        What shows it.
    advice : str
        What to do.
    """

    name: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class FirstLook:
    """Result of `first_look`.

    Attributes
    ----------
    n_images : int
        Images looked at.
    voxel_size : float
        Å, of the coarse grid.
    map : (D, D, D) float32
        Homogeneous reconstruction with everything as the file says, image grey value per Å.
    half_maps : (2, D, D, D) float32
        From either half of the images.
    fsc : FscCurve
        Correlation of the half maps.
    gain : float
        How much likelier the map of one half makes the images of the other, nats per image: 0 is pure noise.
    scores : dict of str to float
        The same less `gain`, if something were different; above 0: it predicts better than what the file says.
    pose_error : float
        Typical error of the rotations, root mean square, degrees; motions of the molecule are counted as errors, too.
    shift_error : float
        Typical error of the shifts along each axis, Å.
    findings : tuple of Finding
        Empty if everything is as the file says.
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
        """Å, at a half-map FSC of 0.143; at best that of the coarse grid."""
        return self.fsc.resolution(0.143)

    def summary(self) -> str:
        """All of it in a few lines."""
        limit = 2 * self.voxel_size
        best = " (the limit of this look)" if self.resolution <= 1.001 * limit else ""
        lines = [
            f"{self.n_images:,} images to {limit:.3g} Å: half maps agree to {self.resolution:.3g} Å{best}; "
            f"they predict each other's images with a gain of {self.gain:.1f} nats per image",
            f"typical error of the rotations {self.pose_error:.1f}°, of the shifts {self.shift_error:.1f} Å "
            "(motions of the molecule included)",
        ]
        for finding in self.findings:
            lines.append(f"! {finding.name}: {finding.evidence}. {finding.advice}")
        if not self.findings:
            lines.append("nothing wrong with poses, shifts, CTF, pixel size and contrast (the hand cannot be told)")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.summary()}>"
