"""Options generated from signatures and NumPy docstrings, the single source of names, types, defaults and help texts.

A keyword `n_steps` becomes `--n-steps`; a boolean whose default is True becomes `--no-...`. Only plain values are
accepted: numbers, strings and paths. No option can name a class or module to import.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from docstring_parser import DocstringStyle, parse

from cryotwin_nb.errors import InputError

_PLAIN = (bool, int, float, str)
_CHOICES = re.compile(r"\{(.+?)\}")


class Option(NamedTuple):
    """Keyword argument of a function as a command-line option.

    Attributes
    ----------
    keyword : str
        Name of the keyword argument.
    kind : type
        bool, int, float, str or Path.
    default : object
        Default value.
    help : str
        Description of the keyword in the docstring.
    choices : tuple of str or None
        Allowed values, if the docstring lists them.
    spelled : str
        Name of the option, if it differs from the keyword because another option already uses the keyword.
    """

    keyword: str
    kind: type
    default: Any
    help: str
    choices: tuple[str, ...] | None
    spelled: str = ""

    @property
    def flag(self) -> str:
        """Option string on the command line, such as `--n-steps`."""
        name = (self.spelled or self.keyword).replace("_", "-")
        return f"--no-{name}" if self.kind is bool and self.default is True else f"--{name}"

    @property
    def target(self) -> str:
        """Name of the option among the parsed arguments."""
        return self.spelled or self.keyword

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Add the option to a parser or to one of its argument groups."""
        if self.kind is bool:
            action, text = (
                ("store_false", f"Disable: {self.help}") if self.default is True else ("store_true", self.help)
            )
            unset: dict[str, Any] = {"default": None} if self.default is None else {}
            parser.add_argument(self.flag, dest=self.target, action=action, help=text.replace("%", "%%"), **unset)
            return
        default = "" if self.default is None else f" (default: {self.default})"
        shown = None if self.choices else self.kind.__name__.upper()
        parser.add_argument(
            self.flag,
            dest=self.target,
            type=self.kind,
            default=self.default,
            choices=self.choices,
            metavar=shown,
            help=(self.help + default).replace("%", "%%"),
        )


def options_of(function: Callable, skip: Collection[str] = ()) -> list[Option]:
    """Return the options of a function or class: its keywords with plain types, except those in `skip`.

    Parameters
    ----------
    function : callable
        Function or class with type hints and a NumPy docstring that describes each keyword.
    skip : collection of str
        Keywords to leave out.
    """
    described = documented(function)
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = plain_type(hints.get(name, str))
        if (
            name in ("self", *skip)
            or kind is None
            or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ):
            continue
        about, type_name = described.get(name, ("", ""))
        listed = _CHOICES.search(type_name)
        choices = tuple(word.strip(" \"'") for word in listed[1].split(",")) if listed else None
        default = None if parameter.default is parameter.empty else parameter.default
        found.append(Option(name, kind, default, about, choices))
    return found


def documented(function: Callable) -> dict[str, tuple[str, str]]:
    """Return the description, on one line, and the type of each parameter or attribute in a docstring."""
    found = {}
    for entry in parse(inspect.getdoc(function) or "", DocstringStyle.NUMPYDOC).params:
        for name in entry.arg_name.split(","):
            text = " ".join((entry.description or "").split()).replace("`", "")
            found[name.strip()] = (text, entry.type_name or "")
    return found


def plain_type(hint: Any) -> type | None:
    """Return the plain type in a type hint, or None; a union yields its path type, or else its first plain type."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        paths = [member for member in members if _is_path(member)]
        plain = [plain_type(member) for member in paths or members]
        return next((kind for kind in plain if kind is not None), None)
    if _is_path(hint):
        return Path
    return hint if hint in _PLAIN else None


def _is_path(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, os.PathLike)


def values_of(options: argparse.Namespace, wanted: list[Option]) -> dict[str, Any]:
    """Return the values of the `wanted` options by keyword: those given by the user, else the defaults."""
    return {option.keyword: getattr(options, option.target) for option in wanted}


class Parser(argparse.ArgumentParser):
    """Argument parser that raises `InputError` instead of exiting and names the replacements of former options."""

    renamed: Mapping[str, str] = {}

    def parse_known_args(self, args=None, namespace=None):
        """Parse like the standard library, but refuse former option names and state their replacements."""
        for word in args or ():
            name = str(word).partition("=")[0]
            if name in self.renamed:
                now = self.renamed[name]
                sentence = f"{name} has been replaced by {now}."
                raise InputError(name, "a former option name", now, f"Use {now}.", sentence)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> typing.NoReturn:
        """Raise `InputError` with the parser's message as one sentence."""
        sentence = f"{self.prog}: {message[:1].upper()}{message[1:]}."
        remedy = f"Run `{self.prog} --help` for a list of the options."
        raise InputError(self.prog, message, "other arguments", remedy, sentence)
