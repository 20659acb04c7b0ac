"""Latents and priors of simulated `assembly` sets, made without images, for `algorithm1_map.py`.

The positions are those of the true density maps: an isometric map of the five occupancies onto principal components,
in the units of the stored model `assembly-small`. Each particle is seen in a random view with a random CTF, and its
latent is the posterior mean that the closed-form estimator of the subspace architecture would give, with the exact
information matrix of that image. Nothing but the latents is needed to train a prior by the paper's scheme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

import cryotwin_nb as ct
from cryotwin_nb.imaging.fourier import grid
from cryotwin_nb.mixture import MixtureMoments
from cryotwin_nb.simulate.images import _random_ctf, random_rotations
from cryotwin_nb.truth import Truth, molecules
from cryotwin_nb.truth.truth import atom_transform, waves

BOX, PIXEL = 32, 10.0
DIM = 8  # d of the paper; five axes carry the occupancies, three are empty
EMPTY = 0.1  # standard deviation along an empty axis, in units of the encoder's noise
SCALE = 0.0011  # map distance per latent unit in the stored model assembly-small
N_VIEWS = 500  # different views per set
SNRS = (1.0, 0.2, 0.1, 0.05, 0.02)


@dataclass(frozen=True)
class Latents:
    """Latents z (n, d) float64 with their truth.

    `spacing` is the mean distance of C2-E1, E1-E2 and E2-E4, `noise` the root-mean-square deviation, per live axis, of
    the latents of one structure; both in latent units.
    """

    z: Tensor
    truth: Truth
    spacing: float
    noise: float

    def centre(self, state: str) -> Tensor:
        return self.z[(self.truth.labels == state) & ~self.truth.between].mean(0)


@cache
def _block_distances() -> Tensor:
    """Return the upper Cholesky factor (5, 5) of the Gram matrix of the blocks' densities."""
    truth = ct.simulate.assembly(2, BOX, images=False, progress=False).truth
    empty = truth.volume_at(np.zeros(5))
    blocks = torch.stack([truth.volume_at(row) - empty for row in np.eye(5, dtype=np.float32)]).flatten(1).double()
    return torch.linalg.cholesky(blocks @ blocks.T).T


