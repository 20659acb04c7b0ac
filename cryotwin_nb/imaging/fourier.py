"""Centred Fourier transforms, the Fourier half plane and shells.

Conventions, used everywhere in cryotwin_nb:

* box size D is even; the origin is index D//2 on every axis;
* arrays are indexed ``zyx`` (``yx`` for images), and coordinates are written ``xyz`` (``xy``);
* frequencies k are integers in grid units, -D/2 ... D/2-1; k / (D * pixel_size) is in 1/Å;
* 2-D and 3-D transforms have the same factor D^(-3/2). The 3-D transform is then unitary, and the transform of
  a projection (the sum of the voxels along z) *is* the central slice of the transform of the volume;
* real images and volumes satisfy F(-k) = F(k)*, so only half of the plane is kept (`HalfPlane`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.fft import fftn, fftshift, ifftn, ifftshift

from cryotwin_nb.errors import InputError


def _centred(transform, array: Tensor, axes: tuple[int, ...]) -> Tensor:
    return fftshift(transform(ifftshift(array, dim=axes), dim=axes), dim=axes)


def fft2(images: Tensor) -> Tensor:
    """Centred transform of images (..., D, D), times D^(-3/2)."""
    return _centred(fftn, images, (-2, -1)) * images.shape[-1] ** -1.5


def ifft2(spectra: Tensor) -> Tensor:
    """Inverse of `fft2`; the result stays complex."""
    return _centred(ifftn, spectra, (-2, -1)) * spectra.shape[-1] ** 1.5


def fft3(volumes: Tensor) -> Tensor:
    """Centred unitary transform of volumes (..., D, D, D)."""
    return _centred(fftn, volumes, (-3, -2, -1)) * volumes.shape[-1] ** -1.5


def ifft3(spectra: Tensor) -> Tensor:
    """Inverse of `fft3`; the result stays complex."""
    return _centred(ifftn, spectra, (-3, -2, -1)) * spectra.shape[-1] ** 1.5


def real_fft3(volumes: Tensor) -> Tensor:
    """Unnormalised transform (..., S, S, S/2 + 1) of real volumes (..., S, S, S): x >= 0, zero frequency first."""
    return torch.fft.rfftn(ifftshift(volumes, dim=(-3, -2, -1)), dim=(-3, -2, -1))


def real_ifft3(spectra: Tensor) -> Tensor:
    """Inverse of `real_fft3`."""
    return fftshift(torch.fft.irfftn(spectra, dim=(-3, -2, -1)), dim=(-3, -2, -1))


def fourier_padded(volumes: Tensor, box_size: int) -> Tensor:
    """Resample volumes (..., D, D, D) to a finer grid of `box_size` voxels over the same cube, with the same centre.

    The transform is zero-padded: nothing is added above the old Nyquist frequency or lost below it, and
    voxels common to both grids keep their values.
    """
    size = volumes.shape[-1]
    margin = (require_box_size(box_size) - size) // 2
    padded = torch.nn.functional.pad(fft3(volumes), (margin,) * 6)
    return ifft3(padded).real * (box_size / size) ** 1.5


def mirrored(volumes: Tensor) -> Tensor:
    """Mirror volumes (..., D, D, D) in the plane z = 0 through the voxel D//2: the same structures in the other hand.

    Voxel k along z comes from voxel (2 (D//2) - k) mod D. In an even box, the plane at index 0 has no partner and stays
    where it is. Mirrored volumes have the projections of the originals at the poses of `poses.mirrored_rotations`, with
    the same shifts and CTF; in an even box this is exact if the plane at index 0 is empty.
    """
    return volumes.flip(-3).roll(1 - volumes.shape[-3] % 2, -3)


def crop_images(images: Tensor, box_size: int) -> Tensor:
    """Downsample real images (..., D, D) to a coarser grid (..., d, d) of the same extent by Fourier cropping.

    Grey values remain line integrals of the density.
    """
    size, half = images.shape[-1], box_size // 2
    rows = torch.cat([torch.arange(half), torch.arange(size - half, size)]).to(images.device)
    spectra = torch.fft.rfft2(images)[..., rows, : half + 1]
    return torch.fft.irfft2(spectra, s=(box_size, box_size)) * (box_size / size) ** 2


def resampling(box_size: int, pixel_size: float, new_box_size: int, new_pixel_size: float) -> Tensor:
    """Matrix M (d, D) float32 that resamples images (D, D) to pixels of another size: M @ image @ M.T.

    The trigonometric polynomial through the pixels, without its frequencies above the lower of both Nyquist
    frequencies, is evaluated at the new pixels, with the same centre. Grey values remain line integrals of the density.
    """
    size, places = require_box_size(box_size), torch.arange(new_box_size, dtype=torch.float64) - new_box_size // 2
    wave = torch.arange(-(size // 2), size // 2 + 1, dtype=torch.float64)
    of_nyquist = wave.abs() * 2 * new_pixel_size / (size * pixel_size)
    gain = torch.where((of_nyquist - 1).abs() < 1e-6, 0.5, (of_nyquist < 1).double())
    gain[[0, -1]] = gain[[0, -1]].clamp_max(0.5)  # both are the same coefficient
    new = 2 * torch.pi * wave / (size * pixel_size) * (places * new_pixel_size)[:, None]
    old = 2 * torch.pi * wave / size * (torch.arange(size) - size // 2)[:, None]
    return (((gain * new.cos()) @ old.cos().T + (gain * new.sin()) @ old.sin().T) / size).float()


def filter_images(images: Tensor, gains: Tensor) -> Tensor:
    """Multiply the Fourier coefficients of real images (m, D, D) by the gains (m, n_shells) of their shells."""
    size = images.shape[-1]
    shell = grid(size, 2, images.device).float().norm(dim=-1).round().long()
    shell = ifftshift(shell)[:, : size // 2 + 1]
    return torch.fft.irfft2(torch.fft.rfft2(images) * gains.to(images)[:, shell], s=(size, size))


def grid(box_size: int, dimensions: int, device: torch.device | None = None) -> Tensor:
    """Integer frequencies (or voxel offsets) of a centred grid, (D, ..., D, dimensions) in ``xy[z]`` order."""
    axis = torch.arange(-(box_size // 2), box_size // 2, device=device)
    return torch.stack(torch.meshgrid(*[axis] * dimensions, indexing="ij")[::-1], dim=-1)


def require_box_size(box_size: int, where: object = "box_size") -> int:
    """Return `box_size` if it is an even integer from 8 to 4,096, else raise `InputError`."""
    given: Any = box_size
    if not isinstance(given, Real) or given not in range(8, 2**12 + 1, 2):
        remedy = "Crop or pad the images to an even size, for example with relion_image_handler or Fourier cropping."
        raise InputError(
            where, f"a box of {box_size} pixels", "an even box of at least 8 pixels, at most 4,096", remedy
        )
    return int(box_size)


@dataclass(frozen=True)
class HalfPlane:
    """One coefficient of each conjugate pair of a D x D Fourier plane, inside a disc, sorted by |k|.

    Sums over the whole plane become sums over the half plane weighted by `multiplicity`:
    <a, b> = Re sum_p multiplicity_p a_p* b_p.

    Attributes
    ----------
    box_size : int
        Box size D, pixels.
    radius : float or None
        Frequencies with |k| < radius (grid units) are kept; None keeps the whole plane.
    index : (P,) int64
        Positions in a flattened centred D x D plane.
    frequencies : (P, 2) float32
        k = (kx, ky), grid units.
    multiplicity : (P,) float32
        2, or 1 for the self-conjugate coefficients (DC and the Nyquist corners).
    shell : (P,) int64
        |k| rounded to the nearest integer.
    """

    box_size: int
    radius: float | None
    index: Tensor
    frequencies: Tensor
    multiplicity: Tensor
    shell: Tensor

    def gather(self, spectra: Tensor) -> Tensor:
        """Coefficients (..., P) of centred planes (..., D, D)."""
        return spectra.flatten(-2)[..., self.index.to(spectra.device)]

    def scatter(self, coefficients: Tensor) -> Tensor:
        """Centred Hermitian planes (..., D, D) from half-plane coefficients (..., P); zero outside the disc."""
        size, device = self.box_size, coefficients.device
        plane = coefficients.new_zeros(*coefficients.shape[:-1], size * size)
        index = self.index.to(device)
        plane[..., _partner(index, size)] = coefficients.conj()
        plane[..., index] = coefficients
        return plane.unflatten(-1, (size, size))


def _partner(index: Tensor, box_size: int) -> Tensor:
    """Flattened position of -k for the frequency at flattened position `index`."""
    row, column = index // box_size, index % box_size
    return (-row) % box_size * box_size + (-column) % box_size


def n_shells(box_size: int) -> int:
    """Number of integer shells |k| = 0, 1, ... up to the corner of a D x D x D cube."""
    return round(3**0.5 * (box_size // 2)) + 1


@lru_cache(maxsize=16)
def half_plane(box_size: int, radius: float | None = None) -> HalfPlane:
    """Return the `HalfPlane` of a box, on the CPU; results are cached."""
    require_box_size(box_size)
    frequencies = grid(box_size, 2).reshape(-1, 2)
    index = torch.arange(box_size**2)
    partner = _partner(index, box_size)
    length = frequencies.float().norm(dim=-1)
    inside = (index >= partner) & (length < (radius if radius is not None else float("inf")))
    keep = torch.nonzero(inside).flatten()[torch.argsort(length[inside], stable=True)]
    multiplicity = torch.where(index == partner, 1.0, 2.0)
    return HalfPlane(
        box_size, radius, index[keep], frequencies[keep].float(), multiplicity[keep], length[keep].round().long()
    )


def shell_mean(values: Tensor, shell: Tensor, n: int, weights: Tensor | None = None) -> Tensor:
    """Weighted mean of `values` (..., P) over shells, (..., n) float64; 0 for empty shells."""
    weights = torch.ones_like(shell, dtype=torch.float64) if weights is None else weights.double()
    total = values.new_zeros(*values.shape[:-1], n, dtype=torch.float64).index_add(-1, shell, values.double() * weights)
    mass = weights.new_zeros(n).index_add(0, shell, weights)
    return total / mass.clamp_min(torch.finfo(torch.float64).tiny)
