"""Fourier lattice for reading and inserting central slices.

The lattice is `padding` times finer than the Fourier grid of the map and covers the half of a ball with x >= 0. Slices
are read by trilinear interpolation; the fall-off that this causes in real space is divided out of the volumes
(`gridding`). On the CPU the loops are compiled (`kernels`); on other devices they use PyTorch's indexing and
`index_add_`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.imaging.fourier import real_fft3, real_ifft3
from cryotwin_nb.imaging.optics import slice_coordinates


class HalfBall:
    """Half of a ball in a padded Fourier lattice, stored as consecutive rows along x >= 0.

    Parameters
    ----------
    box_size : int
        Box size D of the volumes, voxels.
    radius : float
        Upper limit of the frequencies |k| at which slices can be read, grid units of the map.
    padding : float
        Oversampling relative to the lattice of the map; the side is rounded to an even number of voxels.

    Attributes
    ----------
    side : int
        Side S of the padded box, voxels.
    scale : float
        S / D: lattice units per grid unit of the map.
    positions : (V, 3) int16
        xyz of each voxel, lattice units.
    start : (2c + 1, 2c + 1) int32
        Voxel (x, y, z) has the index start[z + c, y + c] + x.
    shell : (V,) int64
        |k| in grid units of the map, rounded to the nearest integer.
    """

    def __init__(self, box_size: int, radius: float, padding: float) -> None:
        self.box_size, self.radius = box_size, radius
        self.side = 2 * round(box_size * padding / 2)
        self.scale = self.side / box_size
        centre = int(radius * self.scale + 3**0.5) + 1
        axis = np.arange(-centre, centre + 1)
        reach = (radius * self.scale + 3**0.5) ** 2  # includes all eight neighbours of a sample
        rest = reach - axis[:, None] ** 2 - axis**2
        length = np.where(rest >= 0, np.sqrt(np.maximum(rest, 0)).astype(int) + 1, 0)
        start = np.concatenate([[0], length.cumsum()[:-1]]).reshape(length.shape)
        z, y = (index.repeat(length.ravel()) - centre for index in np.indices(length.shape).reshape(2, -1))
        x = np.arange(length.sum()) - start.ravel().repeat(length.ravel())
        self.start = torch.as_tensor(start.astype(np.int32))
        self.positions = torch.as_tensor(np.stack([x, y, z], axis=1).astype(np.int16))
        self.shell = (self.positions.float().norm(dim=1) / self.scale).round().long()

    def __len__(self) -> int:
        """V, the number of voxels."""
        return len(self.positions)

    @property
    def grid_index(self) -> Tensor:
        """Index of each voxel in the flattened `real_fft3` of the padded box; -1 if outside."""
        x, y, z = self.positions.long().unbind(1)
        index = ((z % self.side) * self.side + y % self.side) * (self.side // 2 + 1) + x
        return torch.where(self.positions.abs().amax(1) <= self.side // 2, index, -1)

    @property
    def gridding(self) -> Tensor:
        """Fall-off (D, D, D) of trilinear interpolation in real space: sinc^2 along each axis."""
        fall = torch.sinc(torch.arange(-(self.box_size // 2), self.box_size // 2) / self.side).square()
        return fall[:, None, None] * fall[:, None] * fall

    def from_volumes(self, volumes: Tensor) -> Tensor:
        """Return transforms (V, 2Q) of volumes (Q, D, D, D) for slicing: Q real parts, then Q imaginary parts."""
        margin = (self.side - self.box_size) // 2
        pad = (margin, self.side - self.box_size - margin) * 3
        index, gridding = self.grid_index.to(volumes.device), self.gridding.to(volumes)
        lattice = volumes.new_empty(len(self), 2 * len(volumes))
        for q, volume in enumerate(volumes / gridding):
            spectrum = real_fft3(torch.nn.functional.pad(volume, pad)).flatten()[index] * self.box_size**-1.5
            spectrum[index < 0] = 0
            lattice[:, q], lattice[:, len(volumes) + q] = spectrum.real, spectrum.imag
        return lattice

    def to_volumes(self, lattice: Tensor) -> Tensor:
        """Return volumes (Q, D, D, D) from a `lattice` (V, 2Q) of local averages of their transforms."""
        margin, size = (self.side - self.box_size) // 2, self.box_size
        inside = slice(margin, margin + size)
        index = self.grid_index.to(lattice.device)
        kept = (self.positions.abs().amax(1) < self.side // 2).to(lattice.device)  # Nyquist planes occur twice
        maps = []
        for real, imaginary in zip(*lattice.T.chunk(2), strict=True):
            spectrum = torch.zeros(self.side**2 * (self.side // 2 + 1), dtype=torch.complex64, device=lattice.device)
            spectrum[index[kept]] = torch.complex(real, imaginary)[kept] * size**1.5
            padded = real_ifft3(spectrum.view(self.side, self.side, -1))
            maps.append(padded[inside, inside, inside])
        return torch.stack(maps) / self.gridding.to(lattice.device)

    def slices(self, lattice: Tensor, frequencies: Tensor, rotations: Tensor) -> Tensor:
        """Read central slices (m, P, 2Q) from lattice (V, 2Q), at frequencies (P, 2) and poses (m, 3, 3)."""
        if lattice.device.type == "cpu":
            from cryotwin_nb.imaging import kernels

            _set_threads()
            result = torch.empty(len(rotations), len(frequencies), lattice.shape[1])
            arrays = _numpy(lattice, self.start, frequencies, rotations, result)
            gather = kernels.gather(lattice.shape[1] // 2)
            gather(arrays[0], arrays[1], np.float32(self.scale), *arrays[2:])
            return result
        corners, sign = self._corners(frequencies, rotations)
        result = lattice.new_zeros(sign.numel(), lattice.shape[1])
        for index, share in corners:
            result += lattice[index] * share[:, None]
        result = result.view(*sign.shape, -1)
        result[..., lattice.shape[1] // 2 :] *= sign[..., None]
        return result

    def insert(
        self, sums: Tensor, frequencies: Tensor, rotations: Tensor, values: Tensor, powers: Tensor, second: Tensor
    ) -> None:
        """Add slices to sums (V, 2Q + M); this is the adjoint of `slices`.

        Parameters
        ----------
        sums : (V, 2Q + M) float32
            Sums over slices, updated in place.
        frequencies, rotations : (P, 2) float32, (m, 3, 3) float32
            Samples and poses of the slices, as in `slices`.
        values : (m, P, 2Q) float32
            Values added to the first 2Q columns: Q real parts, then Q imaginary parts.
        powers, second : (m, P) float32, (m, M) float32
            Factors of the products that are added to the last M columns.
        """
        if sums.device.type == "cpu":
            from cryotwin_nb.imaging import kernels

            owner = self._owners(_set_threads())
            parts = (frequencies, rotations, values, powers, second)
            target, start, *arrays = _numpy(sums, self.start, *parts)
            insert = kernels.insert(values.shape[2] // 2, second.shape[1])
            insert(target, start, owner, np.float32(self.scale), *arrays)
            return
        corners, sign = self._corners(frequencies, rotations)
        real, imaginary = values.chunk(2, dim=-1)
        columns = [real, imaginary * sign[..., None], powers[..., None] * second[:, None]]
        vectors = torch.cat(columns, dim=-1).flatten(0, 1)
        for index, share in corners:
            sums.index_add_(0, index, vectors * share[:, None])

    def close(self, sums: Tensor, n_first: int) -> None:
        """Complete the plane x = 0: add to each voxel the conjugate of the sums at the opposite voxel."""
        plane = (self.positions[:, 0] == 0).nonzero().flatten()
        y, z = (-self.positions[plane, 1:].long() + len(self.start) // 2).unbind(1)
        opposite = self.start[z, y].long().to(sums.device)
        mirrored = sums[opposite]
        mirrored[:, n_first : 2 * n_first] *= -1
        sums[plane.to(sums.device)] += mirrored

    def solve(self, sums: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the normal equations of each voxel.

        Parameters
        ----------
        sums : (V, 2Q + M)
            Right-hand sides (Q real parts, Q imaginary parts) and lower triangles of the Q x Q matrices, row by row.
        precision : (n_shells, Q) float64
            Values added to the diagonals, by shell.

        Returns
        -------
        solution : (V, 2Q) float32
        covariance : (n_shells, Q, Q) float64
            Mean of the matrices' inverses over each shell.
        """
        size, shells = precision.shape[1], len(precision)
        solution = sums.new_empty(len(self), 2 * size)
        row, column = torch.tril_indices(size, size)
        if sums.device.type == "cpu":
            from cryotwin_nb.imaging import kernels

            lower = np.zeros((_set_threads(), shells, size, size))
            kernels.solve(*_numpy(sums, self.shell, precision, solution), lower)
            total = torch.as_tensor(lower.sum(0))
            total = total + total.tril(-1).mT
        else:
            total, shell = precision.new_zeros(shells, size, size), self.shell.to(sums.device)
            for part in torch.arange(len(self), device=sums.device).split(2**16):
                matrix = precision[shell[part]].diag_embed()
                matrix[:, row, column] += sums[part, 2 * size :].double()
                inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))  # reads only the lower triangle
                right = sums[part, : 2 * size].double().view(-1, 2, size)
                solution[part] = (right @ inverse).flatten(1).float()
                total.index_add_(0, shell[part], inverse)
        counts = torch.bincount(self.shell, minlength=shells).clamp_min(1).to(total.device)
        return solution, total / counts[:, None, None]

    def _corners(self, frequencies: Tensor, rotations: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Return the eight neighbours of each sample as (index, weight) (m P,), and the sign of its imaginary part."""
        positions = slice_coordinates(frequencies, rotations) * self.scale
        sign = torch.where(positions[..., 0] < 0, -1.0, 1.0)
        positions = (positions * sign[..., None]).flatten(0, 1)
        corner = positions.floor().long()
        fraction, start = positions - corner, self.start.to(positions.device)
        corners = []
        for offset in torch.cartesian_prod(*[torch.arange(2, device=positions.device)] * 3):
            share = torch.where(offset.bool(), fraction, 1 - fraction).prod(-1)
            x, y, z = (corner + offset).unbind(-1)
            corners.append((start[z + len(start) // 2, y + len(start) // 2].long() + x, share))
        return corners, sign

    def _owners(self, threads: int) -> np.ndarray:
        """Return the thread that inserts into each plane of constant z; all threads get equal shares of the samples.

        With uniformly distributed views, a plane receives 2 pi (R - |z|) samples.
        """
        centre = len(self.start) // 2
        samples = centre + 1.0 - np.abs(np.arange(len(self.start)) - centre)
        return np.minimum(threads * (samples.cumsum() - samples / 2) // samples.sum(), threads - 1).astype(np.int64)


@lru_cache(maxsize=4)
def half_ball(box_size: int, radius: float, padding: float) -> HalfBall:
    """Return the `HalfBall` of a box, on the CPU; results are cached."""
    return HalfBall(box_size, radius, padding)


def _numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _set_threads() -> int:
    """Let the compiled loops use as many threads as PyTorch; return the number of threads."""
    import numba

    most, wanted = numba.config.NUMBA_NUM_THREADS, torch.get_num_threads()  # type: ignore[attr-defined]
    threads = min(wanted, most)
    numba.set_num_threads(threads)
    torch.set_num_threads(wanted)  # numba's first call also changes PyTorch's number of OpenMP threads
    return threads
