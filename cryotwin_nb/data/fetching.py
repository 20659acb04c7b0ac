"""Named data sets: `data_manifest.yaml` -> files on disk -> `Particles`.

`fetch` gives the particles of a data set. Embedded sets are simulated; the others are downloaded once into a cache
folder, checked against the manifest's checksums, and read. An interrupted download stays as ``<name>.part`` and is
continued by the next call; a file never bears its final name before it is complete and checked.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pooch

from cryotwin_nb.data.manifest import UNVERIFIED, DataFile, Dataset, datasets
from cryotwin_nb.errors import InputError, warn_user

if TYPE_CHECKING:
    from cryotwin_nb.particles.particles import Particles
    from cryotwin_nb.truth.truth import Truth


def fetch(
    name: str, folder: str | Path | None = None, progress: bool = True, manifest: str | Path | None = None
) -> Particles:
    """The `Particles` of a data set of the manifest, simulated or downloaded.

    Parameters
    ----------
    name : str
        A key of `datasets()`, for example ``"assembly"`` or ``"empiar-10076"``.
    folder : path, optional
        Where downloaded files are kept; see `download`.
    progress : bool
        Whether downloads show a progress bar.
    manifest : path, optional
        Another manifest than the project's own.

    Raises
    ------
    InputError
        As `download`; also if the data set holds no particles.
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
    """Download what is missing of a data set and return the path of each file by its name.

    Parameters
    ----------
    name, progress, manifest
        As in `fetch`.
    folder : path, optional
        Where the files are kept. By default a folder of that name in the one that the environment variable
        CRYOTWIN_DATA names, else in the user's cache folder.

    Raises
    ------
    InputError
        If the name is unknown, the server cannot be reached, or a checksum differs. Files that were already there
        are left as they are.

    Warns
    -----
    UserWarning
        After the download of a file without a published checksum, with the one that was found.
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
    """The files of a data set that are still to be downloaded, and the folder they belong into.

    Parameters
    ----------
    name, folder, manifest
        As in `download`.
    """
    dataset = _find(name, manifest)
    place = _folder(dataset, folder)
    return tuple(file for file in dataset.files if not (place / file.name).exists()), place


def truth_hash(truth: Truth) -> str:
    """SHA-256 of a ground truth: its labels, and its coordinates rounded to 1e-4.

    Images and volumes are left out: sums of exponentials differ in the last digit between machines, seeds do not.
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
        differs = f"{dataset.name}: this machine's ground truth differs from the manifest's (another NumPy?)"
        warn_user(f"{differs}; numbers will not agree exactly with published ones.")
    return particles


def _obtain(file: DataFile, target: Path, progress: bool) -> None:
    """Make `target` exist and be what the manifest says."""
    if target.exists():
        if file.sha256 != UNVERIFIED:
            _verify(file, target, target, "It was left untouched: move it away to download it again.")
        return
    part = target.with_name(target.name + ".part")
    _transfer(file.url, part, progress)
    try:
        found = _verify(file, part, target, "The download was discarded: try again, or correct the manifest.")
    except InputError:
        part.unlink()
        raise
    part.replace(target)
    if file.sha256 == UNVERIFIED:
        warn_user(f"{target}: no checksum is published for this file; its sha256 is {found}")


def _verify(file: DataFile, path: Path, where: Path, remedy: str) -> str:
    """The sha256 of `path`, after comparing it and the size with the manifest's."""
    size = path.stat().st_size
    if file.size not in (None, size):
        raise InputError(where, f"{size} bytes", f"{file.size} bytes", remedy)
    found = pooch.file_hash(str(path), alg="sha256")
    if file.sha256 not in (UNVERIFIED, found):
        raise InputError(where, f"sha256 {found}", f"sha256 {file.sha256}", remedy)
    return found


def _transfer(url: str, part: Path, progress: bool) -> None:
    """Download `url` into `part`, from where an earlier attempt stopped if the server can do that."""
    try:
        with part.open("ab") as handle:

            def begin_anew(response: Any, **_: Any) -> None:
                if response.status_code == 200:  # the server sends all of it; 206 would be the rest
                    handle.seek(0)
                    handle.truncate()

            headers = {"Accept-Encoding": "identity"}
            if handle.tell():
                headers["Range"] = f"bytes={handle.tell()}-"
            get = pooch.HTTPDownloader(progress, chunk_size=2**16, headers=headers, hooks={"response": begin_anew})
            get(url, handle, None)
    except OSError as error:  # what requests raises is an OSError, and so is a full disk
        size = part.stat().st_size if part.exists() else 0
        response = getattr(error, "response", None)
        if response is not None and response.status_code == 416:  # nothing lies beyond what is there already
            if response.headers.get("Content-Range") == f"bytes */{size}":
                return
            size = 0  # it is not a part of this file
        if size == 0:
            part.unlink(missing_ok=True)
        remedy = (
            "Check the connection and the free disk space and call again; the download resumes where it stopped. "
            f"Or get the file by other means and save it as {part.with_suffix('')}."
        )
        sentence = f"{url} could not be downloaded completely: {error}."
        raise InputError(url, f"no complete download ({error})", "the whole file", remedy, sentence) from error
