"""Inner loops of slicing, compiled with numba: read slices from a lattice, insert them, solve each voxel's equations.

The functions fill arrays in place. The arrays are described in `lattice`, which implements the same operations in plain
PyTorch for other devices. The lattice consists of rows along x with x >= 0: voxel (x, y, z) has the index
`start[z + c, y + c] + x`, and a sample with x < 0 is replaced by its conjugate at the opposite position. Loops over the
maps are short and are vectorised only if their length is a compile-time constant, so `gather` and `insert` return a
separate function for each number of maps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numba import njit, prange

compiled: Any = partial(njit, parallel=True, fastmath=True, cache=True, nogil=True)


@njit(inline="always")
def _locate(rotation, kx, ky, scale):
    """Return the position scale * R (kx, ky, 0) folded to x >= 0, and the sign of the imaginary part there."""
    x = scale * (rotation[0, 0] * kx + rotation[0, 1] * ky)
    y = scale * (rotation[1, 0] * kx + rotation[1, 1] * ky)
    z = scale * (rotation[2, 0] * kx + rotation[2, 1] * ky)
    if x < 0:
        return -x, -y, -z, np.float32(-1)
    return x, y, z, np.float32(1)


@cache
def gather(n_maps: int) -> Callable:
    """Return a function that reads slices of Q = `n_maps` maps.

    The function fills slices (m, P, 2Q) by trilinear interpolation in a lattice (V, 2Q) of Q real parts and
    Q imaginary parts.
    """

    @compiled
    def gather(lattice, start, scale, frequencies, rotations, slices):
        centre = start.shape[0] // 2
        for i in prange(len(rotations)):
            for p in range(len(frequencies)):
                x, y, z, sign = _locate(rotations[i], frequencies[p, 0], frequencies[p, 1], scale)
                x0, y0, z0 = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
                fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
                gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
                a = start[z0 + centre, y0 + centre] + x0
                b = start[z0 + centre, y0 + centre + 1] + x0
                c = start[z0 + centre + 1, y0 + centre] + x0
                d = start[z0 + centre + 1, y0 + centre + 1] + x0
                wa, wb, wc, wd = gz * gy, gz * fy, fz * gy, fz * fy
                for q in range(2 * n_maps):
                    near = wa * lattice[a, q] + wb * lattice[b, q] + wc * lattice[c, q] + wd * lattice[d, q]
                    far = wa * lattice[a + 1, q] + wb * lattice[b + 1, q]
                    far += wc * lattice[c + 1, q] + wd * lattice[d + 1, q]
                    slices[i, p, q] = gx * near + fx * far
                for q in range(n_maps, 2 * n_maps):
                    slices[i, p, q] *= sign

    return gather


@cache
def insert(n_maps: int, n_products: int) -> Callable:
    """Return a function that adds slices to sums (V, 2Q + M), Q = `n_maps`, M = `n_products`: the adjoint of `gather`.

    Sample p of image i adds the vector (values[i, p], powers[i, p] * second[i]), with values (m, P, 2Q) of Q real parts
    and Q imaginary parts, powers (m, P) and second (m, M). Each thread owns some planes of constant z (`owner`), loops
    over all samples and adds only to its planes, so the order of summation does not depend on the number of threads.
    """
    channels = 2 * n_maps + n_products

    @compiled
    def insert(sums, start, owner, scale, frequencies, rotations, values, powers, second):
        centre = start.shape[0] // 2
        for thread in prange(owner.max() + 1):
            vector = np.empty(channels, np.float32)
            for i in range(len(rotations)):
                for p in range(len(frequencies)):
                    x, y, z, sign = _locate(rotations[i], frequencies[p, 0], frequencies[p, 1], scale)
                    z0 = int(np.floor(z))
                    if owner[z0 + centre] != thread and owner[z0 + centre + 1] != thread:
                        continue
                    x0, y0 = int(np.floor(x)), int(np.floor(y))
                    fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
                    for q in range(n_maps):
                        vector[q] = values[i, p, q]
                        vector[n_maps + q] = sign * values[i, p, n_maps + q]
                    for q in range(n_products):
                        vector[2 * n_maps + q] = powers[i, p] * second[i, q]
                    for dz in range(2):
                        if owner[z0 + dz + centre] != thread:
                            continue
                        wz = fz if dz else np.float32(1) - fz
                        for dy in range(2):
                            w = wz * (fy if dy else np.float32(1) - fy)
                            row = start[z0 + dz + centre, y0 + dy + centre] + x0
                            near, far = w * (np.float32(1) - fx), w * fx
                            for q in range(channels):
                                sums[row, q] += near * vector[q]
                            for q in range(channels):
                                sums[row + 1, q] += far * vector[q]

    return insert


@compiled
def solve(sums, shell, precision, solution, covariance):
    """Solve the normal equations of each voxel, and sum the inverses of their matrices over each shell.

    Parameters
    ----------
    sums : (V, 2Q + M)
        Right-hand sides (Q real parts, Q imaginary parts) and lower triangles of the Q x Q matrices.
    shell : (V,)
        Shell of each voxel.
    precision : (n_shells, Q)
        Values added to the diagonals.
    solution : (V, 2Q)
        Solutions, filled in place.
    covariance : (threads, n_shells, Q, Q)
        Sums of the inverses (lower triangles), one for each thread, updated in place.
    """
    n_voxels, size = len(sums), precision.shape[1]
    threads = len(covariance)
    for thread in prange(threads):
        factor, inverse = np.zeros((size, size)), np.zeros((size, size))
        for v in range(thread * n_voxels // threads, (thread + 1) * n_voxels // threads):
            s, entry = shell[v], 2 * size
            for i in range(size):
                for j in range(i + 1):  # Cholesky factor, row by row
                    total = float(sums[v, entry])
                    entry += 1
                    if i == j:
                        total += precision[s, i]
                    for k in range(j):
                        total -= factor[i, k] * factor[j, k]
                    factor[i, j] = np.sqrt(max(total, 1e-30)) if i == j else total / factor[j, j]
            for j in range(size):  # inverse of the factor, column by column
                inverse[j, j] = 1 / factor[j, j]
                for i in range(j + 1, size):
                    total = 0.0
                    for k in range(j, i):
                        total -= factor[i, k] * inverse[k, j]
                    inverse[i, j] = total / factor[i, i]
            for part in range(0, 2 * size, size):
                for i in range(size):
                    solution[v, part + i] = 0
                for k in range(size):
                    total = 0.0
                    for j in range(k + 1):
                        total += inverse[k, j] * sums[v, part + j]
                    for i in range(k + 1):
                        solution[v, part + i] += inverse[k, i] * total
            for i in range(size):
                for j in range(i + 1):
                    total = 0.0
                    for k in range(i, size):
                        total += inverse[k, i] * inverse[k, j]
                    covariance[thread, s, i, j] += total
