"""Checks of latents that users pass, common to all functions that accept them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError


def require_points(
    z: Any, latent_dim: int | None = None, where: str = "latents", least: int = 1, finite: bool = True
) -> Tensor:
    """Return latents (n, d) as a floating-point tensor without gradients, or raise `InputError`.

    Parameters
    ----------
    z : (n, d)
        Tensor, or anything that NumPy reads as an array of real numbers.
    latent_dim : int, optional
        Dimension d that they must have.
    where : str
        Name of the argument in messages.
    least : int
        Minimum number n.
    finite : bool
        Whether to refuse NaN and infinity.
    """
    remedy = "Pass one row per particle or point: z[None] for a single one, z[:, None] if d = 1."
    values = as_numbers(z, where, remedy)
    shape, dim = tuple(values.shape), "d" if latent_dim is None else latent_dim
    if len(shape) != 2 or shape[1] == 0 or shape[1] != (latent_dim or shape[1]) or shape[0] < least:
        expected = f"(n, {dim})" + (f" with n at least {least}" if least else "")
        raise InputError(where, f"shape {shape}", expected, remedy)
    if finite and not torch.isfinite(values).all():
        bad = ~torch.isfinite(values).all(1)
        row, more = int(bad.nonzero()[0]), int(bad.sum()) - 1
        found = f"{values[row][~torch.isfinite(values[row])][0]} in row {row}" + (f" and {more} others" if more else "")
        raise InputError(
            where, found, "finite numbers, without NaN", "Leave these rows out, or embed the particles again."
        )
    return values


def as_numbers(values: Any, where: str, remedy: str) -> Tensor:
    """Return real numbers as a floating-point tensor without gradients, or raise `InputError`."""
    if not isinstance(values, Tensor):
        try:
            array = np.asarray(values)
            if array.dtype.kind not in "biufO":
                raise TypeError(f"type {array.dtype}")
            native = array.dtype.kind == "f" and array.itemsize <= 8
            array = array.astype(array.dtype.newbyteorder("=") if native else np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            found = f"{type(values).__name__} that is not read as numbers ({error})"
            raise InputError(where, found, "an array of real numbers", remedy) from error
        values = torch.from_numpy(np.ascontiguousarray(array))
    if values.is_complex():
        raise InputError(where, "complex numbers", "an array of real numbers", remedy)
    return values.detach() if values.is_floating_point() else values.detach().double()
