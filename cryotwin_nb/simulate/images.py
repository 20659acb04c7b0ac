"""Simulated data sets with known ground truth: an assembling ribosomal subunit and a molecule with two hinges.

A projection of Gaussian pseudo-atoms has a closed form: its transform is a product of two small matrices,
sum_j m_j exp(-2 pi i ky y_j) exp(-2 pi i kx x_j), times a Gaussian. Nothing is interpolated, so images and volumes
satisfy the projection-slice theorem to within rounding error. All data are synthetic and labelled as such.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.imaging.fourier import grid
from cryotwin_nb.imaging.optics import CTF, shift_phases
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.simulate.settings import checked
from cryotwin_nb.truth import molecules
from cryotwin_nb.truth.truth import Truth, atom_transform, waves

_BATCH = 32  # images projected at once


def assembly(
    n_particles: int = 10_000,
    box_size: int = 64,
    pixel_size: float | None = None,
    snr: float | None = None,
    seed: int = 0,
    edge_fraction: float = 0.2,
    **options,
) -> Particles:
    """Simulate a large ribosomal subunit that assembles along four routes through thirteen states.

    Parameters
    ----------
    n_particles : int
        Number of images.
    box_size : int
        Box size D, pixels.
    pixel_size : float, optional
        Pixel size, Å; by default 320 Å divided by the box size.
    snr : float, optional
        Signal-to-noise ratio: variance of the CTF-modulated signal divided by the noise variance, inside the particle's
        circle. By default 0.25 at box size 64 and, at other box sizes, the value for the same dose (1.0 at 32).
    seed : int
        Seed of all random numbers.
    edge_fraction : float
        Fraction of particles between two states of a route.
    **options
        `junk` (default 0): fraction of images that show a random cloud of the same mass instead of the molecule.
        `pose_error` (0): root-mean-square error of the recorded rotations, degrees.
        `shift_error` (0): standard deviation of the errors in the recorded shifts, Å, per axis.
        `contrast_std` (0): relative standard deviation of the image contrast (ice thickness).
        `shift_std` (5): standard deviation of the shifts, Å, per axis.
        `images` (True): False skips the images and returns metadata and ground truth only.
        `progress` (True): show a progress bar.

    Returns
    -------
    Particles
        Simulated particles in memory, with `truth`.

    Raises
    ------
    InputError
        If a setting is unknown or out of range, or the images would not fit in memory.

    Examples
    --------
    >>> particles = ct.simulate.assembly(n_particles=10, box_size=32, progress=False)
    """
    n_particles, box_size, seed = checked(n_particles, box_size, pixel_size, snr, seed, options, edge_fraction)
    rng = np.random.default_rng([seed, 1])
    names = np.array(list(molecules.STATES))
    bits = np.array(list(molecules.STATES.values()), dtype=np.float32)
    masses = np.array(list(molecules.STATE_MASSES.values()))
    occupancies = bits[rng.choice(len(names), n_particles, p=masses / masses.sum())]
    between = rng.random(n_particles) < edge_fraction
    route = rng.choice(len(molecules.ROUTES), n_particles, p=molecules.ROUTE_SHARES)
    step = rng.integers(0, len(molecules.ROUTES[0]) - 1, n_particles)
    on_route = np.array([[molecules.STATES[s] for s in r] for r in molecules.ROUTES], dtype=np.float32)
    fraction = rng.random((n_particles, 1)).astype(np.float32)
    edge = on_route[route, step] * (1 - fraction) + on_route[route, step + 1] * fraction
    occupancies = np.where(between[:, None], edge, occupancies)
    labels = names[np.linalg.norm(occupancies[:, None] - bits, axis=-1).argmin(1)]
    truth = Truth("assembly", occupancies, labels, between, box_size, pixel_size or 320 / box_size)
    return _simulate(truth, snr, seed, **options)


def hinge(
    n_particles: int = 10_000,
    box_size: int = 64,
    pixel_size: float | None = None,
    snr: float | None = None,
    seed: int = 0,
    **options,
) -> Particles:
    """Simulate a body whose two arms swing one after the other, so that its two coordinates trace an L.

    `n_particles`, `box_size`, `pixel_size`, `snr`, `seed` and `options` are as in `assembly`. Half of the particles
    are spread evenly along the L; the others are in wells at its ends and its corner. A straight line between the ends
    leaves the L.

    Examples
    --------
    >>> ct.simulate.hinge(n_particles=10, box_size=32, progress=False).truth.coordinate_names
    ('left arm', 'right arm')
    """
    n_particles, box_size, seed = checked(n_particles, box_size, pixel_size, snr, seed, options)
    rng = np.random.default_rng([seed, 2])
    wells = rng.choice([0.0, 1.0, 2.0], n_particles, p=[0.4, 0.3, 0.3]) + rng.normal(0, 0.1, n_particles)
    between = rng.random(n_particles) < 0.5
    along = np.where(between, rng.uniform(0, 2, n_particles), 2 - np.abs(2 - np.abs(wells)))
    coordinates = np.stack([along.clip(0, 1), (along - 1).clip(0, 1)], axis=1)
    coordinates = (coordinates + rng.normal(0, 0.04, coordinates.shape)).astype(np.float32)
    names, centres = np.array(list(molecules.HINGE_STATES)), np.array(list(molecules.HINGE_STATES.values()))
    labels = names[np.linalg.norm(coordinates[:, None] - centres, axis=-1).argmin(1)]
    truth = Truth("hinge", coordinates, labels, between, box_size, pixel_size or 320 / box_size)
    return _simulate(truth, snr, seed, **options)


def random_rotations(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return random rotation matrices (n, 3, 3) float32, uniform over SO(3) (QR of Gaussian matrices).

    Parameters
    ----------
    n : int
        Number of rotations.
    rng : numpy.random.Generator
        Source of random numbers.
    """
    q, r = np.linalg.qr(rng.normal(size=(n, 3, 3)))
    q *= np.sign(np.einsum("nii->ni", r))[:, None, :]
    q[:, :, 0] *= np.linalg.det(q)[:, None]
    return q.astype(np.float32)


