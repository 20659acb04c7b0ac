"""One colour for each state, the same in all figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from matplotlib.colors import to_hex, to_rgb

from cryotwin_nb.plotting.colours import COLOURS

_HUES = (COLOURS[6], COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[4], COLOURS[5])
"""Black, blue, orange, green, pink, ochre and light blue: distinct for all common kinds of colour vision."""
_LIGHTEST = 0.55


def state_colours(states: Sequence[str]) -> dict[str, str]:
    """Return a colour for each state: one hue for the states of a letter, lighter from the first to the last.

    Parameters
    ----------
    states : sequence of str
        Names such as "B", "C1", "C2"; names without a letter of their own share hues in turn.
    """
    families = [list(group) for _, group in groupby(sorted(states), key=lambda name: name[:1])]
    if len(families) == 1:  # S1, S2, ...
        return {name: COLOURS[i % 7] for i, name in enumerate(sorted(states))}
    found = {}
    for hue, family in zip(_HUES * len(families), families):
        for place, name in enumerate(family):
            lighter = _LIGHTEST * place / max(len(family) - 1, 1)
            red, green, blue = (channel + (1 - channel) * lighter for channel in to_rgb(hue))
            found[name] = to_hex((red, green, blue))
    return found
