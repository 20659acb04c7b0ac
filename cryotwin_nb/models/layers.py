"""Multilayer perceptrons of the coordinate networks, and the lattice on which their decoder is evaluated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from cryotwin_nb.imaging.fourier import grid, ifft3

_ROWS, _MAPS = 16384, 16  # coefficients and maps that are decoded at once


class ResidualMLP(nn.Module):
    """MLP of a linear layer, `depth` residual layers h + relu(W h) and a linear layer."""

    def __init__(self, n_in: int, width: int, depth: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, width)
        self.residual = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, n_out)

    def hidden(self, h: Tensor) -> Tensor:
        """Apply only the residual layers."""
        h = relu(h)
        for layer in self.residual:
            h = h + relu(layer(h))
        return h


class LatentFactors(nn.Module):
    """Factors 1 + B z + C mlp(z) by which latents multiply the hidden units of a decoder.

    Parameters
    ----------
    latent_dim : int
        Dimension d of the latent space.
    latent_width : int
        Units per layer of the MLP. Its output is at first 0, so that maps start linear in z; with 0 units they stay so.
    width : int
        Number of factors.
    """

    def __init__(self, latent_dim: int, latent_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(latent_dim, width, bias=False)
        self.curved = ResidualMLP(latent_dim, latent_width, 1, width) if latent_width else None
        if self.curved:
            for zero in self.curved.last.parameters():
                nn.init.zeros_(zero)

    def forward(self, z: Tensor) -> Tensor:
        """Return the factors (m, width) at latents z (m, d)."""
        factors = 1 + self.linear(z)
        return factors + self.curved.last(self.curved.hidden(self.curved.first(z))) if self.curved else factors


def maps_of(decode: Callable[[Tensor, Tensor], Tensor], z: Tensor, size: int, reach: float) -> Tensor:
    """Return maps (m, D, D, D) at latents z (m, d): decode the lattice, then transform back.

    Parameters
    ----------
    decode : callable
        Function of positions (P, 3) and latents (m, d) that returns Fourier coefficients (m, P).
    z : (m, d)
        Latents.
    size : int
        Box size D.
    reach : float
        Coefficients with |v| < `reach` (grid units) are decoded; the others are 0.
    """
    lattice = grid(size, 3, z.device).reshape(-1, 3)
    inside = (lattice.float().norm(dim=1) < reach) & (lattice.abs() < size // 2).all(1)
    half = (inside & (lattice[:, 2] >= 0)).nonzero().flatten()
    mirrored = ((size // 2 - lattice[half]) * lattice.new_tensor([1, size, size**2])).sum(1)
    maps: list[Tensor] = []
    for latents in z.split(_MAPS):
        spectra = torch.zeros(len(latents), size**3, dtype=torch.complex64, device=z.device)
        for rows, mirror in zip(half.split(_ROWS), mirrored.split(_ROWS), strict=True):
            values = decode(lattice[rows].float(), latents)
            spectra[:, mirror], spectra[:, rows] = values.conj(), values
        maps.extend(ifft3(spectrum.view(size, size, size)).real for spectrum in spectra)
    return torch.stack(maps)