def _simulate(
    truth: Truth,
    snr: float | None,
    seed: int,
    junk: float = 0.0,
    pose_error: float = 0.0,
    shift_error: float = 0.0,
    contrast_std: float = 0.0,
    shift_std: float = 5.0,
    images: bool = True,
    progress: bool = True,
) -> Particles:
    """Simulate random poses, CTFs and shifts, exact projections and coloured noise; parameters as in `assembly`."""
    n, size, pixel = len(truth), truth.box_size, truth.pixel_size
    snr = snr if snr is not None else 0.25 * (64 / size) ** 2
    rng = np.random.default_rng([seed, 3])
    rotations, ctf = random_rotations(n, rng), _random_ctf(n, rng)
    shifts = rng.normal(0, shift_std, (n, 2)).astype(np.float32)
    contrast = rng.normal(1, contrast_std, n).astype(np.float32)
    is_junk = rng.random(n) < junk
    truth = replace(truth, labels=np.where(is_junk, "junk", truth.labels))
    stack = _stack(truth, is_junk, rotations, ctf, shifts, contrast, snr, rng, progress) if images else None
    errors = rng.normal(0, 1, shifts.shape).astype(np.float32) * shift_error
    return Particles(
        images=stack,
        rotations=_perturbed(rotations, pose_error, rng),
        shifts=shifts + errors,
        ctf=ctf,
        pixel_size=pixel,
        truth=truth,
        box_size=size,
    )


