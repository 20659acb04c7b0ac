"""Safe reading of pickled arrays: no code is executed, and memory use grows at most in proportion to the file size.

A pickle is a program. Only programs that build numbers, text, tuples, lists and NumPy arrays of numbers are accepted.
Dictionaries (whose keys can take forever to hash), classes, and sizes that do not match the bytes in the file are
rejected. NumPy's functions are replaced by the checked functions below.
"""

from __future__ import annotations

import math
import os
import pickle
import pickletools
import re
from io import BytesIO
from typing import Any

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import require_file

_OPCODES = re.compile(
    "PROTO|FRAME|STOP|MARK|NONE|NEWTRUE|NEWFALSE|INT|BININT[12]?|LONG1?|(BIN)?FLOAT"
    "|((SHORT_)?BIN)?STRING|((SHORT_)?BIN)?UNICODE|(SHORT_)?BINBYTES8?|BYTEARRAY8"
    "|(EMPTY_)?TUPLE[123]?|(EMPTY_)?LIST|APPENDS?|(LONG_)?(BIN)?(PUT|GET)|MEMOIZE|(STACK_)?GLOBAL|REDUCE|BUILD"
)


def read_pickles(path: str | os.PathLike, most: int = 1) -> list[Any]:
    """Return the content of the first `most` pickles in a file: arrays, numbers, text, and tuples and lists of them.

    Raises
    ------
    InputError
        If the file is missing, or a pickle is damaged or contains anything else.
    """
    path = require_file(path, "cryoDRGN .pkl file")
    content = BytesIO(path.read_bytes())
    parts: list[Any] = []
    try:
        while len(parts) < most and (not parts or content.tell() < content.getbuffer().nbytes):
            start = content.tell()
            _check(content)
            content.seek(start)
            parts.append(_ArrayUnpickler(content).load())
    except Exception as error:  # a damaged pickle can raise almost any exception
        found = f"a pickle that does not contain plain arrays ({type(error).__name__}: {error})"
        remedy = "Use the file written by cryoDRGN, or save its arrays again. No code in this file was run."
        raise InputError(path, found, "NumPy arrays only", remedy) from error
    return parts


def _check(content: BytesIO) -> None:
    """Scan the next pickle without building any object."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if not _OPCODES.fullmatch(opcode.name):
            raise pickle.UnpicklingError(f"the operation {opcode.name}")
        if opcode.name.endswith("PUT") and not 0 <= (argument or 0) <= count:
            raise pickle.UnpicklingError(f"memo entry {argument}")  # the unpickler would allocate all smaller entries


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that maps the function names in pickled arrays (NumPy 1 and 2) to the functions below."""

    def find_class(self, module: str, name: str) -> Any:
        known = _NAMES.get((module.replace("numpy.core", "numpy._core"), name))
        if known is None:
            raise pickle.UnpicklingError(f"the object {module}.{name}")
        return known


class _Type:
    """Numeric type; only the byte order of its pickled state is used."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch("[<>=|]?[biuf][0-9]{0,2}", code):
            raise pickle.UnpicklingError(f"the array type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])

    def array(self, shape: Any, raw: Any) -> np.ndarray:
        """Return bytes as a flat array; their number must match `shape`."""
        whole = isinstance(shape, tuple) and all(isinstance(side, int) and side >= 0 for side in shape)
        if not whole or not isinstance(raw, (bytes, bytearray)) or len(raw) != math.prod(shape) * self.dtype.itemsize:
            raise pickle.UnpicklingError("an array whose shape does not fit its data")
        return np.frombuffer(raw, self.dtype) if raw else np.zeros(0, self.dtype)


class _Array(np.ndarray):
    """Array that is created empty and filled by `__setstate__`, as pickled arrays are."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, raw = state
        flat = kind.array(shape, raw)
        checked: Any = (1, shape, flat.dtype, bool(by_columns), flat.tobytes())
        super().__setstate__(checked)


def _type(*arguments: Any) -> _Type:
    return _Type(*arguments)


def _reconstruct(*_: Any) -> np.ndarray:
    return np.zeros(0, np.int8).view(_Array)


def _scalar(kind: _Type, raw: bytes) -> np.generic:
    return kind.array((1,), raw)[0]


def _from_buffer(raw: Any, kind: _Type, shape: tuple, order: str) -> np.ndarray:
    return kind.array(shape, raw).reshape(shape, order="F" if order == "F" else "C")


def _latin1(text: str, encoding: str) -> bytes:
    """Encode text with Latin-1, the codec that old pickles use for the bytes of arrays."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "ndarray",  # only used as an argument of _reconstruct
    ("numpy", "dtype"): _type,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin1,
}