def information(n_views: int, seed: int) -> Tensor:
    """Return the information matrices (n_views, 5, 5) of the five occupancies in images of signal-to-noise ratio 1."""
    rng = np.random.default_rng([seed, 7])
    molecule = molecules.assembly_molecule()
    rotations, ctf = torch.as_tensor(random_rotations(n_views, rng)), _random_ctf(n_views, rng)
    half = slice(0, BOX // 2 + 1)
    fall = atom_transform(BOX)
    frequencies = torch.fft.ifftshift(grid(BOX, 2), dim=(0, 1))[:, half].reshape(-1, 2) / (BOX * PIXEL)
    frequencies[:, 0].abs_()
    parts = [molecule["positions"][molecule["blocks"] == b] for b in range(6)]
    bits = torch.tensor(list(molecules.STATES.values()))
    masses = torch.tensor(list(molecules.STATE_MASSES.values()))
    circle = grid(BOX, 2).float().norm(dim=-1) < 0.4 * BOX
    k = frequencies.norm(dim=1)
    power = 1 + 2 / (1 + (k / 0.02) ** 2)
    multiplicity = torch.where((torch.arange(BOX // 2 + 1) % (BOX // 2)) == 0, 1.0, 2.0).repeat(BOX)
    power /= (power * multiplicity).sum() / BOX**2
    weights = multiplicity / (BOX**2 * power)
    weights[0] = 0  # the mean of the image, which the estimator leaves out
    found, signal = [], []
    for rows in torch.arange(n_views).split(100):
        filters = ctf[rows.numpy()](frequencies)
        spectra = []
        for part in parts:
            x, y = waves((part @ rotations[rows])[..., :2], BOX, PIXEL)
            spectrum = (y.transpose(1, 2) @ x[..., half] * (fall[:, None] * fall[half])).flatten(1)
            spectra.append(spectrum * filters / PIXEL**2)
        blocks = torch.stack(spectra[1:], dim=1)
        real = torch.view_as_real(blocks * weights.sqrt()).flatten(2)
        found.append(real @ real.mT)
        own = bits[torch.multinomial(masses, len(rows), True, generator=torch.Generator().manual_seed(seed))]
        image = torch.fft.irfft2((spectra[0] + (own[..., None] * blocks).sum(1)).view(len(rows), BOX, -1), s=(BOX, BOX))
        signal.append(image[:, circle].var(dim=1))
    return torch.cat(found).double() / float(torch.cat(signal).mean())


def simulated(n: int, snr: float, seed: int) -> Latents:
    """Return the latents of `n` images of signal-to-noise ratio `snr`; everything is drawn from `seed`."""
    truth = ct.simulate.assembly(n, BOX, seed=seed, edge_fraction=0.25, images=False, progress=False).truth
    generator = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(truth.coordinates).double() @ _block_distances().T / SCALE
    average = x.mean(0)
    variances, axes = torch.linalg.eigh((x - average).T @ (x - average) / n)
    x = (x - average) @ axes
    back = torch.linalg.inv(axes.T @ _block_distances() / SCALE)  # occupancies from positions
    views = information(min(n, N_VIEWS), seed)
    view = torch.randint(len(views), (n,), generator=generator)
    G = (snr * back.T @ views @ back)[view]
    spread = torch.randn(n, 5, 1, generator=generator, dtype=torch.float64)
    noisy = G @ x[..., None] + torch.linalg.cholesky(G) @ spread
    z = torch.linalg.solve(G + torch.diag(1 / variances), noisy)[..., 0].flip(-1)
    within = [z[(truth.labels == state) & ~truth.between] for state in ("C2", "E1", "E2", "E4")]
    noise = float(torch.cat([part - part.mean(0) for part in within]).square().mean().sqrt())
    centres = torch.stack([part.mean(0) for part in within])
    empty = EMPTY * noise * torch.randn(n, DIM - 5, generator=generator, dtype=torch.float64)
    return Latents(torch.cat([z, empty], 1), truth, float(centres.diff(dim=0).norm(dim=1).mean()), noise)


def trained(
    z: Tensor, n_components: int, width: float, seed: int, epochs: int = 12, rate: float = 1e-2
) -> ct.GaussianMixture:
    """Return the prior after training by the paper's scheme on fixed latents, with the rate as the only loss.

    A small network gives w = f(z), the responsibilities are softmax(w), the moments are moving averages, and
    Q_z is the mass of the mixture in a box of side `width` (T). Batches, schedule and the renewal of
    starved components are those of `ct.fit`; the learning rate is ten times as high, because the latents are fixed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden, last = nn.Linear(DIM, 64), nn.Linear(64, n_components)
    generator = torch.Generator().manual_seed(seed)
    moments = MixtureMoments(n_components, DIM)
    inputs = (z / z.std(0)).float()
    size = 256 if len(z) < 50_000 else 1024
    epochs = epochs if len(z) < 50_000 else epochs // 3
    optimizer = torch.optim.RAdam([*hidden.parameters(), *last.parameters()], lr=rate)
    steps, step = epochs * -(-len(z) // size), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(z), generator=generator).split(size):
            optimizer.zero_grad(set_to_none=True)
            w = last(hidden(inputs[rows]).tanh())
            loss = -moments.update(z[rows], w).log_window_mass(z[rows], width).mean()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.step()
            step += 1
        for starved in moments.starved():
            heaviest = int(moments.mixture().weights.argmax())
            moments.split(heaviest, starved, generator)
            with torch.no_grad():
                for parameter in (last.weight, last.bias):
                    noise = torch.randn(parameter[heaviest].shape, generator=generator)
                    deviation = parameter.std() if parameter.ndim > 1 else 0.0
                    parameter[starved] = parameter[heaviest] + 0.5 * deviation * noise
    return moments.mixture()


def widened(mixture: ct.GaussianMixture, width: float) -> ct.GaussianMixture:
    """Return the mixture with the floor T^2 / 12 of the rate added to its covariances."""
    floor = width**2 / 12 * torch.eye(mixture.latent_dim, dtype=torch.float64)
    return ct.GaussianMixture.unchecked(mixture.weights, mixture.means, mixture.covariances + floor)
