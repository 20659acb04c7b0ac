"""Parser of `data_manifest.yaml`: named data sets, their files, checksums and reader arguments."""

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
"""Placeholder in the manifest for an unknown checksum."""

GENERATORS = ("assembly", "hinge")
"""Functions of `cryotwin_nb.simulate` that a manifest can name."""

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
        Size in bytes; None if not published.
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
        Name, short description and licence of the data set.
    doi, landing_page : str or None
        DOI and web page of the data set.
    files : tuple of DataFile
        Files to download; empty for built-in sets and for sets that are only referenced.
    reader : mapping
        Arguments of `Particles.read`; a file name stands for the path of that file, and ``"."`` stands for the folder.
    generator : str or None
        Function of `cryotwin_nb.simulate` that generates a built-in set, called with `arguments`.
    arguments : mapping
        Keyword arguments of the generator.
    truth_sha256 : str
        `truth_hash` of a built-in set, or ``"unverified"``.
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
    """Return all entries of the manifest by name.

    Parameters
    ----------
    manifest : path, optional
        Manifest to use instead of the one in the package.

    Raises
    ------
    InputError
        If the manifest is missing or not in the format described at the top of `data_manifest.yaml`.
    """
    path = manifest_path(manifest)
    content = read_yaml(path, "Correct the manifest.")
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise InputError(path, "no data sets", "a mapping `datasets: {name: entry}`", "Correct the manifest.")
    return {name: _entry(path, name, values) for name, values in entries.items()}


def manifest_path(manifest: str | Path | None = None) -> Path:
    """Return the path of the manifest: the argument, or the package's copy of data_manifest.yaml.

    Parameters
    ----------
    manifest : path, optional
        Manifest to use instead of the one in the package.
    """
    return Path(str(files("cryotwin_nb.data") / "data_manifest.yaml")) if manifest is None else Path(manifest)


def _entry(path: Path, name: object, values: object) -> Dataset:
    """Build a `Dataset` from its mapping in the manifest."""
    where = f"{path}, data set {name!r}"
    _require(_plain_name(name), where, f"{name!r}", "a name without folders (it also names the folder)")
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
    """Build a `DataFile` from its mapping in the manifest."""
    file = _record(DataFile, where, values)
    url, sha256 = str(file.url), str(file.sha256)
    _require(_plain_name(file.name), where, f"file name {file.name!r}", "a name without folders")
    _require(re.match("https?://[^/]", url), where, f"url {url!r}", "an http or https address")
    good = sha256 == UNVERIFIED or re.fullmatch("[0-9a-f]{64}", sha256)
    _require(good, where, f"sha256 {sha256!r}", f"64 lower-case hexadecimal digits or {UNVERIFIED}")
    _require(file.size is None or isinstance(file.size, int), where, f"size {file.size!r}", "a number of bytes or null")
    return file


def _plain_name(name: object) -> bool:
    """Return whether a name is a plain file name, which cannot point outside its folder."""
    return isinstance(name, str) and re.fullmatch(r"[\w+-][\w.+ -]*", name) is not None


def _record(cls: type[_T], where: str, values: object) -> _T:
    """Build a dataclass instance from a mapping whose keys are its fields."""
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
