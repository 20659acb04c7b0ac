"""Colours shared by the figures and the explorer, in a module that is fast to import."""

from __future__ import annotations

import re
from collections.abc import Iterable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette in order of use; yellow is last because it has little contrast on white."""

DENSITY = "viridis"
"""Colour map for densities."""

NO_STATE = ("none", "others", "unnamed")
"""Labels of points that belong to no state; drawn in grey."""

_OTHERS = dict.fromkeys(NO_STATE, "#999999")
_FAMILIES = (6, 0, 1, 2, 3, 4, 5)  # black, blue, orange, green, pink, ochre and light blue
_DARKEST, _LIGHTEST = -0.4, 0.62  # shares of black and of white that are mixed into a hue


def state_colours(states: Iterable[str]) -> dict[str, str]:
    """Return a colour for each state, the same in all figures: one hue per letter, from dark to light.

    Parameters
    ----------
    states : iterable of str
        Names such as "B", "C1", "C2", in any order. Names that all have the same letters, such as S1, S2, or numbers,
        get different hues in turn, and so do names of more than seven letters.

    Returns
    -------
    dict of str to str
        Hexadecimal colour by name; grey for "unnamed", "others" and "none".
    """
    wanted = sorted({str(state) for state in states}, key=_natural)
    families: dict[str, list[str]] = {}
    for name in (name for name in wanted if name not in _OTHERS):
        families.setdefault(re.sub(r"\d+$", "", name), []).append(name)
    groups = list(zip(_FAMILIES, families.values(), strict=False))
    if len(families) == 1 or len(families) > len(_FAMILIES):
        every = [name for family in families.values() for name in family]
        groups = [(hue, every[hue :: len(_FAMILIES)]) for hue in range(len(_FAMILIES))]
    found = dict(_OTHERS)
    for hue, family in groups:
        darkest = 0.0 if hue == _FAMILIES[0] else _DARKEST  # black cannot be darker
        for place, name in enumerate(family):
            share = darkest + (_LIGHTEST - darkest) * place / (len(family) - 1) if len(family) > 1 else 0.0
            found[name] = _mixed(COLOURS[hue], share)
    return {name: found[name] for name in wanted}


def _natural(name: str) -> tuple[str, int, str]:
    """Return the key that sorts S2 before S10."""
    number = re.search(r"\d+$", name)
    return (name[: number.start()], int(number[0]), name) if number else (name, -1, name)


def _mixed(colour: str, share: float) -> str:
    """Mix a colour with a share of white, or of black if the share is negative."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (255 - c) * share if share > 0 else c * (1 + share)):02x}" for c in channels)
