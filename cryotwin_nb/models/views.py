"""What an encoder sees of an image at a known pose: rotated in its plane, or placed in the frame of the particle."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from cryotwin_nb.imaging.fourier import grid


def canonical_view(rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Return the in-plane rotations that bring images with equal or opposite viewing directions into a common frame.

    Parameters
    ----------
    rotations : (m, 3, 3)
        Poses.

    Returns
    -------
    turn : (m, 2, 2)
        Pixel y of the canonical image is pixel turn @ y of the original image.
    direction : (m, 3)
        Viewing direction, with z >= 0.
    """
    behind = rotations[:, 2, 2] < 0
    flip = torch.where(behind[:, None], rotations.new_tensor([1.0, -1.0, -1.0]), rotations.new_ones(3))
    pose = rotations * flip[:, None, :]
    direction = pose[:, :, 2]
    across = torch.stack([-direction[:, 1], direction[:, 0], torch.zeros_like(direction[:, 0])], dim=1)
    degenerate = across.norm(dim=1, keepdim=True) < 1e-6
    x_axis = normalize(torch.where(degenerate, across.new_tensor([1.0, 0, 0]), across), dim=1)
    y_axis = torch.linalg.cross(direction, x_axis)
    canonical = torch.stack([x_axis, y_axis], dim=2)
    turn = flip[:, :2, None] * (pose[:, :, :2].transpose(1, 2) @ canonical)
    return turn, direction


def sampled(images: Tensor, pixels: Tensor) -> Tensor:
    """Return images (m, D, D) interpolated at pixels (m, ..., 2), xy from the centre of rotation; 0 outside."""
    size = images.shape[-1]
    places = (pixels + size // 2 + 0.5) * (2 / size) - 1
    flat = places.flatten(1, -2)[:, None]
    found = grid_sample(images[:, None], flat, padding_mode="zeros", align_corners=False)
    return found.view(pixels.shape[:-1])


def turned_images(images: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (m, D, D) at a canonical in-plane angle, and viewing directions (m, 3).

    The pose is known, so the encoder need not learn that an image that is rotated in the plane or seen from behind
    (mirrored) shows the same structure: only views on a hemisphere remain.
    """
    turn, direction = canonical_view(rotations)
    pixels = grid(images.shape[-1], 2, images.device).float() @ turn.transpose(1, 2)[:, None]
    return sampled(images, pixels), direction


def ball_points(n: int, radius: float, seed: int) -> Tensor:
    """Return random points (n, 3), uniform within `radius`."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 3, generator=generator)
    return points * (torch.rand(n, 1, generator=generator) ** (1 / 3) / points.norm(dim=1, keepdim=True)) * radius


def lattice_points(radius: float, spacing: float) -> Tensor:
    """Return the points (J, 3) of a cubic lattice within `radius`; the origin is one of them."""
    reach = int(radius / spacing)
    axis = torch.arange(-reach, reach + 1) * float(spacing)
    points = torch.cartesian_prod(axis, axis, axis)
    return points[points.norm(dim=1) <= radius]


def placed_images(images: Tensor, rotations: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (m, D, D) back-projected to `points` (J, 3) of the particle, (m, J), and squared views (m, 6).

    The scalar product of an image with the projection of a map is that of the back-projected image with the map, so
    the weights with which an encoder recognises a change of the map are the same for all views. The views enter as
    the products of their components, which are equal for opposite viewing directions.
    """
    view = rotations[:, :, 2]
    row, column = torch.triu_indices(3, 3, device=view.device)
    return sampled(images, points @ rotations[:, :, :2]), view[:, row] * view[:, column]
