"""Model files in safetensors format, which cannot hold code: tensors, and all other data as JSON in the header.

safetensors has no checksum, so a digest of the whole content is stored in the header and compared on reading.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic, make_folder, require_file, require_suffix
from cryotwin_nb.models.payload import FORMAT

REMEDY = "Pass a file written by CryoTwin.save, or train the model again."
_HEADER_BYTES = 10**6  # maximum; the header of a model takes a few kB


def write_model(payload: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write the result of `CryoTwin.payload` to .safetensors, completely or not at all; missing folders are created."""
    path = require_suffix(path, ".safetensors")
    tensors = {name: value.contiguous().cpu() for name, value in payload["state"].items()}
    about = {
        "format": payload["format"],
        "config": json.dumps(payload["config"]),
        "history": json.dumps(_without_nan(payload["history"])),
    }
    make_folder(path.parent)
    with atomic(path) as partial, open(partial, "wb") as file:
        file.write(save(tensors, about | {"sha256": _digest(about, tensors)}))
        file.flush()
        os.fsync(file.fileno())


def read_model(path: str | os.PathLike) -> dict[str, Any]:
    """Read the payload from a file written by `write_model`.

    Raises
    ------
    InputError
        If the file is missing or damaged, has changed since it was written, or has another format.
    """
    path = require_file(path, "model (.safetensors)")
    try:
        if not 2 <= (claimed := _header_size(path)) <= _HEADER_BYTES:
            raise ValueError(f"a header of {claimed} bytes")
        with safe_open(path, framework="pt", device="cpu") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest, expected = about.pop("sha256", ""), _digest(about, tensors)
        config, history = (json.loads(about.get(name, "{}"), parse_constant=_refuse) for name in ("config", "history"))
        history = _with_nan(history)
    except Exception as error:  # damaged files raise many kinds of error
        found = f"{type(error).__name__}: {error}"[:300]
        sentence = f"{path} cannot be read as a model (.safetensors): {found}."
        raise InputError(path, found, "a model (.safetensors)", REMEDY, sentence) from error
    if about.get("format") != FORMAT:
        sentence = f"{path} is not a {FORMAT!r} file."
        raise InputError(path, "another format", f"a {FORMAT!r} file", REMEDY, sentence)
    if digest != expected:
        sentence = f"{path} is damaged: its contents do not match its checksum."
        raise InputError(path, "contents with another checksum", "the contents as written", REMEDY, sentence)
    return {"format": FORMAT, "config": config, "history": history, "state": tensors}


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the weights that latents depend on: of the networks, not of mixtures fitted to latents.

    A model that is saved again, or a checkpoint of the same weights, has the same fingerprint.
    """
    return _digest({}, {k: value.contiguous().cpu() for k, value in state.items() if k.startswith("networks.")})


def _header_size(path: Path) -> int:
    with open(path, "rb") as file:
        return int.from_bytes(file.read(8), "little")


def _digest(about: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, types, shapes and bytes of tensors, and of the metadata."""
    found = hashlib.sha256()
    for name, words in sorted(about.items()):
        found.update(f"{name}\0{words}\0".encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def _without_nan(history: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN in lists by None, because JSON has no NaN."""

    def written(value: Any) -> Any:
        return None if isinstance(value, float) and math.isnan(value) else value

    return {
        name: [written(v) for v in values] if isinstance(values, list) else values for name, values in history.items()
    }


def _with_nan(history: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [math.nan if v is None else v for v in values] if isinstance(values, list) else values
        for name, values in history.items()
    }


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} in a header")
