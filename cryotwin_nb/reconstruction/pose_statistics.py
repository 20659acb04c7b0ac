"""Statistics of images for small changes of their poses, and for displacements of parts of the structure.

An image is linearised around its expected structure and its present pose. The coefficients of the subspace, and the
contrast if it varies, are integrated out. With noise of unit power, D the derivatives of the prediction, r its residual
at the posterior mean, B the slices of the directions and S the posterior covariance of their coefficients,

    h = D^T r + J e,        J = D^T D - D^T B S B^T D,

where e is the present change of the pose. Up to a constant, the log-likelihood of a change e' is h.e' - e'.Je' / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from cryotwin_nb.imaging.lattice import HalfBall
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes
from cryotwin_nb.reconstruction.statistics import with_contrast

POSE = 5  # columns of a pose: a rotation vector in the frame of the molecule, radians, and a shift, pixels
_DENSE = 0.25  # voxels above this fraction of the largest density belong to the structure


class PoseStatistics(NamedTuple):
    """Statistics of images for changes of their poses and for displacements of R regions.

    Attributes
    ----------
    h : (m, 5 + 3R) float64
        Derivative of the log-likelihood with respect to the rotation vector (radians, frame of the molecule), the
        shift (pixels) and the displacement of each region (pixels, frame of the molecule), at the recorded pose.
    J : (m, 5 + 3R, 5 + 3R) float64
        Minus its second derivative.
    """

    h: Tensor
    J: Tensor


def moved(batch: ImageBatch, change: Tensor, imaging: ImageFormation) -> ImageBatch:
    """Return images with changed poses; `change` (m, 5) float64 is a rotation vector (radians) and a shift (pixels)."""
    zero = torch.zeros_like(change[:, 0])
    x, y, z = change[:, :3].unbind(1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    angle = -2 * torch.pi / imaging.plane.box_size * change[:, 3:].float() @ imaging.frequencies.T
    rotations = (torch.linalg.matrix_exp(cross) @ batch.rotations.double()).float()
    return batch._replace(data=batch.data * torch.polar(torch.ones_like(angle), angle), rotations=rotations)


def regions(density: Tensor, n: int, seed: int = 0) -> Tensor:
    """Return smooth weights (n, D, D, D) that divide a density (D, D, D) into n compact parts; they add up to 1."""
    places = torch.stack(coordinates(len(density)), dim=-1)
    inside = (density > _DENSE * density.max()).flatten()
    points = places.view(-1, 3)[inside].double().numpy()
    centres, part = kmeans2(points, min(n, len(points)), minit="++", seed=seed)
    width = max(float(((points - centres[part]) ** 2).sum(1).mean()) / 3, 1.0)
    square = (places[..., None, :] - torch.as_tensor(centres).float()).square().sum(-1)
    return (-square / (2 * width)).softmax(-1).permute(3, 0, 1, 2)


def coordinates(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the x, y and z coordinates of the voxels, pixels from the centre."""
    axis = torch.arange(-(size // 2), size - size // 2).float()
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return x, y, z


@dataclass(frozen=True)
class Linearised:
    """Maps on a lattice, with what their derivatives need.

    Attributes
    ----------
    found : Eigenvolumes
        Maps.
    ball : HalfBall
        Lattice geometry.
    lattice, gradients : Tensor
        Lattices of the maps (Q), and of the maps times x, y and z (3Q).
    parts : Tensor, optional
        Lattice of the maps in each region (RQ); None without regions.
    """

    found: Eigenvolumes
    ball: HalfBall
    lattice: Tensor
    gradients: Tensor
    parts: Tensor | None

    @classmethod
    def of(cls, found: Eigenvolumes, radius: float, weights: Tensor) -> Linearised:
        """Return the lattices for slices below `radius` (grid units) and regions with `weights` (R, D, D, D)."""
        ball, maps = found.ball(radius), found.maps
        gradients = ball.from_volumes(torch.cat([maps * axis for axis in coordinates(maps.shape[-1])]))
        parts = ball.from_volumes((weights[:, None] * maps).flatten(0, 1)) if len(weights) else None
        return cls(found, ball, found.lattice(ball), gradients, parts)

    def statistics(self, batch: ImageBatch, imaging: ImageFormation, change: Tensor) -> PoseStatistics:
        """Return the statistics of images (`imaging`) around poses changed by `change` (m, 5)."""
        found, present = self.found, moved(batch, change, imaging)
        seen = found.project(self.ball, self.lattice, present, imaging)
        full, A = found.statistics(seen, present, imaging), seen.slices
        prior = with_contrast(found.prior, found.contrast_spread) if found.contrast_spread else found.prior
        first = A.shape[-1] - prior.latent_dim  # 1: contrasts are known
        G, force = full.G[:, first:, first:].double(), (full.b - full.G[:, :, 0])[:, first:].double()
        S = torch.linalg.inv(G + torch.linalg.inv(prior.covariances[0]))
        mean = torch.zeros(len(G), A.shape[-1])
        mean[:, first:] = (S @ force[..., None])[..., 0].float()
        mean[:, 0] += 1
        prediction = (A @ mean[..., None])[..., 0]
        D = self._derivatives(present, imaging, mean, prediction)
        DB = D.mT @ A[:, 2:, first:].double()
        J = D.mT @ D - DB @ S @ DB.mT
        h = ((seen.data - prediction)[:, None, 2:].double() @ D)[:, 0]
        return PoseStatistics(h + (J[..., :POSE] @ change[..., None])[..., 0], J)

    def _derivatives(self, batch: ImageBatch, imaging: ImageFormation, mean: Tensor, prediction: Tensor) -> Tensor:
        """Return the derivatives (m, 2P - 2, 5 + 3R) of predictions; real and imaginary parts alternate."""
        m, n = len(mean), prediction.shape[1] // 2
        plane = imaging.frequencies[:n].contiguous()
        root = batch.transfer[:, :n] * imaging.multiplicity[:n].sqrt()
        turn = 2j * torch.pi / imaging.plane.box_size
        space = torch.cat([plane, torch.zeros(n, 1)], dim=1) @ batch.rotations.mT

        def combined(lattice: Tensor, count: int) -> Tensor:
            """Return slices (m, n, count) of the expected structure; `count` maps are derived from each map."""
            slices = self.ball.slices(lattice, plane, batch.rotations).view(m, n, 2, count, -1)
            real, imaginary = (slices * mean[:, None, None, None]).sum(-1).unbind(2)
            return torch.complex(real, imaginary) * root[..., None]

        gradient = -turn * combined(self.gradients, 3)
        rotation = torch.linalg.cross(space.to(gradient.dtype), gradient)
        shift = torch.view_as_complex(prediction.view(m, n, 2))[..., None] * turn * plane
        stacked = torch.cat([rotation, shift], dim=-1)
        if self.parts is not None:
            count = self.parts.shape[1] // 2 // mean.shape[1]
            parts = combined(self.parts, count)[..., None] * -turn * space[:, :, None]
            stacked = torch.cat([stacked, parts.flatten(2)], dim=-1)
        return torch.view_as_real(stacked).permute(0, 1, 3, 2).reshape(m, 2 * n, -1)[:, 2:].double()
