"""Parser of `data_manifest.yaml`: named data sets, their files, checksums and reader arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.plain_yaml import read_yaml

UNVERIFIED = "unverified"
"""Placeholder in the manifest for an unknown checksum."""

GENERATORS = ("assembly", "hinge")
"""Functions of `cryotwin_nb.simulate` that a manifest can name."""

_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
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
    expected = "a name without folders, of at most 200 characters (it also names the folder)"
    _require(_plain_name(name), where[:300], f"{name!r}"[:300], expected)
    values = dict(values) if isinstance(values, dict) else {}
    raw = [] if values.get("files") is None else values["files"]
    _require(isinstance(raw, list), where, f"files {raw!r}", "a list")
    values |= {"name": name, "files": tuple(_file(where, item) for item in raw)}
    entry = _record(Dataset, where, values)
    for key in ("description", "licence", "doi", "landing_page", "truth_sha256"):
        value = getattr(entry, key)
        _require(
            isinstance(value, str) or (value is None and key in ("doi", "landing_page")),
            where,
            f"{key} {value!r}",
            "text",
        )
    names = [file.name for file in entry.files]
    _require(len(set(names)) == len(names), where, f"files {names}", "a different name for each file")
    _require(entry.generator in (None, *GENERATORS), where, f"generator {entry.generator!r}", f"one of {GENERATORS}")
    from cryotwin_nb import simulate
    from cryotwin_nb.particles.particles import Particles

    _require_arguments(where, entry.reader, Particles.read)
    if entry.generator is None:
        _require(entry.arguments == {}, where, f"arguments {entry.arguments!r}", "none without a generator")
    else:
        _require_arguments(where, entry.arguments, getattr(simulate, entry.generator))
    return entry


def _require_arguments(where: str, arguments: Any, function: Callable) -> None:
    """Refuse arguments that a function does not have, or of another type."""
    _require(isinstance(arguments, dict), where, f"{arguments!r}", "a mapping of arguments")
    hints = get_type_hints(function)
    for name, value in arguments.items():
        known = [key for key in signature(function).parameters if key not in ("options", "progress")]
        _require(name in known, where, f"the argument {name!r}", f"arguments among {', '.join(known)}")
        kinds = {kind: _NAMES[kind] for kind in _NAMES if kind in (hints[name], *get_args(hints[name]))}
        plain = value if not (isinstance(value, list) and value and name == "path") else value[0]
        good = type(plain) in kinds or (type(plain) is int and float in kinds)
        limited = not isinstance(plain, (int, float)) or abs(plain) < 2**63  # also refuses NaN
        _require(good and limited, where, f"{name} {value!r}"[:200], " or ".join(kinds.values()))


def _file(where: str, values: object) -> DataFile:
    """Build a `DataFile` from its mapping in the manifest."""
    file = _record(DataFile, where, values)
    name, sha256, size = file.name, file.sha256, file.size
    good_name = _plain_name(name) and not name.endswith(".part")
    _require(good_name, where, f"file name {name!r}"[:300], "a name without folders, of at most 200 characters")
    good_url = isinstance(file.url, str) and re.match("https?://[^/]", file.url)
    _require(good_url, where, f"url {file.url!r}", "an http or https address")
    good = isinstance(sha256, str) and (sha256 == UNVERIFIED or re.fullmatch("[0-9a-f]{64}", sha256))
    _require(good, where, f"sha256 {sha256!r}", f"64 lower-case hexadecimal digits or {UNVERIFIED}")
    good_size = size is None or (type(size) is int and 0 <= size < 2**63)
    _require(good_size, where, f"size {size!r}"[:200], "a number of bytes or null")
    return file


def _plain_name(name: object) -> bool:
    """Return whether a name is a plain file name, which cannot point outside its folder."""
    plain = isinstance(name, str) and re.fullmatch(r"[\w+-][\w.+ -]*", name) is not None
    return plain and len(str(name).encode(errors="replace")) <= 200  # room for ".part" in 255 bytes


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