def _stack(
    truth: Truth,
    is_junk: np.ndarray,
    rotations: np.ndarray,
    ctf: CTF,
    shifts: np.ndarray,
    contrast: np.ndarray,
    snr: float,
    rng: np.random.Generator,
    progress: bool,
) -> np.ndarray:
    """Return the images (n, D, D): projections with CTF and shifts, times contrast, plus noise."""
    n, size, pixel = len(truth), truth.box_size, truth.pixel_size
    images = np.empty((n, size, size), dtype=np.float32)
    with tqdm(total=n, desc="simulating", unit="image", disable=not progress) as bar:
        for rows in np.array_split(np.arange(n), -(-n // _BATCH)):
            positions, masses = truth.structure(torch.as_tensor(truth.coordinates[rows]))
            positions = positions.expand(len(rows), -1, -1).clone()
            junk = torch.as_tensor(is_junk[rows])
            clouds = rng.normal(0, 45, (int(junk.sum()), *positions.shape[1:]))
            positions[junk] = torch.as_tensor(clouds, dtype=torch.float32)
            poses, t = torch.as_tensor(rotations[rows]), torch.as_tensor(shifts[rows])
            images[rows] = _project(positions, masses, poses, ctf[rows], t, size, pixel)
            bar.update(len(rows))
    images *= contrast[:, None, None]
    return images + _coloured_noise(rng, images, snr, pixel)


def _random_ctf(n: int, rng: np.random.Generator) -> CTF:
    """Return random CTFs: 300 kV, Cs 2.7 mm, 1 to 3 µm underfocus, slightly astigmatic."""
    defocus, astigmatism = rng.uniform(10_000, 30_000, n), rng.normal(0, 200, n)
    values = (
        *(defocus + astigmatism, defocus - astigmatism, rng.uniform(0, 180, n)),
        *(np.full(n, 300.0), np.full(n, 2.7), np.full(n, 0.1), np.zeros(n)),
    )
    return CTF(*(v.astype(np.float32) for v in values))


def _perturbed(rotations: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Return the rotations followed by random rotations about random axes, with a given root-mean-square angle."""
    vectors = torch.as_tensor(rng.normal(0, np.deg2rad(degrees) / 3**0.5, (len(rotations), 3)), dtype=torch.float32)
    angle = vectors.norm(dim=1)
    errors = molecules.axis_rotation(vectors / angle.clamp_min(1e-12)[:, None], angle)
    return (errors @ torch.as_tensor(rotations)).numpy()


def _project(
    positions: Tensor, masses: Tensor, rotations: Tensor, ctf: CTF, shifts: Tensor, size: int, pixel: float
) -> np.ndarray:
    """Return CTF-modulated, shifted projections (m, D, D) of pseudo-atoms, without noise."""
    half = slice(0, size // 2 + 1)
    x, y = waves((positions @ rotations)[..., :2], size, pixel)
    fall = atom_transform(size)
    spectrum = (y * masses[..., None]).transpose(1, 2) @ x[..., half] * (fall[:, None] * fall[half])
    frequencies = torch.fft.ifftshift(grid(size, 2), dim=(0, 1))[:, half].reshape(-1, 2) / (size * pixel)
    frequencies[:, 0].abs_()
    filters = ctf(frequencies) * shift_phases(frequencies, shifts)
    return torch.fft.irfft2(spectrum * filters.view_as(spectrum), s=(size, size)).numpy() / pixel**2


def _coloured_noise(rng: np.random.Generator, images: np.ndarray, snr: float, pixel: float) -> np.ndarray:
    """Return noise (n, D, D) that is stronger at low frequencies and gives `snr` inside the particle's circle."""
    size = images.shape[-1]
    inside = grid(size, 2).float().norm(dim=-1).numpy() < 0.4 * size
    sigma = float(np.sqrt(images[:1000, inside].var(axis=1).mean() / snr))
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) / pixel
    power = 1 + 2 / (1 + (k / 0.02) ** 2)
    multiplicity = np.where((np.arange(size // 2 + 1) % (size // 2)) == 0, 1, 2)
    amplitude = np.sqrt(power / ((power * multiplicity).sum() / size**2)).astype(np.float32) * sigma
    noise = np.empty_like(images)
    for start in range(0, len(images), 500):
        white = rng.standard_normal((len(images[start : start + 500]), size, size), dtype=np.float32)
        coloured = torch.fft.irfft2(torch.fft.rfft2(torch.as_tensor(white)) * torch.as_tensor(amplitude))
        noise[start : start + 500] = coloured.numpy()
    return noise
