"""Files of latents with a record of the model and the particles that they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.formats.journals import settle
from cryotwin_nb.formats.origins import chain_of, notes_in, record_of, written
from cryotwin_nb.formats.outputs import digest_of
from cryotwin_nb.formats.sets import file_set
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import image_quality

_DIGEST, _WEIGHTS, _MODEL, _STATUS, _CONTRASTS = "sha256", "weights", "model", "status", "contrasts"
_GOOD = "good"


def save_latents(
    path: Path,
    latents: Tensor,
    particles: Particles,
    weights: str,
    model: Path,
    contrasts: Sequence[Tensor] | None = None,
) -> None:
    """Write latents to a .npy file, completely or not at all, and the record beside it.

    Parameters
    ----------
    path : Path
        The .npy file.
    latents : (n, d) float32
        Latents of the particles, in order.
    particles : Particles
        Particles that were embedded.
    weights, model : str, Path
        Fingerprint of the model's weights (`models.storage.fingerprint`), and its file, to name it in messages.
    contrasts : pair of (n,) float32, optional
        Contrasts of the images and their errors, if they vary.
    """
    chain = chain_of(particles.source, particles.source_rows)
    status = image_quality(particles).status
    odd = {kind: np.flatnonzero(status == kind).tolist() for kind in np.unique(status).tolist() if kind != _GOOD}
    with file_set(path.parent), atomic(path) as partial:
        with open(partial, "wb") as file:
            np.save(file, latents.numpy())
        notes: dict[str, str | Path] = {_DIGEST: digest_of(partial), _WEIGHTS: weights, _MODEL: model}
        notes[_STATUS] = json.dumps(odd)
        if contrasts is not None:
            notes[_CONTRASTS] = json.dumps([[round(value, 4) for value in part.tolist()] for part in contrasts])
        written(path, chain, notes=notes)


def require_latents_of(path: Path, weights: str, model: Path) -> None:
    """Check that latents are unchanged and belong to a model. Without a record, nothing is checked.

    Records of earlier builds name no model.

    Parameters
    ----------
    path : Path
        The .npy file.
    weights, model : str, Path
        As in `save_latents`.

    Raises
    ------
    InputError
        If the file was changed since it was written, or holds latents of another model.
    """
    settle(path.parent, path.name)
    record = record_of(path)
    notes = notes_in(record, path.parent) if record.is_file() else {}
    if path.is_file() and notes.get(_DIGEST) not in (None, digest_of(path)):
        sentence = f"{path} is damaged, or was changed since {record.name} was written beside it."
        remedy = f"Embed the particles again. If the latents were changed on purpose, delete {record.name}."
        raise InputError(path, "contents with another checksum", "the contents as written", remedy, sentence)
    if notes.get(_WEIGHTS) not in (None, weights):
        other = Path(notes.get(_MODEL, "another model"))
        earlier = other.resolve() == model.resolve()
        found = f"latents of {f'an earlier version of {model}' if earlier else other}"
        remedy = "Embed the particles again with `cryotwin embed`" + (", or pass that model." if not earlier else ".")
        raise InputError(path, found, f"latents of {model}", remedy, f"{path} holds {found}, not of {model}.")


def recorded_status(path: Path, n: int) -> np.ndarray:
    """Return the status (n,) of each image when the latents in a file were computed (`Quality.status`).

    All are "good" without a record, and in those of earlier builds.

    Raises
    ------
    InputError
        If the record cannot be read.
    """
    status = np.full(n, _GOOD, dtype="U9")
    record = record_of(path)
    notes = notes_in(record, path.parent) if record.is_file() else {}
    try:
        for kind, rows in json.loads(str(notes.get(_STATUS, "{}"))).items():
            status[np.array(rows, dtype=np.int64)] = kind
    except (AttributeError, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
        remedy = f"Embed the particles again, or delete {record.name}."
        raise InputError(record, f"an unreadable status of images ({error})", f"rows below {n}", remedy) from error
    return status


def recorded_contrasts(path: Path, n: int) -> np.ndarray | None:
    """Return contrasts and their errors (2, n) float32 when the latents in a file were computed; None if all were 1.

    Raises
    ------
    InputError
        If the record cannot be read.
    """
    record = record_of(path)
    words = notes_in(record, path.parent).get(_CONTRASTS) if record.is_file() else None
    if words is None:
        return None
    try:
        found = np.array(json.loads(str(words)), dtype=np.float32)
        if found.shape != (2, n) or not np.isfinite(found).all():
            raise ValueError(f"numbers of shape {found.shape}")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        remedy = f"Embed the particles again, or delete {record.name}."
        raise InputError(record, f"unreadable contrasts ({error})", f"contrasts of {n} images", remedy) from error
    return found
