"""Average map of the images, from which the coordinate networks encode and decode deviations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryotwin_nb.imaging.lattice import HalfBall, half_ball
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.particles.formation import Chunks, ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN, NormalEquations, SignalPower

_READING = 2.5  # padding factor of the lattice that slices are read from, as in `eigenvolumes`


class AverageMap(nn.Module):
    """Wiener-filtered average of the images at their poses, and its central slices.

    Parameters
    ----------
    box_size : int
        Box size D, pixels. The initial map is 0.

    Attributes
    ----------
    map : (D, D, D) float32 buffer
        Average map, zyx, image grey value per Å.
    """

    map: Tensor

    def __init__(self, box_size: int) -> None:
        super().__init__()
        self.register_buffer("map", torch.zeros(box_size, box_size, box_size))
        self._cached: tuple[Tensor, int, Tensor] | None = None

    def measure(self, imaging: ImageFormation, chunks: Chunks) -> None:
        """Set the map by one pass over the images (this process's share of them): back-projection, no gradients."""
        size = imaging.plane.box_size
        equations, power = NormalEquations(imaging, size / 2 + MARGIN, n_maps=1), SignalPower(imaging)
        for batch in chunks():
            equations.add_images(batch, batch.transfer.new_ones(len(batch.data)))
            power.add(batch)
        equations.join()
        power.join()
        self.map.copy_(equations.solve(None, power.spectrum[:, None], self.mask(imaging))[0][0])

    def mask(self, imaging: ImageFormation) -> Tensor:
        """Return the soft spherical mask (D, D, D) of the particle, outside which there is nothing but noise."""
        size = len(self.map)
        return spherical_mask(size, imaging.particle_radius, size / 16).to(self.map)

    def slices(self, frequencies: Tensor, rotations: Tensor) -> Tensor:
        """Return central slices (m, P) of the map at frequencies (P, 2) and poses (m, 3, 3)."""
        ball = half_ball(len(self.map), len(self.map) / 2 + MARGIN, _READING)
        real, imaginary = ball.slices(self._lattice(ball), frequencies.contiguous(), rotations).unbind(-1)
        return torch.complex(real, imaginary)

    def removed(self, imaging: ImageFormation, batch: ImageBatch) -> ImageBatch:
        """Return images without the projections of the map."""
        projections = self.slices(imaging.frequencies, batch.rotations) * batch.transfer
        return batch._replace(data=batch.data - projections)

    def _lattice(self, ball: HalfBall) -> Tensor:
        """Return the map on the lattice, cached until the map changes."""
        cached = self._cached
        if cached is None or cached[0] is not self.map or cached[1] != self.map._version:
            self._cached = cached = (self.map, self.map._version, ball.from_volumes(self.map[None]))
        return cached[2]
