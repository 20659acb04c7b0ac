"""Result of `pathway_support`: which maps of a pathway the images support, as arrays and text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cryotwin_nb.evaluation.blends import Blend
from cryotwin_nb.evaluation.differences import DensityDifference
from cryotwin_nb.reconstruction.halves import expected_correlation

_FEW = 5  # minimum number of images; a point with fewer is flagged
_SHELL_LIMIT, _LOCAL_LIMIT = 0.8, 0.6  # minimum shares of the decoded amplitude that the images must contain
_DEPARTED = 1.5  # a point is flagged if `departure` exceeds this multiple of `resolution`
_SIGNIFICANT = 5.0  # standard errors


@dataclass(frozen=True, eq=False, repr=False)
class PathwaySupport:
    """Support of the decoded maps of a pathway by the images.

    Attributes
    ----------
    latents : (m, d) float32
        Points of the path.
    n_effective : (m,) float64
        Effective number of images near each point, (sum w)^2 / sum w^2, where w are their kernel weights.
    bandwidth : (m,) float64
        Radius of each kernel, in standard errors of one image's latent.
    offset : (m,) float64
        Distance from each point to the weighted mean of the latents of these images, in the unit of `bandwidth`.
    maps : (m, D, D, D) float32
        Maps reconstructed only from the images near each point, zyx, image grey value per Å.
    frequency : (D/2,) float64
        Frequencies of the curves, 1/Å.
    half_map_fsc : (m, D/2) float64
        FSC between the half maps of each point.
    resolution : (m,) float64
        Resolution supported by the images near the point, Å, where `half_map_fsc` falls below 0.143; infinity if none.
    decoded_fsc : (m, D/2) float64
        FSC between `maps` and the decoded maps.
    departure : (m,) float64
        Resolution at which `decoded_fsc` falls below 0.5, Å.
    shell_support : (m, D/2) float64
        Share of the decoded amplitude that the images contain, in each shell: 1 for a correct map, 0 for an unrelated
        map, above 1 for a map that is too weak. NaN where there are no images. The map is decoded at the weighted mean
        of the images' latents, so that map and images describe the same particles.
    shell_error : (m, D/2) float64
        Standard errors of `shell_support`; copies of an image, as in symmetry-expanded sets, count as one.
    local_support : (m, D, D, D) float32
        The same share in a Gaussian window around each voxel, with standard deviation D/16 voxels; NaN where the
        decoded map is empty.
    local_error : (m, D, D, D) float32
        Standard errors of `local_support`.
    scale : (m,) float64
        Factor applied to the decoded map so that the images contain its full amplitude on average. It is about 1 for
        decoders that keep the grey values of the images, and 1 where there are no images.
    voxel_size : float
        Voxel size of the maps, Å.
    differences : tuple of DensityDifference
        Regions that a decoded map shows but the images do not contain, or the reverse, by point.
    blends : tuple of Blend
        Points whose map is a blend of two others between which density moves, and whether it is a cross-fade.
    """

    latents: Tensor
    n_effective: np.ndarray
    bandwidth: np.ndarray
    offset: np.ndarray
    maps: Tensor
    frequency: np.ndarray
    half_map_fsc: np.ndarray
    resolution: np.ndarray
    decoded_fsc: np.ndarray
    departure: np.ndarray
    shell_support: np.ndarray
    shell_error: np.ndarray
    local_support: np.ndarray
    local_error: np.ndarray
    scale: np.ndarray
    voxel_size: float
    differences: tuple[DensityDifference, ...] = ()
    blends: tuple[Blend, ...] = ()

    @property
    def expected_fsc(self) -> np.ndarray:
        """Expected value (m, D/2) of `decoded_fsc` if the decoded maps were the true maps."""
        return expected_correlation(self.half_map_fsc)

    @property
    def beyond_images(self) -> np.ndarray:
        """Shells (m, D/2) bool in which the decoded map shows significantly more than the images contain."""
        return _short(self.shell_support, self.shell_error, _SHELL_LIMIT)

    @property
    def flagged(self) -> tuple[int, ...]:
        """Indices of the points whose decoded map the images do not support, for any of the `reasons`."""
        return tuple(k for k in range(len(self.latents)) if self.reasons(k))

    @property
    def cross_fades(self) -> tuple[int, ...]:
        """Indices of the points whose map is a blend of two others where the images show something else."""
        return tuple(blend.point for blend in self.blends if blend.is_cross_fade and self._has_images(blend.point))

    @property
    def undecided(self) -> tuple[int, ...]:
        """Indices of the points whose map is a blend of two others, with too few images to decide."""
        return tuple(blend.point for blend in self.blends if blend.undecided and self._has_images(blend.point))

    def _has_images(self, point: int) -> bool:
        return self.n_effective[point] >= _FEW and bool(np.isfinite(self.resolution[point]))

    def reasons(self, point: int) -> list[str]:
        """Return the reasons why a point is flagged, as text; empty if it is not flagged.

        Parameters
        ----------
        point : int
            Index of the point on the path.
        """
        if not self._has_images(point):
            return [f"hardly any images show a similar particle ({self.n_effective[point]:.0f})"]
        reasons = []
        if self.departure[point] > _DEPARTED * self.resolution[point]:
            reach = (
                f"only to {self.departure[point]:.3g} Å" if np.isfinite(self.departure[point]) else "at no resolution"
            )
            reasons.append(f"the decoded map agrees with the images {reach}")
        shells = np.flatnonzero(self.beyond_images[point])
        if len(shells):
            share = self.shell_support[point, shells].min()
            coarse, fine = 1 / self.frequency[[shells[0], shells[-1]]]
            span = f"at {coarse:.3g} Å" if coarse == fine else f"from {coarse:.3g} to {fine:.3g} Å"
            reasons.append(f"detail {span} is not supported: the images contain {max(share, 0):.0%} of it")
        reasons += [str(blend) for blend in self.blends if blend.point == point and blend.is_cross_fade]
        differences = [difference for difference in self.differences if difference.point == point]
        reasons += map(str, differences)
        if differences:  # the share of a neighbouring region also falls if density is missing
            return reasons
        support, error = self.local_support[point], self.local_error[point]
        false = _short(support, error, _LOCAL_LIMIT)
        if false.any():
            worst = np.unravel_index(np.where(false, (1 - support) / error, 0).argmax(), false.shape)
            x, y, z = (np.array(worst[::-1]) - len(false) // 2) * self.voxel_size
            share = max(float(support[worst]), 0.0)
            place = f"x {x:+.0f}, y {y:+.0f}, z {z:+.0f} Å from the centre"
            reasons.append(f"density around {place} is not supported: the images contain {share:.0%} of it")
        return reasons

    def findings(self, point: int) -> list[str]:
        """Return the `reasons` of a point and whether it is undecided if it is a cross-fade, as text.

        Parameters
        ----------
        point : int
            Index of the point on the path.
        """
        return self.reasons(point) + [str(b) for b in self.blends if b.point == point and point in self.undecided]

    @property
    def verdict(self) -> str:
        """Which points are flagged and which are undecided, as text."""
        flagged, undecided = (", ".join(map(str, points)) for points in (self.flagged, self.undecided))
        verdict = f"Not supported by the images: {flagged}." if flagged else "The images support every decoded map."
        return f"{verdict} Undecided whether cross-fades: {undecided}." if undecided else verdict

    def summary(self) -> str:
        """Return the verdict, and one line per point: number of images, resolution, and problems, if any."""
        lines = []
        for k, (count, resolution) in enumerate(zip(self.n_effective, self.resolution, strict=True)):
            reach = f"supported to {resolution:.3g} Å" if np.isfinite(resolution) else "no supported resolution"
            lines.append("; ".join([f"point {k}: {count:.0f} images, {reach}", *self.findings(k)]))
        return "\n".join([self.verdict, *lines])

    def __repr__(self) -> str:
        return f"<{self.summary()}>"


def _short(support: np.ndarray, error: np.ndarray, limit: float) -> np.ndarray:
    """Return where a share is below a limit and significantly below 1; False where it is NaN."""
    return (support < limit) & (1 - support > _SIGNIFICANT * error)
