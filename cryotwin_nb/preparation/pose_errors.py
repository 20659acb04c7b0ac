"""Typical errors of poses and shifts, estimated from the residuals between images and their prediction by a map.

A small error e of an image's pose and shift changes the prediction by J e, where J holds its derivatives. If the
errors are independent and Gaussian, e ~ N(0, T^2), the residual of an image, X - prediction, has the log-evidence

    log p = -1/2 log det(1 + T H T) + 1/2 (T h)^T (1 + T H T)^-1 (T h),   h = Re J^H (X - prediction), H = Re J^H J,

up to a constant. The typical error is the T that maximises the evidence of all images. No image is realigned,
because realignment would fit the noise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.preparation.hypotheses import Assumption, Sample
from cryotwin_nb.truth.molecules import axis_rotation

_STEP = 2.0  # degrees, step of the finite differences
_DEGREES = (0, 0.25, 0.5, *np.geomspace(0.7, 12, 13).tolist())  # rotation errors to try, degrees per axis
_FINER = 9  # number of points in each refined grid
_SHARES = (0, *np.geomspace(0.01, 0.6, 15).tolist())  # shift errors to try, as fractions of the Nyquist resolution


def typical_errors(sample: Sample, state: Assumption, n_images: int = 800) -> tuple[float, float]:
    """Return the root-mean-square rotation error, degrees, and the standard deviation of the shift error per axis, Å.

    Motions of the molecule look like pose errors: up to about 4° for a molecule with two moving arms.
    """
    h, H = _derivatives(sample, state, n_images)
    finest = 2 * sample.particles.pixel_size
    degrees, shifts = np.array(_DEGREES), np.array(_SHARES) * finest
    for _ in range(2):
        evidence = np.array([[_evidence(h, H, a, b) for b in shifts] for a in degrees])
        row, column = divmod(int(evidence.argmax()), len(shifts))
        degrees, shifts = _around(degrees, row), _around(shifts, column)
    return float(degrees[_FINER // 2]) * 3**0.5, float(shifts[_FINER // 2])


def _around(values: np.ndarray, best: int) -> np.ndarray:
    """Return a finer grid between the two neighbours of the best value."""
    return np.linspace(values[max(0, best - 1)], values[min(len(values) - 1, best + 1)], _FINER)


def _derivatives(sample: Sample, state: Assumption, n_images: int) -> tuple[Tensor, Tensor]:
    """Return h (m, 5) and H (m, 5, 5) for rotations about x, y, z in degrees and shifts along x, y in Å."""
    weights = sample.weights
    parts = []
    for made_from, rows in sample.halves():
        rows = rows[: n_images // 2]
        volume, X, transfer = (
            sample.reconstruct(state, made_from),
            sample.data(state, rows),
            sample.transfer(state, rows),
        )

        def predict(turn: Tensor, volume=volume, transfer=transfer, rotations=state.rotations[rows]) -> Tensor:
            return sample.slices(volume, turn @ rotations) * transfer

        prediction = predict(torch.eye(3))
        with_image, with_itself = sample.products(prediction, X)
        scale = (with_image / with_itself.clamp_min(1e-30)).clamp_min(0)[:, None]
        turns = axis_rotation(torch.eye(3), torch.full((3,), _STEP * torch.pi / 180))
        J = [(predict(turn) - predict(turn.T)) / (2 * _STEP) for turn in turns]
        J += [2j * torch.pi * prediction * k for k in sample.frequencies.T]
        stacked = scale[..., None] * torch.stack(J, dim=-1)
        residual = (X - scale * prediction)[..., None]
        h = (weights[:, None] * (stacked.conj() * residual).real).sum(1)
        real = torch.view_as_real(stacked * weights.sqrt()[:, None])
        H = torch.einsum("mpiz,mpjz->mij", real, real)
        parts.append((h.double(), H.double()))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _evidence(h: Tensor, H: Tensor, degrees: float, shift: float) -> float:
    """Return the mean log-evidence of the residuals for errors with these standard deviations, nats per image."""
    T = torch.tensor([degrees] * 3 + [shift] * 2, dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.eye(5, dtype=torch.float64) + T[:, None] * H * T)
    pulled = (T * h)[..., None]
    quadratic = (pulled * torch.cholesky_solve(pulled, factor)).sum((1, 2))
    return float((quadratic / 2 - factor.diagonal(dim1=1, dim2=2).log().sum(1)).mean())
