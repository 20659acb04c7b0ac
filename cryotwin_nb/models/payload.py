"""Checkpoint files, read without executing code, and checks of stored models.

A .pt file is an archive of tensors and a pickle that assembles them. PyTorch's restricted reader executes nothing, but
allocates whatever sizes a file claims. A file that holds fewer bytes than it claims is therefore not loaded. It also
ignores the checksums in the archive, so they are compared here.
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
from cryotwin_nb.formats.seals import Damaged, seal, sealed_note
from cryotwin_nb.imaging.fourier import n_shells
from cryotwin_nb.models.networks import NetworkOptions

FORMAT = "cryotwin_nb model 4"
_EARLIER = {"cryotwin_nb model 3": "402ee49"}
_OBJECTS = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}
_OBJECTS |= {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Byte", "Bool")}


def write_payload(payload: dict, path: str | os.PathLike) -> None:
    """Write a payload with torch.save, and a checksum, under a temporary name; rename the file once it is on disk."""
    make_folder(Path(path).parent)
    with atomic(path) as partial, open(partial, "w+b") as file:
        try:
            torch.save(payload, file)
            seal(file)
        except RuntimeError as error:  # PyTorch's error for a failed write
            raise OSError("writing stopped before the end of the file; the disk may be full") from error
        file.flush()
        os.fsync(file.fileno())


def read_payload(path: str | os.PathLike) -> dict:
    """Read a checkpoint to the CPU without executing code, and check its format.

    Raises
    ------
    InputError
        If the file is missing or damaged, contains anything but tensors and plain containers, or has another format.
    """
    remedy = "Pass a file written by CryoTwin.save (.safetensors) or by fit(checkpoint=...)."
    path = require_file(path, "checkpoint (.pt)")
    try:
        _require_plain_archive(path)
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile and torch raise many kinds of error for damaged or hostile files
        found = f"{error}" if isinstance(error, Damaged) else type(error).__name__
        sentence = f"{path} cannot be read as a checkpoint (.pt): {found}."
        raise InputError(path, found, "a checkpoint (.pt)", remedy, sentence) from error
    stored = payload.get("format") if isinstance(payload, dict) else None
    if stored in _EARLIER:
        last = f"the last build that can read it is commit {_EARLIER[stored]}"
        sentence = f"{path} was written by an earlier build; {last}."
        raise InputError(path, f"a {stored!r} file", f"a {FORMAT!r} file", "Train the model again.", sentence)
    if stored != FORMAT:
        sentence = f"{path} is not a {FORMAT!r} file."
        raise InputError(path, "another format", f"a {FORMAT!r} file", remedy, sentence)
    return payload


def _require_plain_archive(path: Path) -> None:
    """Raise `ValueError` if the archive is damaged, unpacks to more than its size, or names objects besides tensors."""
    sealed = sealed_note(path) is not None
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(max(m.file_size, m.compress_size) for m in members) > path.stat().st_size:
            raise ValueError("an archive that unpacks to more than its size")
        if not sealed and (member := archive.testzip()):  # written by an earlier build
            raise Damaged(f"{member} does not match its checksum")
        (program,) = (member for member in members if member.filename.endswith("/data.pkl"))
        for opcode, argument, _ in pickletools.genops(archive.read(program)):
            if opcode.name in ("STACK_GLOBAL", "INST") or (opcode.name == "GLOBAL" and argument not in _OBJECTS):
                raise ValueError(f"the object {argument}")


def require_stored(payload: Mapping[str, Any], options: type[NetworkOptions]) -> None:
    """Raise `ValueError` if the configuration of a payload implies more values than the payload stores."""
    config, state = dict(payload["config"]), dict(payload["state"])
    for name, tensor in state.items():
        if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{name} is not a plain tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} claims more values than it stores")
    for name, value in config.items():
        chosen = type(value) is str and value == "auto"
        if type(value) not in (int, float, bool) and name not in ("architecture", "weighting") and not chosen:
            raise ValueError(f"{name} = {value!r}"[:80])
    for name, values in payload["history"].items():
        if not all(type(value) in (int, float, type(None)) for value in (values if type(values) is list else [values])):
            raise ValueError(f"{name} of the history is not a list of numbers")
    dim = config["latent_dim"]
    size, total = int(config["box_size"]), sum(tensor.numel() for tensor in state.values())
    noise = state["networks.imaging.noise"]
    if not 0 < size <= 4096 or noise.dtype != torch.float64 or noise.ndim != 2 or noise.shape[1] != n_shells(size):
        raise ValueError(f"a box of {size} pixels with a noise spectrum of shape {tuple(noise.shape)}")
    least = {
        "n_components": config["n_components"] * (dim**2 if type(dim) is not str else 1),
        **options.least_numbers(config),
    }
    for name, count in least.items():
        if not count <= total:
            raise ValueError(f"{name} implies at least {count} values, but {total} are stored")
