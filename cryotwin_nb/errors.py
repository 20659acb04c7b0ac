"""The exception that users of cryotwin_nb need to know, and checks of single arguments that raise it."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any


class InputError(ValueError):
    """Something given to cryotwin_nb cannot be used; the message says what, why and, on its last line, what to do.

    Parameters
    ----------
    where : str
        The file, argument or object at fault.
    found : str
        What was there.
    expected : str
        What should have been there.
    remedy : str
        What the user can do about it: one or more sentences.
    sentence : str, optional
        What is wrong, as a finished sentence, where "WHERE: found FOUND, expected EXPECTED." would not be one.
    """

    def __init__(self, where: object, found: str, expected: str, remedy: str, sentence: str | None = None) -> None:
        super().__init__(f"{sentence or f'{where}: found {found}, expected {expected}.'}\n{remedy}")
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy


class MissingExtraError(ImportError):
    """A part of cryotwin_nb that was not installed is asked for; the message says how to install it."""


_EXTRAS = {
    "notebooks": (
        *("IPython", "PIL", "anywidget", "cycler", "ipywidgets", "matplotlib", "nbclient", "nbconvert", "nbformat"),
        *("nglview", "openTSNE", "traitlets"),
    )
}


@contextmanager
def extras_told() -> Iterator[None]:
    """Turn the failure to import a package of an extra into a sentence on how to install it.

    Raises
    ------
    MissingExtraError
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
    """Warn of a choice made on the user's behalf, at the line outside this package that led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=level)


def positive(name: str, value: Any, remedy: str) -> float:
    """A positive finite number as a plain float, or `InputError`."""
    if not _is_number(value, Real) or not (value > 0 and math.isfinite(value)):
        raise InputError(name, repr(value), "a positive number", remedy)
    return float(value)


def whole(name: str, value: Any, remedy: str, least: int = 1) -> int:
    """A whole number of at least `least` as a plain int, or `InputError`."""
    if not _is_number(value, Real) or not math.isfinite(value) or value != int(value) or value < least:
        expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise InputError(name, repr(value), expected, remedy)
    return int(value)


def flag(name: str, value: Any, remedy: str = "Give True or False.") -> bool:
    """True or False (or 1 or 0) as a plain bool, or `InputError`."""
    is_integer = _is_number(value, Integral) and value in (0, 1)
    if not is_integer and type(value).__name__ not in ("bool", "bool_"):
        raise InputError(name, repr(value), "True or False", remedy)
    return bool(value)


def choice(name: str, value: Any, choices: Collection[str], remedy: str = "Choose one of these.") -> str:
    """One of some words, or `InputError`."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(name, repr(value), " or ".join(map(repr, choices)), remedy)
    return value


def known_options(where: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise `InputError` if an option is none of those known."""
    unknown = [name for name in given if name not in known]
    if unknown:
        sentence = f"{where} has no option {' or '.join(map(repr, unknown))}."
        options = f"Its options are {', '.join(known)}."
        raise InputError(where, f"the option {unknown[0]!r}", f"one of {', '.join(known)}", options, sentence)


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
