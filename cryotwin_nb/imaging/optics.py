"""Image formation model: central slice, CTF, shift and noise. The model is defined only here.

With k in 1/Å, rotation R and shift t of the particle, the Fourier transform of the recorded image is

    X(k) = CTF(k) exp(+2 pi i k.t) F(R k) + noise,

so that shifting the image by +t (the particle's ``shift``) centres it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.imaging.fourier import fft2, grid, half_plane, ifft2, n_shells, shell_mean


@dataclass(frozen=True)
class CTF:
    """Contrast transfer function parameters of n particles; each field is an (n,) float array.

    Attributes
    ----------
    defocus_u, defocus_v : (n,) float32
        Defocus along the two principal axes, Å, positive for underfocus.
    defocus_angle : (n,) float32
        Angle of the `defocus_u` axis from x, degrees.
    voltage : (n,) float32
        Acceleration voltage, kV.
    spherical_aberration : (n,) float32
        Cs, mm.
    amplitude_contrast : (n,) float32
        Fraction, 0 to 1.
    phase_shift : (n,) float32
        Phase shift of a phase plate, degrees.
    """

    defocus_u: np.ndarray
    defocus_v: np.ndarray
    defocus_angle: np.ndarray
    voltage: np.ndarray
    spherical_aberration: np.ndarray
    amplitude_contrast: np.ndarray
    phase_shift: np.ndarray

    def __len__(self) -> int:
        return len(self.defocus_u)

    def __getitem__(self, indices) -> CTF:
        """Return the parameters of a subset of particles."""
        return CTF(*(getattr(self, f.name)[indices] for f in fields(self)))

    def __call__(self, frequencies: Tensor) -> Tensor:
        """CTF at `frequencies` (P, 2) in 1/Å: (n, P) float32.

        CTF = sqrt(1 - w^2) sin(gamma) - w cos(gamma), gamma = 2 pi (-defocus lambda s^2 / 2 + Cs lambda^3 s^4 / 4)
        - phase shift: negative at low frequency, so that positive density is dark.
        """
        u, v, angle, voltage, cs, w, phase = (
            torch.as_tensor(np.asarray(getattr(self, f.name)), dtype=torch.float64, device=frequencies.device)[:, None]
            for f in fields(self)
        )
        wave, cs = electron_wavelength(voltage), cs * 1e7
        kx, ky = frequencies.double().unbind(-1)
        s2 = kx**2 + ky**2
        azimuth = torch.atan2(ky, kx) - torch.deg2rad(angle)
        defocus = (u + v) / 2 + (u - v) / 2 * torch.cos(2 * azimuth)
        gamma = 2 * torch.pi * (-defocus * wave * s2 / 2 + cs * wave**3 * s2**2 / 4) - torch.deg2rad(phase)
        return ((1 - w**2).sqrt() * gamma.sin() - w * gamma.cos()).float()


def implausible(ctf: CTF | None, shifts: np.ndarray | None, width: float) -> list[str]:
    """Describe values that are possible but unlikely, one line for each kind, with the number of particles.

    Parameters
    ----------
    ctf : CTF or None
        CTF parameters of n particles.
    shifts : (n, 2) or None
        Shifts, Å.
    width : float
        Width of the box, Å.
    """
    kinds = []
    if ctf is not None:
        lower = np.minimum(ctf.defocus_u, ctf.defocus_v)
        kinds += [
            ("a voltage below 60 or above 1,000 kV", (ctf.voltage < 60) | (ctf.voltage > 1000), ctf.voltage, "kV"),
            ("a defocus of 0 or below without a phase shift", (lower <= 0) & (ctf.phase_shift == 0), lower, "Å"),
        ]
    if shifts is not None:
        farthest = np.abs(shifts).max(1)
        kinds.append((f"a shift beyond half the box of {width:.4g} Å", farthest > width / 2, farthest, "Å"))
    lines = []
    for what, found, values, unit in kinds:
        rows = np.flatnonzero(found)
        if len(rows):
            first = ", ".join(f"{row + 1} ({values[row]:g} {unit})" for row in rows[:3])
            more = ", ..." if len(rows) > 3 else ""
            lines.append(
                f"{len(rows)} of {len(found)} particles have {what}: {first}{more}. Check the units and signs."
            )
    return lines


def electron_wavelength(voltage: Tensor) -> Tensor:
    """Relativistic electron wavelength in Å for a voltage in kV."""
    volts = voltage * 1e3
    return 12.2639 / (volts + 0.97845e-6 * volts**2).sqrt()


def slice_coordinates(frequencies: Tensor, rotations: Tensor) -> Tensor:
    """3-D frequencies v = R (kx, ky, 0) of central slices: (P, 2) and (n, 3, 3) give (n, P, 3)."""
    return frequencies @ rotations[:, :, :2].transpose(1, 2)


def shift_phases(frequencies: Tensor, shifts: Tensor) -> Tensor:
    """exp(+2 pi i k.t): (P, 2) in 1/Å and (n, 2) in Å give (n, P); a recorded image contains this factor."""
    angle = 2 * torch.pi * shifts @ frequencies.T
    return torch.polar(torch.ones_like(angle), angle)


def circular_window(box_size: int, radius: float, width: float) -> Tensor:
    """Soft disc (D, D): 1 inside `radius` pixels, a raised cosine over the next `width` pixels, then 0."""
    distance = grid(box_size, 2).float().norm(dim=-1)
    return 0.5 + 0.5 * torch.cos(torch.pi * ((distance - radius) / width).clamp(0, 1))


def noise_power(images: Tensor, particle_radius: float) -> Tensor:
    """Noise power in each shell, (n_shells,) float64, from pixels outside the particle.

    Parameters
    ----------
    images : (n, D, D) float32
        Recorded images.
    particle_radius : float
        Radius of the particle, pixels; pixels within it are ignored.
    """
    return noise_spectrum(masked_power(images, particle_radius), particle_radius)


def masked_power(images: Tensor, particle_radius: float) -> Tensor:
    """Mean power spectrum (D, D) of images with the background subtracted and the particle softly masked out."""
    mask = _outside(images.shape[-1], particle_radius).to(images)
    level = (images * mask).sum((-2, -1), keepdim=True) / mask.sum()
    return fft2((images - level) * mask).abs().square().double().mean(0)


def noise_spectrum(power: Tensor, particle_radius: float) -> Tensor:
    """Noise power in each shell, (n_shells,) float64, from the `masked_power` (D, D) of images.

    Notes
    -----
    The mask smooths the spectrum, and subtracting the background level lowers the power in the lowest shells. Both
    effects can be computed for any spectrum (`_expected_power`) and are undone by iterating
    spectrum <- spectrum * measured / expected.
    """
    size = len(power)
    plane, mask = half_plane(size), _outside(size, particle_radius).double()

    def in_shells(values: Tensor) -> Tensor:
        return shell_mean(plane.gather(values), plane.shell, n_shells(size), plane.multiplicity)[1:]

    measured, spectrum = in_shells(power), torch.ones(n_shells(size) - 1, dtype=torch.float64)
    nearest = (grid(size, 2).float().norm(dim=-1).round().long() - 1).clamp_min(0)  # shell 0 gets the value of shell 1
    for _ in range(20):
        spectrum = spectrum * measured / in_shells(_expected_power(spectrum[nearest], mask)).clamp_min(1e-30)
    return torch.cat([spectrum[:1], spectrum])


def _outside(box_size: int, particle_radius: float) -> Tensor:
    return 1 - circular_window(box_size, particle_radius, width=max(2.0, box_size / 16))


def _expected_power(spectrum: Tensor, mask: Tensor) -> Tensor:
    """Expected power (D, D) of mask * (noise - level) for noise of a given power; level is the mean under the mask.

    With M the transform of the mask and u the transform of mask * noise, the level is u(0) / M(0) and the remainder is
    u - M u(0) / M(0); the covariances of u are convolutions of M with the spectrum.
    """
    size, transform = len(mask), fft2(mask)

    def convolve(a: Tensor, b: Tensor) -> Tensor:
        return fft2(ifft2(a) * ifft2(b)) * size**-0.5

    share = transform / transform[size // 2, size // 2]
    power = convolve(transform.abs().square(), spectrum).real
    with_level = convolve(transform, spectrum * transform.conj())
    of_level = power[size // 2, size // 2]
    return power - 2 * (share.conj() * with_level).real + share.abs().square() * of_level
