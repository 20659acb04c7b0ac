"""Named data sets: `data_manifest.yaml` -> files on disk -> `Particles`.

`fetch` returns the particles of a data set. Built-in sets are simulated. The others are downloaded once into a cache
folder, verified against the checksums in the manifest, and read. An interrupted download is kept as ``<name>.part`` and
resumed by the next call. A file gets its final name only when it is complete and verified.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pooch

from cryotwin_nb.data.manifest import UNVERIFIED, DataFile, Dataset, datasets
from cryotwin_nb.data.transfer import transfer
from cryotwin_nb.errors import InputError, warn_user

if TYPE_CHECKING:
    from cryotwin_nb.particles.particles import Particles
    from cryotwin_nb.truth.truth import Truth


def fetch(
    name: str, folder: str | Path | None = None, progress: bool = True, manifest: str | Path | None = None
) -> Particles:
    """Return the `Particles` of a data set in the manifest, simulated or downloaded.

    Parameters
    ----------
    name : str
        A key of `datasets()`, for example ``"assembly"`` or ``"empiar-10076"``.
    folder : path, optional
        Folder for downloaded files; see `download`.
    progress : bool
        Show progress bars.
    manifest : path, optional
        Manifest to use instead of the one in the package.

    Raises
    ------
    InputError
        For the reasons listed in `download`, or if the data set contains no particles.
    """
    dataset = _find(name, manifest)
    if dataset.generator is not None:
        return _simulate(dataset, progress)
    if not dataset.reader:
        remedy = f"See {dataset.landing_page}."
        sentence = f"The data set {name!r} cannot be read as particles: the manifest states no `reader` for it."
        raise InputError(f"data set {name!r}", "no `reader`", "a `reader` in the manifest", remedy, sentence)

    from cryotwin_nb.particles.particles import Particles

    paths = download(name, folder, progress, manifest)
    places = {**paths, ".": _folder(dataset, folder)}
    return Particles.read(**{key: places.get(str(value), value) for key, value in dataset.reader.items()})


def download(
    name: str, folder: str | Path | None = None, progress: bool = True, manifest: str | Path | None = None
) -> dict[str, Path]:
    """Download the missing files of a data set and return the path of each file by name.

    Parameters
    ----------
    name, progress, manifest
        As in `fetch`.
    folder : path, optional
        Folder for the files. By default, a folder named after the data set, inside the folder given by the environment
        variable CRYOTWIN_DATA or, if that is not set, inside the user's cache folder.

    Raises
    ------
    InputError
        If the name is unknown, the server cannot be reached, more bytes arrive than the manifest states, or a checksum
        differs. Existing files are left unchanged.

    Warns
    -----
    UserWarning
        If a downloaded file has no published checksum; the warning states the computed one.
    """
    dataset = _find(name, manifest)
    place = _folder(dataset, folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sentence = f"The folder {place} cannot be created: {error}."
        raise InputError(place, f"{error}", "a writable folder", "Choose another `folder`.", sentence) from error
    for file in dataset.files:
        _obtain(file, place / file.name, progress)
    return {file.name: place / file.name for file in dataset.files}


def missing(
    name: str, folder: str | Path | None = None, manifest: str | Path | None = None
) -> tuple[tuple[DataFile, ...], Path]:
    """Return the files of a data set that have not been downloaded yet, and the folder they belong in.

    Parameters
    ----------
    name, folder, manifest
        As in `download`.
    """
    dataset = _find(name, manifest)
    place = _folder(dataset, folder)
    return tuple(file for file in dataset.files if not (place / file.name).exists()), place


def truth_hash(truth: Truth) -> str:
    """Return the SHA-256 of a ground truth: its labels, and its coordinates rounded to 1e-4.

    Images and volumes are left out, because the last digits of sums of exponentials depend on the machine; seeded
    random draws do not.

    Parameters
    ----------
    truth : Truth
        Ground truth of a simulated data set.
    """
    coordinates = np.rint(np.asarray(truth.coordinates, dtype=np.float64) * 1e4).astype("<i8")
    labels = "\n".join(map(str, np.asarray(truth.labels).tolist()))
    return hashlib.sha256(f"{labels}\n{coordinates.shape}\n".encode() + coordinates.tobytes()).hexdigest()


def _find(name: str, manifest: str | Path | None) -> Dataset:
    known = datasets(manifest)
    if name not in known:
        raise InputError(
            "data set", f"{name!r}", f"one of {', '.join(known)}", "List them with cryotwin_nb.data.datasets()."
        )
    return known[name]


def _folder(dataset: Dataset, folder: str | Path | None) -> Path:
    if folder is not None:
        return Path(folder)
    return Path(os.environ.get("CRYOTWIN_DATA") or pooch.os_cache("cryotwin_nb")) / dataset.name


def _simulate(dataset: Dataset, progress: bool) -> Particles:
    from cryotwin_nb import simulate

    make = simulate.assembly if dataset.generator == "assembly" else simulate.hinge
    particles = make(**dataset.arguments, progress=progress)
    if particles.truth is not None and dataset.truth_sha256 not in (UNVERIFIED, truth_hash(particles.truth)):
        differs = f"{dataset.name}: the simulated ground truth is not the one in the manifest (another NumPy version?)"
        warn_user(f"{differs}; results will not match published numbers exactly.")
    return particles


def _obtain(file: DataFile, target: Path, progress: bool) -> None:
    """Download `target` if it is missing, and verify it against the manifest."""
    if target.exists():
        if file.sha256 != UNVERIFIED:
            _verify(file, target, target, "The file was left untouched. Move or delete it to download it again.")
        return
    part = target.with_name(target.name + ".part")
    transfer(file.url, part, progress, file.size)
    try:
        found = _verify(file, part, target, "Try again, or correct the manifest. The download was discarded.")
    except InputError:
        part.unlink()
        raise
    part.replace(target)
    if file.sha256 == UNVERIFIED:
        warn_user(f"{target}: no checksum is published for this file; its sha256 is {found}")


def _verify(file: DataFile, path: Path, where: Path, remedy: str) -> str:
    """Return the SHA-256 of `path` after checking it and the file size against the manifest."""
    size = path.stat().st_size
    if file.size not in (None, size):
        raise InputError(where, f"{size} bytes", f"{file.size} bytes", remedy)
    found = pooch.file_hash(str(path), alg="sha256")
    if file.sha256 not in (UNVERIFIED, found):
        raise InputError(where, f"sha256 {found}", f"sha256 {file.sha256}", remedy)
    return found
