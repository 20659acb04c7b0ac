"""Exceptions for invalid input and missing packages, and argument checks that raise them."""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])
POSITIVE = (sys.float_info.min, sys.float_info.max)
"""Limits of positive numbers for `guarded`."""


class InputError(ValueError):
    """Invalid input to cryotwin_nb; the message states what is wrong and, on its last line, how to fix it.

    Parameters
    ----------
    where : str
        File, argument or object at fault.
    found : str
        What was found.
    expected : str
        What was expected.
    remedy : str
        How to fix it: one or more imperative sentences.
    sentence : str, optional
        Complete sentence that replaces the default message "WHERE: found FOUND, expected EXPECTED."
    """

    def __init__(self, where: object, found: str, expected: str, remedy: str, sentence: str | None = None) -> None:
        super().__init__(f"{sentence or f'{where}: found {found}, expected {expected}.'}\n{remedy}")
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy


class SeveralGrids(InputError):
    """Images of several pixel or box sizes, which `prepare` brings to one grid.

    Parameters
    ----------
    where, found : object, str
        As in `InputError`.
    table : Metadata, optional
        Metadata of the particles, with the pixel and box sizes that differ.
    """

    def __init__(self, where: object, found: str, table: Any = None) -> None:
        remedy = "Bring them to one grid with `cryotwin prepare` (ct.prepare), or select one group with optics_groups=."
        super().__init__(where, found, "a single value", remedy)
        self.table = table


class MissingExtraError(ImportError):
    """An optional dependency of cryotwin_nb is not installed; the message states how to install it."""


_EXTRAS = {
    "notebooks": (
        *("IPython", "PIL", "anywidget", "cycler", "ipywidgets", "matplotlib", "nbclient", "nbconvert", "nbformat"),
        *("openTSNE", "traitlets"),
    ),
    "nglview": ("nglview",),
}


@contextmanager
def extras_explained() -> Iterator[None]:
    """Convert a failed import of an optional dependency into an error that states how to install it.

    Raises
    ------
    MissingExtraError
        If a package of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        install = f"pip install 'cryotwin_nb[{extra}]'"
        raise MissingExtraError(f"This needs {package}, which is not installed.\nInstall it with {install}.") from error


def warn_user(text: str) -> None:
    """Warn about a choice made on the user's behalf; the warning points to the calling line outside this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=level)


def positive(name: str, value: Any, remedy: str) -> float:
    """Return a positive finite number as a float, or raise `InputError`."""
    if not _is_number(value, Real) or not (value > 0 and _is_finite(value)):
        raise InputError(name, repr(value), "a positive number", remedy)
    return float(value)


def whole(name: str, value: Any, remedy: str, least: int = 1, most: int = 2**62) -> int:
    """Return an integer from `least` to `most` as an int, or raise `InputError`."""
    if not _is_number(value, Real) or not least <= value <= most or value != int(value):
        expected = f"an integer of at least {least}" if most == 2**62 else f"an integer from {least:,} to {most:,}"
        expected = "a positive integer" if (least, most) == (1, 2**62) else expected
        raise InputError(name, _shown(value), expected, remedy)
    return int(value)


def flag(name: str, value: Any, remedy: str = "Pass True or False.") -> bool:
    """Return True or False (or 1 or 0) as a bool, or raise `InputError`."""
    is_integer = _is_number(value, Integral) and value in (0, 1)
    if not is_integer and type(value).__name__ not in ("bool", "bool_"):
        raise InputError(name, repr(value), "True or False", remedy)
    return bool(value)


def choice(name: str, value: Any, choices: Collection[str], remedy: str = "Pass one of these.") -> str:
    """Return `value` if it is one of the allowed strings, or raise `InputError`."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(name, repr(value), " or ".join(map(repr, choices)), remedy)
    return value


def known_options(where: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise `InputError` if any of the given options is unknown."""
    unknown = [name for name in given if name not in known]
    if unknown:
        sentence = f"{where} has no option {' or '.join(map(repr, unknown))}."
        remedy = f"Use one of the options {', '.join(known)}."
        raise InputError(where, f"the option {unknown[0]!r}", f"one of {', '.join(known)}", remedy, sentence)


def number(name: str, value: Any, remedy: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a number from `low` to `high` as a float, or raise `InputError`; NaN is never accepted."""
    if not _is_number(value, Real) or not low <= value <= high:
        expected = f"a number from {low:g} to {high:g}" if high < 1e300 else f"a number of at least {low:g}"
        expected = {POSITIVE[0]: "a positive number", -1e300: "a finite number"}.get(low, expected)
        raise InputError(name, _shown(value), expected, remedy)
    return float(value)


def guarded(**limits: tuple[float, float] | None) -> Callable[[_F], _F]:
    """Check the numbers that a function is called with, and convert errors of memory and linear algebra (`explained`).

    Parameters annotated as int or float, or one of them or None, must be such numbers. `limits` contains the smallest
    and the largest value of a parameter, or None to leave it unchecked; by default, integers are from 0 to 2^62, and
    floats are finite.
    """

    def decorate(function: _F) -> _F:
        signature = inspect.signature(function)
        numeric = {}
        for name, parameter in signature.parameters.items():
            kind, _, none = str(parameter.annotation).partition(" | ")
            within = limits.get(name, (0, 2**62) if kind == "int" else (-1e300, 1e300))
            if kind in ("int", "float") and none in ("", "None") and within is not None:
                numeric[name] = (kind, bool(none), *within)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                if name in numeric and not (value is None and numeric[name][1]):
                    kind, _, low, high = numeric[name]
                    value = value.item() if getattr(value, "shape", None) == () else value  # of NumPy and PyTorch
                    remedy = f"Pass {name} within these limits."
                    check: Callable[..., float] = whole if kind == "int" else number
                    bound.arguments[name] = check(name, value, remedy, low, high)
            with explained(function.__qualname__.removesuffix(".__init__")):
                return function(*bound.args, **bound.kwargs)

        return call  # type: ignore[return-value]

    return decorate


@contextmanager
def explained(where: str, remedy: str = "Pass fewer or smaller data, or free memory.") -> Iterator[None]:
    """Convert exhausted memory and failed matrix factorisations, of PyTorch or NumPy, into an `InputError`.

    Parameters
    ----------
    where : str
        What needed the memory or the matrix.
    remedy : str
        What to do if the memory is exhausted.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OverflowError, ValueError) as error:
        text = str(error)
        if isinstance(error, InputError):
            raise
        if type(error).__name__.strip("_") == "LinAlgError":
            hint = "Check the data for extreme, constant or identical values."
            sentence = f"{where}: a matrix is singular or contains NaN ({text.splitlines()[0].split('. ')[0]})."
            raise InputError(where, "a singular matrix", "data that determine a result", hint, sentence) from error
        if isinstance(error, MemoryError) or _ALLOCATION.search(text):
            size = re.search(r"(\d{4,}) bytes|allocate (\S+ [KMGTPE]iB)", text)
            amount = "" if size is None else f": another {size[2] or f'{int(size[1]) / 1e9:.3g} GB'} are needed"
            sentence = f"{where}: the memory is exhausted{amount}."
            raise InputError(where, "exhausted memory", "free memory", remedy, sentence) from error
        raise


_ALLOCATION = re.compile(r"allocate (memory|\d)|out of memory|Storage size|[Oo]verflow|int too (big|large)")


def _shown(value: Any) -> str:
    """Return a value as text of moderate length."""
    text = repr(value)
    return text if len(text) < 80 else f"{text[:60]}..."


def _is_finite(value: Any) -> bool:
    """Return whether a number is finite; False for integers beyond the range of float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
