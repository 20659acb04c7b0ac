"""Models and checkpoints as files: written completely or not at all, read without executing anything.

A .pt file is an archive of tensors and a pickle that puts them together. PyTorch's own restricted reader runs nothing,
but would make room for whatever sizes a file claims; a file is refused before that if its bytes do not bear them out.
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic, make_folder, require_file
from cryotwin_nb.imaging.fourier import n_shells

FORMAT = "cryotwin_nb model 3"
_OBJECTS = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}
_OBJECTS |= {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Byte", "Bool")}


def write_payload(payload: dict, path: str | os.PathLike) -> None:
    """torch.save to a temporary name, then rename when it is on the disk."""
    make_folder(Path(path).parent)
    with atomic(path) as partial, open(partial, "wb") as file:
        try:
            torch.save(payload, file)
        except RuntimeError as error:  # what PyTorch makes of the failure to write
            raise OSError("it could not be written to the end; is the disk full?") from error
        file.flush()
        os.fsync(file.fileno())


def read_payload(path: str | os.PathLike) -> dict:
    """torch.load to the CPU without executing code, checked to be ours.

    Raises
    ------
    InputError
        If the file is missing, damaged, holds anything but tensors and plain containers, or is none of ours.
    """
    remedy = "Give a file written by CryoTwin.save or by fit(checkpoint=...)."
    path = require_file(path, "model (.pt)")
    try:
        _require_plain_archive(path)
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile and torch raise many kinds for damaged or hostile files
        found = f"a file that cannot be read ({type(error).__name__})"
        raise InputError(path, found, "a model (.pt)", remedy) from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise InputError(path, "something else", f"a {FORMAT!r} file", remedy)
    return payload


def _require_plain_archive(path: Path) -> None:
    """Raise `ValueError` unless the archive unpacks to no more than its own size, and names tensors only."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(max(m.file_size, m.compress_size) for m in members) > path.stat().st_size:
            raise ValueError("an archive that unpacks to more than its size")
        (program,) = (member for member in members if member.filename.endswith("/data.pkl"))
        for opcode, argument, _ in pickletools.genops(archive.read(program)):
            if opcode.name in ("STACK_GLOBAL", "INST") or (opcode.name == "GLOBAL" and argument not in _OBJECTS):
                raise ValueError(f"the object {argument}")


def require_stored(payload: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless the networks that a payload asks for are no larger than what it has stored of them."""
    config, state = dict(payload["config"]), dict(payload["state"])
    for name, tensor in state.items():
        if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{name} is no plain tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} claims more numbers than it has")
    for name, value in config.items():
        if type(value) not in (int, float) and name not in ("architecture", "weighting"):
            raise ValueError(f"{name} = {value!r}"[:80])
    for name, values in payload["history"].items():
        if not all(type(value) in (int, float, type(None)) for value in (values if type(values) is list else [values])):
            raise ValueError(f"a history whose {name} is no list of numbers")
    size, total = int(config["box_size"]), sum(tensor.numel() for tensor in state.values())
    noise = state["imaging.noise"]
    if not 0 < size <= 4096 or noise.dtype != torch.float64 or noise.ndim != 2 or noise.shape[1] != n_shells(size):
        raise ValueError(f"a box of {size} pixels with a noise spectrum of shape {tuple(noise.shape)}")
    for name, least in _sizes(config).items():
        if not least <= total:
            raise ValueError(f"{name} asks for {least} numbers or more, {total} are stored")


def _sizes(config: dict[str, Any]) -> dict[str, float]:
    """How many numbers at least each setting asks to store."""
    dim, components = config["latent_dim"], config["n_components"]
    width, depth = config.get("width", 1), config.get("depth", 1)
    sizes = {"n_components": components * dim**2, "width": width * (dim + components), "depth": depth}
    if config["architecture"] == "subspace":
        basis = config.get("n_basis") or (dim if dim >= 5 else 12)
        curve = width**2 if basis > dim else 0
        return {**sizes, "n_basis": basis * config["box_size"] ** 3 + basis * width + curve}
    return {**sizes, "width and depth": depth * width**2, "n_features": config.get("n_features", 0) * width}
