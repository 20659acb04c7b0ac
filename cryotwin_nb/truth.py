"""The ground truth of a simulated data set: what each image shows, as coordinates and as an exact density."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from torch import Tensor

from cryotwin_nb import molecules
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.fourier import require_box_size

ATOM_WIDTH = 0.6
"""Standard deviation of a pseudo-atom in pixels: leaves power at every frequency up to Nyquist."""

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
        Name of the nearest state; "junk" for junk.
    between : (n,) bool
        True for particles found on the way between two states.
    box_size, pixel_size : int, float
        Grid of the volumes: pixels, Å.
    """

    kind: str
    coordinates: np.ndarray
    labels: np.ndarray
    between: np.ndarray
    box_size: int
    pixel_size: float

    def __len__(self) -> int:
        return len(self.coordinates)

    def __getitem__(self, indices) -> Truth:
        """The truth of a subset of particles."""
        return replace(
            self,
            coordinates=self.coordinates[indices],
            labels=self.labels[indices],
            between=self.between[indices],
        )

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """What each column of `coordinates` is."""
        return _KINDS[self.kind][2]

    @property
    def states(self) -> dict[str, np.ndarray]:
        """Coordinates (q,) of each named state."""
        table = molecules.STATES if self.kind == "assembly" else molecules.HINGE_STATES
        return {name: np.asarray(c, dtype=np.float32) for name, c in table.items()}

    def volume(self, index: int) -> Tensor:
        """True density (D, D, D) float32 of particle `index`, zyx, grey value per Å."""
        return self.volume_at(self.coordinates[index])

    def volume_at(self, coordinates: np.ndarray) -> Tensor:
        """True density (D, D, D) float32 at coordinates (q,)."""
        positions, masses = self.structure(torch.as_tensor(np.asarray(coordinates))[None])
        x, y, z = (wave[0] for wave in waves(positions, self.box_size, self.pixel_size))
        fall = atom_transform(self.box_size)
        spectrum = torch.einsum("j,jz,jy,jx->zyx", masses[0].to(x.dtype), z, y, x)
        spectrum *= fall[:, None, None] * fall[:, None] * fall
        return torch.fft.ifftn(spectrum).real / self.pixel_size**3

    def structure(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (m or 1, J, 3) Å and masses (m or 1, J) of the pseudo-atoms at coordinates (m, q)."""
        make, place, _ = _KINDS[self.kind]
        return place(make(), coordinates)

    def save(self, path: str | os.PathLike) -> None:
        """Write a compressed .npz, complete or not at all."""
        with atomic(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, path: str | os.PathLike, n: int | None = None) -> Truth:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like
            The .npz file.
        n : int, optional
            Number of particles that it must be of. Without it, a hostile file may fill the memory: it is compressed.

        Raises
        ------
        InputError
            If the file is not a ground truth, or one of another number of particles.
        """
        try:
            count = _count(path)
            if n not in (None, count):
                remedy = f"Remove or rename it: it belongs to another set than one of {n} particles."
                raise InputError(path, f"the ground truth of {count} particles", f"{n}", remedy)
            with np.load(path, allow_pickle=False) as stored:
                fields = {name: stored[name] for name in cls.__dataclass_fields__}
            fields |= {"kind": str(fields["kind"]), "box_size": require_box_size(int(fields["box_size"]), path)}
            fields["pixel_size"] = float(fields["pixel_size"])
            if fields["kind"] not in _KINDS or not 0 < fields["pixel_size"] < np.inf:
                raise ValueError(f"kind {fields['kind']!r}, pixel size {fields['pixel_size']}")
            if fields["coordinates"].shape[1] != len(_KINDS[fields["kind"]][2]):
                raise ValueError(f"coordinates of shape {fields['coordinates'].shape}")
            if not np.isfinite(fields["coordinates"]).all():
                raise ValueError("coordinates that are not finite")
        except InputError:
            raise
        except Exception as error:  # a damaged archive raises almost anything
            remedy = "Delete the file to read the particles without their ground truth, or simulate them again."
            raise InputError(path, f"no readable ground truth ({error})", "a file by Truth.save", remedy) from error
        return cls(**fields)


def _count(path: str | os.PathLike) -> int:
    """Particles of a stored ground truth, told by the arrays' headers alone; other arrays than `save` writes raise."""
    with zipfile.ZipFile(path) as archive:
        headers = {}
        for name in Truth.__dataclass_fields__:
            with archive.open(f"{name}.npy") as member:
                read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[read_magic(member)]
                shape, _, dtype = read(member)
                headers[name] = (shape, dtype.kind, dtype.itemsize)
    (n, q), kind, _ = headers.pop("coordinates")
    rest = (headers.pop("labels"), headers.pop("between"))
    plain = kind == "f" and q <= 16 and [part[:2] for part in rest] == [((n,), "U"), ((n,), "b")]
    if not plain or rest[0][2] > 1024 or any(shape or size > 1024 for shape, _, size in headers.values()):
        raise ValueError("arrays of other shapes or types")
    return n


def waves(positions: Tensor, size: int, pixel: float) -> list[Tensor]:
    """exp(-2 pi i k x_j) of each axis of positions (m, J, axes): a list of (m, J, D) complex64, k in FFT order."""
    k = torch.fft.fftfreq(size)
    angles = [-2 * torch.pi * (coordinate[..., None] / pixel + size // 2) * k for coordinate in positions.unbind(-1)]
    return [torch.complex(angle.cos(), angle.sin()) for angle in angles]


def atom_transform(size: int) -> Tensor:
    """Transform (D,) of a pseudo-atom's Gaussian along one axis, in FFT order."""
    return torch.exp(-2 * (torch.pi * ATOM_WIDTH * torch.fft.fftfreq(size)) ** 2)
