"""Multilayer perceptrons of the coordinate networks, and the lattice on which their decoder is evaluated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from cryotwin_nb.imaging.fourier import grid, ifft3

_VIEW = 6  # products of the components of a viewing direction
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

    def forward(self, x: Tensor) -> Tensor:
        """Apply all layers."""
        return self.last(self.hidden(self.first(x)))

    def encoded(self, seen: Tensor, views: Tensor) -> Tensor:
        """Apply all layers to images (m, J) and what describes their views (m, V)."""
        return self.last(self.hidden(self.first(torch.cat([seen, views], dim=1))))


class ViewEncoder(ResidualMLP):
    """Residual MLP of images whose layers are multiplied by functions of the view, plus a term linear in the images.

    How an image's noise becomes an error of its latents depends on the view, and so does the best encoder: for maps
    that are linear in the latents, it is a product of the image with a matrix that depends on the view. The additional
    term, C (A x * mlp(view)), has this form.

    Parameters
    ----------
    n_in : int
        Number J of values of an image that `placed_images` returns.
    width, depth : int
        Units per layer, and number of residual layers.
    latent_dim, n_out : int
        Number d of outputs to which the term that is linear in the images is added, and number of all outputs.
    view_width : int
        Units per layer of the MLPs of the view.
    """

    def __init__(self, n_in: int, width: int, depth: int, latent_dim: int, n_out: int, view_width: int) -> None:
        super().__init__(n_in + _VIEW, width, depth, n_out)
        self.by_view = ResidualMLP(_VIEW, view_width, 2, width * (depth + 1))
        nn.init.zeros_(self.by_view.last.weight)  # start with equal weights for all views
        nn.init.zeros_(self.by_view.last.bias)
        self.into_product = nn.Linear(n_in, width, bias=False)
        self.product_by_view = ResidualMLP(_VIEW, view_width, 2, width)
        self.from_product = nn.Linear(width, latent_dim, bias=False)

    def encoded(self, seen: Tensor, views: Tensor) -> Tensor:
        """Return outputs (m, n_out) for back-projected images (m, J) and squared views (m, 6)."""
        first, *others = (1 + self.by_view(views)).chunk(len(self.residual) + 1, dim=1)
        h = relu(self.first(torch.cat([seen, views], dim=1)) * first)
        for layer, factor in zip(self.residual, others, strict=True):
            h = h + relu(layer(h) * factor)
        linear = self.from_product(self.into_product(seen) * self.product_by_view(views))
        out = self.last(h)
        return out + pad(linear, (0, out.shape[1] - linear.shape[1]))


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
        return factors + self.curved(z) if self.curved else factors


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
