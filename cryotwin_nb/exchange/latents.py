"""Latents of other programs: cryoSPARC's 3D Variability and cryoDRGN, for `GaussianMixture.fit` and pathways."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.formats import cryodrgn
from cryotwin_nb.formats.alignments import numbers
from cryotwin_nb.formats.cryosparc import open_table
from cryotwin_nb.formats.files import require_file, require_suffix
from cryotwin_nb.formats.matching import listing_of, match
from cryotwin_nb.formats.metadata import column
from cryotwin_nb.formats.origins import align, chain_of, load, record_of
from cryotwin_nb.particles.particles import Particles

_COMPONENT = re.compile(r"components_mode_(\d+)/value")


def read_latents(path: str | os.PathLike, particles: Particles | None = None) -> Tensor:
    """Read latents written by cryotwin_nb, cryoDRGN or cryoSPARC's 3D Variability.

    Parameters
    ----------
    path : path-like
        .npy, an array (n, d), such as `cryotwin`'s latents.npy; .txt, a table of n rows and d columns; .pkl, cryoDRGN's
        z.N.pkl or z.pkl (means); .cs, a particle file of 3D Variability with components_mode_0/value and so on.
    particles : Particles, optional
        Particles that the latents belong to. The rows of a .cs file are put into their order, by uid or, for particles
        from a STAR file, by image name; those of `cryotwin`'s latents.npy by the record beside it. The rows of other
        files must be in their order already.

    Returns
    -------
    latents : (n, d) float32
        One row per particle; without `particles`, in the order of the file.

    Raises
    ------
    InputError
        If the file does not contain such numbers, one is NaN or infinite, or particles are without latents.

    Examples
    --------
    >>> import numpy as np
    >>> np.save("latents.npy", z)
    >>> ct.read_latents("latents.npy", particles).shape
    torch.Size([300, 4])
    """
    if particles is not None:
        kept, values = latents_of(particles, Path(path), quiet=True)
        if len(kept) < len(particles):
            found, expected = f"latents of {len(kept)} particles", f"of all {len(particles)}"
            raise InputError(path, found, expected, "Select the particles that were embedded with indices=.")
        return torch.from_numpy(values)
    return torch.from_numpy(_read(Path(path)))


def latents_of(particles: Particles, path: Path, quiet: bool = False) -> tuple[Particles, np.ndarray]:
    """Return the particles that have latents in a file, and these latents (n, d) float32 in the same order.

    See `matched`.
    """
    kept, rows, z = matched(particles, path, quiet)
    return kept, z[rows]


def matched(particles: Particles, path: Path, quiet: bool = False) -> tuple[Particles, np.ndarray, np.ndarray]:
    """Return the particles that have latents in a file, their rows (n,) in the file, and all its latents (m, d).

    A latents.npy file is compared with the record beside it (`origins`): the particles can be those that were embedded,
    or those that they were prepared from. Unless `quiet`, a missing record causes a UserWarning.

    Raises
    ------
    InputError
        If the latents belong to other particles, or to the particles in another order.
    """
    z, record = _read(path), record_of(path)
    if path.suffix.lower() == ".cs":
        return particles, _rows_of(particles, path), z
    if not record.is_file():
        if len(z) != len(particles):
            remedy = "Pass the latents of the same particles, in the same order."
            raise InputError(path, f"{len(z)} latents", f"{len(particles)}, one for each particle", remedy)
        if path.suffix.lower() == ".npy" and not quiet:
            warn_user(f"{path}: no record of the particles ({record.name}); only their number was compared.")
        return particles, np.arange(len(z)), z
    recorded = load(record, path.parent)
    if len(z) != len(recorded[0].rows):
        found, expected = f"{len(z)} latents", f"{len(recorded[0].rows)}, as recorded in {record.name}"
        raise InputError(path, found, expected, "Embed the particles again, or delete the record.")
    common = align(chain_of(particles.source, particles.source_rows), recorded)
    if common is None:
        names = " or ".join(dict.fromkeys(str(link.source) for link in recorded))
        sentence = f"The latents in {path} do not belong to the rows of {particles.where}, or not in this order."
        found, remedy = "latents of other particles", f"Pass the particles that were embedded: {names}."
        raise InputError(path, found, f"latents of {particles.where}", remedy, sentence)
    return particles[common[0]], common[1], z


def _read(path: Path) -> np.ndarray:
    """Return the latents (n, d) float32 in a file."""
    path = require_suffix(require_file(path, "file of latents"), *_READERS)
    values = _READERS[path.suffix.lower()](path)
    if values.ndim != 2 or not values.size:
        expected, remedy = (
            "an array (n, d): n latents of d numbers",
            "Save a single latent z as z[None]; with d = 1, save z[:, None].",
        )
        raise InputError(path, f"an array of shape {values.shape}", expected, remedy)
    return column(values, path, "latent").astype(np.float32)


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.array(np.load(path, mmap_mode="r"))
    except Exception as error:  # a damaged header can raise almost any exception
        raise _unreadable(path, error) from error


def _read_text(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file is reported by its shape
            return np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    expected, remedy = "an array (n, d) of numbers", "Pass a latents.npy file written by `cryotwin`."
    sentence = f"{path} cannot be read as {expected}: {error}."
    return InputError(path, f"no readable array ({error})", expected, remedy, sentence)


def _read_components(path: Path) -> np.ndarray:
    """Return the components of 3D Variability (n, d), in the order of their numbers."""
    table = open_table(path)
    found = {int(m[1]): name for name in table.dtype.names or () if (m := _COMPONENT.fullmatch(name))}
    if not found:
        remedy = "Pass the particle file of a 3D Variability job."
        raise InputError(path, "no components", "components_mode_0/value and so on", remedy)
    return np.stack([numbers(table, path, found[number]) for number in sorted(found)], axis=1)


def _rows_of(particles: Particles, path: Path) -> np.ndarray:
    """Return the row of each particle in a .cs file."""
    source = particles.source
    if source is None or source.suffix.lower() not in (".cs", ".star"):
        found, expected = f"particles read from {source or 'no file'}", "particles read from a .cs or .star file"
        remedy = f"Omit particles= if the rows of {path} are in their order."
        raise InputError("read_latents", found, expected, remedy)
    place, there = match(listing_of(source), listing_of(path), [])
    place, there = place[particles.source_rows], there[particles.source_rows]
    if not there.all():
        found = f"no components for {(~there).sum()} of the {len(there)} particles of {source}"
        remedy = "Select the particles that have components, or repeat the 3D Variability with all of them."
        raise InputError(path, found, "components of each particle", remedy)
    return place


_READERS = {
    ".npy": _read_array,
    ".txt": _read_text,
    ".pkl": lambda path: cryodrgn.read_latents(path)[0],
    ".cs": _read_components,
}
