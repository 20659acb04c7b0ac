"""What the explorer shows of its results, sent by browsers and files: plane, colour, step, contour, camera."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from cryotwin_nb.errors import InputError

_MOST_TEXT, _MOST_STEP, _MOST_CAMERA = 200, 10_000, 2_000


@dataclass(frozen=True)
class Look:
    """Settings of the display, none of which changes a result.

    Attributes
    ----------
    plane, colour : str
        Names of the plane and of the column by which the points are coloured.
    step : int
        Step shown.
    sigma : float or None
        Contour level, in standard deviations above the mean of the reference maps; None to separate particle from
        solvent (`automatic_sigma`).
    ghost, change : bool
        Whether the map at the start, and the density gained and lost since then, are shown as further surfaces.
    paint : bool
        Whether the local change since the start is painted on the surface.
    dust : bool
        Whether small parts of the surface are shown.
    camera : dict
        Camera of the browser; empty until it was moved.
    """

    plane: str = ""
    colour: str = ""
    step: int = 0
    sigma: float | None = None
    ghost: bool = False
    change: bool = False
    paint: bool = False
    dust: bool = True
    camera: dict = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as a dict for a JSON file."""
        return asdict(self)

    def changed(self, values: Any, planes: Collection[str] = (), colours: Collection[str] = ()) -> Look:
        """Return a copy with some settings changed; planes and colours that are not available here are skipped.

        Raises
        ------
        InputError
            If `values`, which are not trusted, hold anything else than settings of the display.
        """
        known = {f.name for f in fields(self)}
        if not isinstance(values, dict) or not set(values) <= known or not all(_fits(k, v) for k, v in values.items()):
            expected = f"the settings {', '.join(sorted(known))}"
            raise InputError("look", f"{values!r}"[:80], expected, "Pass a view of the explorer.")
        offered = {"plane": planes, "colour": colours}
        return replace(self, **{k: v for k, v in values.items() if k not in offered or v in offered[k]})


def _fits(name: str, value: Any) -> bool:
    if name in ("plane", "colour"):
        return isinstance(value, str) and len(value) <= _MOST_TEXT
    if name == "step":
        return type(value) is int and 0 <= value <= _MOST_STEP
    if name == "sigma":
        return value is None or (type(value) in (int, float) and math.isfinite(value) and abs(value) <= 1e6)
    if name == "camera":
        return isinstance(value, dict) and _numbers_only(value) and len(json.dumps(value)) <= _MOST_CAMERA
    return isinstance(value, bool)


def _numbers_only(value: Any, depth: int = 0) -> bool:
    if isinstance(value, dict):
        return depth < 3 and all(isinstance(k, str) and _numbers_only(v, depth + 1) for k, v in value.items())
    if isinstance(value, list):
        return depth < 3 and len(value) <= 16 and all(_numbers_only(v, depth + 1) for v in value)
    return type(value) in (int, float) and math.isfinite(value)
