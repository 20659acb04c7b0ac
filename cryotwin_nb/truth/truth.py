"""Ground truth of a simulated data set: coordinates and exact density of the structure in each image."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import array_headers, atomic
from cryotwin_nb.imaging.fourier import require_box_size
from cryotwin_nb.truth import molecules

ATOM_WIDTH = 0.6
"""Standard deviation of a pseudo-atom, pixels; small enough to keep power at every frequency up to Nyquist."""

_KINDS = {
    "assembly": (molecules.assembly_molecule, molecules.assembly_structure, molecules.BLOCKS),
    "hinge": (molecules.hinge_molecule, molecules.hinge_structure, ("left arm", "right arm")),
}


@dataclass(frozen=True)
class Truth:
    """Ground truth of a simulated data set.

    Attributes
    ----------
    kind : str
        "assembly" or "hinge".
    coordinates : (n, q) float32
        Occupancies of the five blocks, or the two hinge motions (0 to 1).
    labels : (n,) str
        Name of the nearest state; "junk" for junk images.
    between : (n,) bool
        True for particles between two states.
    box_size, pixel_size : int, float
        Box size (pixels) and pixel size (Å) of the grid of the volumes.
    atom_width : float
        Standard deviation of a pseudo-atom, pixels of that grid.
    """

    kind: str
    coordinates: np.ndarray
    labels: np.ndarray
    between: np.ndarray
    box_size: int
    pixel_size: float
    atom_width: float = ATOM_WIDTH

    def __len__(self) -> int:
        return len(self.coordinates)

    def __getitem__(self, indices) -> Truth:
        """Return the truth of a subset of particles."""
        return replace(
            self,
            coordinates=self.coordinates[indices],
            labels=self.labels[indices],
            between=self.between[indices],
        )

    def on_grid(self, box_size: int) -> Truth:
        """Return the same truth with volumes on a grid of the same extent but with a different number of voxels.

        Parameters
        ----------
        box_size : int
            Voxels along each axis.
        """
        ratio = box_size / self.box_size
        return replace(self, box_size=box_size, pixel_size=self.pixel_size / ratio, atom_width=self.atom_width * ratio)

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Name of each column of `coordinates`."""
        return _KINDS[self.kind][2]

    @property
    def states(self) -> dict[str, np.ndarray]:
        """Coordinates (q,) of each named state."""
        table = molecules.STATES if self.kind == "assembly" else molecules.HINGE_STATES
        return {name: np.asarray(c, dtype=np.float32) for name, c in table.items()}

    def volume(self, index: int) -> Tensor:
        """Return the true density (D, D, D) float32 of particle `index`, zyx, grey value per Å."""
        return self.volume_at(self.coordinates[index])

    def volume_at(self, coordinates: np.ndarray) -> Tensor:
        """Return the true density (D, D, D) float32 at coordinates (q,)."""
        positions, masses = self.structure(torch.as_tensor(np.asarray(coordinates))[None])
        x, y, z = (wave[0] for wave in waves(positions, self.box_size, self.pixel_size))
        fall = atom_transform(self.box_size, self.atom_width)
        spectrum = torch.einsum("j,jz,jy,jx->zyx", masses[0].to(x.dtype), z, y, x)
        spectrum *= fall[:, None, None] * fall[:, None] * fall
        return torch.fft.ifftn(spectrum).real / self.pixel_size**3

    def structure(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions (m or 1, J, 3) Å and masses (m or 1, J) of the pseudo-atoms at coordinates (m, q)."""
        make, place, _ = _KINDS[self.kind]
        return place(make(), coordinates)

    def blocks(self, coordinates: np.ndarray | None = None) -> dict[str, Tensor]:
        """Return the positions (J, 3) xyz of each block, Å from the centre of the box; "core" is the first one.

        Parameters
        ----------
        coordinates : (q,) float, optional
            Coordinates of the structure; by default the mean over the particles.
        """
        at = np.mean(self.coordinates, axis=0) if coordinates is None else np.asarray(coordinates)
        positions, owners = self.structure(torch.as_tensor(at)[None])[0][0], _KINDS[self.kind][0]()["blocks"]
        return {name: positions[owners == k] for k, name in enumerate(("core", *self.coordinate_names))}

    def save(self, path: str | os.PathLike) -> None:
        """Write a compressed .npz file, completely or not at all."""
        with atomic(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, path: str | os.PathLike, n: int | None = None) -> Truth:
        """Read a file written by `save`.

        Parameters
        ----------
        path : path-like
            The .npz file.
        n : int, optional
            Expected number of particles. Without this check, a malicious file can exhaust memory, because the file is
            compressed.

        Raises
        ------
        InputError
            If the file does not contain a ground truth, or contains one for a different number of particles.
        """
        try:
            count = _count(path)
            if n not in (None, count):
                remedy = f"Remove or rename this file: it does not belong to this set of {n} particles."
                raise InputError(path, f"the ground truth of {count} particles", f"the ground truth of {n}", remedy)
            with np.load(path, allow_pickle=False) as stored:
                fields: dict[str, Any] = {name: stored[name] for name in cls.__dataclass_fields__ if name in stored}
            fields |= {"kind": str(fields["kind"]), "box_size": require_box_size(int(fields["box_size"]), path)}
            fields |= {name: float(fields[name]) for name in ("pixel_size", "atom_width") if name in fields}
            if fields["kind"] not in _KINDS or not 0 < fields["pixel_size"] < np.inf:
                raise ValueError(f"kind {fields['kind']!r}, pixel size {fields['pixel_size']}")
            if fields["coordinates"].shape[1] != len(_KINDS[fields["kind"]][2]):
                raise ValueError(f"coordinates of shape {fields['coordinates'].shape}")
            if not np.isfinite(fields["coordinates"]).all():
                raise ValueError("non-finite coordinates")
        except InputError:
            raise
        except Exception as error:  # a damaged archive can raise almost any exception
            remedy = "Delete the file to read the particles without their ground truth, or simulate them again."
            expected, sentence = "a file written by Truth.save", f"{path} contains no readable ground truth: {error}."
            raise InputError(path, f"no readable ground truth ({error})", expected, remedy, sentence) from error
        return cls(**fields)


def _count(path: str | os.PathLike) -> int:
    """Return the number of particles of a stored ground truth; raise an error for arrays that `save` does not write."""
    headers = array_headers(path)
    (n, q), kind, _ = headers.pop("coordinates")
    rest = (headers.pop("labels"), headers.pop("between"))
    plain = kind == "f" and q <= 16 and [part[:2] for part in rest] == [((n,), "U"), ((n,), "b")]
    if not plain or rest[0][2] > 1024 or any(shape or size > 1024 for shape, _, size in headers.values()):
        raise ValueError("unexpected array shapes or types")
    return n


def waves(positions: Tensor, size: int, pixel: float) -> list[Tensor]:
    """Return exp(-2 pi i k x_j) for each axis of positions (m, J, axes): (m, J, D) complex64, k in FFT order."""
    k = torch.fft.fftfreq(size)
    angles = [-2 * torch.pi * (coordinate[..., None] / pixel + size // 2) * k for coordinate in positions.unbind(-1)]
    return [torch.complex(angle.cos(), angle.sin()) for angle in angles]


def atom_transform(size: int, width: float = ATOM_WIDTH) -> Tensor:
    """Return the transform (D,) of a pseudo-atom's Gaussian, `width` pixels wide, along one axis in FFT order."""
    return torch.exp(-2 * (torch.pi * width * torch.fft.fftfreq(size)) ** 2)
