"""What `data_manifest.yaml` says: named data sets, their files, checksums and how they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import read_yaml

UNVERIFIED = "unverified"
"""Stands in the manifest for a checksum that is not known."""

GENERATORS = ("assembly", "hinge")
"""Functions of `cryotwin_nb.simulate` that a manifest may name."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes
    ----------
    name : str
        File name on disk.
    url : str
        http or https address.
    sha256 : str
        64 hexadecimal digits, or ``"unverified"``.
    size : int or None
        Bytes; None where it is not published.
    """

    name: str
    url: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True)
class Dataset:
    """One entry of the manifest.

    Attributes
    ----------
    name, description, licence : str
        What it is and how it may be used.
    doi, landing_page : str or None
        Where it is published.
    files : tuple of DataFile
        What is downloaded; empty for embedded sets and for those that are only pointed to.
    reader : mapping
        Arguments of `Particles.read`; the name of a file stands for its path, ``"."`` for the folder.
    generator : str or None
        Function of `cryotwin_nb.simulate` that makes an embedded set, called with `arguments`.
    truth_sha256 : str
        `truth_hash` of an embedded set, or ``"unverified"``.
    """

    name: str
    description: str
    licence: str
    doi: str | None = None
    landing_page: str | None = None
    files: tuple[DataFile, ...] = ()
    reader: Mapping[str, Any] = field(default_factory=dict)
    generator: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    truth_sha256: str = UNVERIFIED


def datasets(manifest: str | Path | None = None) -> dict[str, Dataset]:
    """All entries of the manifest by name.

    Raises
    ------
    InputError
        If the manifest is missing or not what `data_manifest.yaml` describes at its head.
    """
    path = manifest_path(manifest)
    content = read_yaml(path, "Correct the manifest.")
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise InputError(path, "no data sets", "a mapping `datasets: {name: entry}`", "Correct the manifest.")
    return {name: _entry(path, name, values) for name, values in entries.items()}


def manifest_path(manifest: str | Path | None = None) -> Path:
    """Where the manifest is: the argument, else the package's own copy of the repository's data_manifest.yaml."""
    return Path(str(files("cryotwin_nb.data") / "data_manifest.yaml")) if manifest is None else Path(manifest)


def _entry(path: Path, name: object, values: object) -> Dataset:
    """A `Dataset` from its mapping in the manifest."""
    where = f"{path}, data set {name!r}"
    _require(_plain_name(name), where, f"{name!r}", "a name without folders: files are kept in a folder of that name")
    values = dict(values) if isinstance(values, dict) else {}
    raw = values.get("files") or []
    _require(isinstance(raw, list), where, f"files {raw!r}", "a list")
    values |= {"name": name, "files": tuple(_file(where, item) for item in raw)}
    entry = _record(Dataset, where, values)
    _require(entry.generator in (None, *GENERATORS), where, f"generator {entry.generator!r}", f"one of {GENERATORS}")
    for arguments in (entry.reader, entry.arguments):
        _require(isinstance(arguments, dict), where, f"{arguments!r}", "a mapping of arguments")
    return entry


def _file(where: str, values: object) -> DataFile:
    """A `DataFile` from its mapping in the manifest."""
    file = _record(DataFile, where, values)
    url, sha256 = str(file.url), str(file.sha256)
    _require(_plain_name(file.name), where, f"file name {file.name!r}", "a name without folders")
    _require(re.match("https?://[^/]", url), where, f"url {url!r}", "an http or https address")
    good = sha256 == UNVERIFIED or re.fullmatch("[0-9a-f]{64}", sha256)
    _require(good, where, f"sha256 {sha256!r}", f"64 lower-case hexadecimal digits or {UNVERIFIED}")
    _require(file.size is None or isinstance(file.size, int), where, f"size {file.size!r}", "bytes or null")
    return file


def _plain_name(name: object) -> bool:
    """True for names of files that stay in the folder they are put in."""
    return isinstance(name, str) and re.fullmatch(r"[\w+-][\w.+ -]*", name) is not None


def _record(cls: type[_T], where: str, values: object) -> _T:
    """An instance of a dataclass from a mapping whose keys are its fields."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
    keys = set(values) if isinstance(values, dict) else set()
    _require(
        needed <= keys <= known,
        where,
        f"keys {sorted(map(str, keys))}",
        f"{sorted(needed)} and, optionally, {sorted(known - needed)}",
    )
    return cls(**values)  # type: ignore[arg-type]


def _require(good: object, where: object, found: str, expected: str) -> None:
    if not good:
        raise InputError(where, found, expected, "Correct the manifest; the comment at its top describes the keys.")
