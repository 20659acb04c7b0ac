"""Whitening of the images of a prepared stack, and its inverse."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import array_headers, atomic
from cryotwin_nb.imaging.fourier import filter_images


@dataclass(frozen=True)
class Whitening:
    """Whitening of n stored images: the divisors of their Fourier coefficients.

    Attributes
    ----------
    amplitude : (G, n_shells) float64
        Amplitude spectra of the noise: one for the whole set, or one for each optics group.
    row : (n,) int64
        Row of `amplitude` that each image was divided by.
    scale : (n,) float32
        Additional divisor of each image: a power of two, which is 1 unless the image exceeds the range of float16.
    """

    amplitude: np.ndarray
    row: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, indices) -> Whitening:
        """Return the whitening of a subset of images."""
        return replace(self, row=self.row[indices], scale=self.scale[indices])

    def undo(self, images: Tensor, rows: np.ndarray) -> Tensor:
        """Return images (m, D, D) before whitening; `rows` (m,) are their row numbers among the n."""
        gains = self.amplitude[self.row[rows]] * self.scale[rows, None]
        return filter_images(images, torch.as_tensor(gains))

    def save(self, path: str | os.PathLike) -> None:
        """Write a compressed .npz file, completely or not at all."""
        with atomic(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, path: str | os.PathLike, n: int | None = None) -> Whitening:
        """Read a file written by `save`.

        Parameters
        ----------
        path : path-like
            The .npz file.
        n : int, optional
            Expected number of images.

        Raises
        ------
        InputError
            If the file contains no whitening, or the whitening of a different number of images.
        """
        remedy = "Prepare the particles again: without this file the recorded images cannot be restored."
        try:
            headers = array_headers(path)
            (groups, shells), count = headers["amplitude"][0], headers["row"][0][0]
            shapes = {"amplitude": ((groups, shells), "f"), "row": ((count,), "i"), "scale": ((count,), "f")}
            if {name: header[:2] for name, header in headers.items()} != shapes or groups * shells > 10**8:
                raise ValueError("unexpected array shapes or types")
            if n not in (None, count):
                raise InputError(path, f"the whitening of {count} images", f"the whitening of {n}", remedy)
            with np.load(path, allow_pickle=False) as stored:
                fields = {name: stored[name] for name in cls.__dataclass_fields__}
            positive = all(
                np.isfinite(fields[name]).all() and (fields[name] > 0).all() for name in ("amplitude", "scale")
            )
            if not positive or not ((fields["row"] >= 0) & (fields["row"] < groups)).all():
                raise ValueError("inconsistent or invalid values")
        except InputError:
            raise
        except Exception as error:  # a damaged archive can raise almost any exception
            expected, sentence = "a file written by Whitening.save", f"{path} contains no readable whitening: {error}."
            raise InputError(path, f"no readable whitening ({error})", expected, remedy, sentence) from error
        return cls(**fields)
