"""Profile of a path, drawn below the maps: log density, particles near each step, and the current step.

If the support by images was computed, a separate panel shows the half-map resolution at each step, finest on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cryotwin_nb.pathways import PathProfile

_WIDTH, _HEIGHT = 900, 158
_LEFT, _RIGHT, _TOP, _MIDDLE, _BOTTOM = 62, 30, 20, 88, 124  # margins and edges of the two panels
_STRIP = 62  # height of the optional panel between them
_BLUE, _GREEN, _PINK, _ORANGE, _INK = "#0072b2", "#009e73", "#cc79a7", "#b04a00", "#333"


def profile_svg(profile: PathProfile, step: int, support: Any = None) -> str:
    """Draw, as SVG, the log density along the path and, below it, the number of particles near each point.

    `support`, if given, has the attributes `resolution` (K+1,) of half maps, Å, and `n_effective` (K+1,).
    """
    length, at = profile.position[-1], profile.step_position

    def x(position: np.ndarray) -> np.ndarray:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * np.asarray(position) / max(length, 1e-12)

    here, below = x(at), 0 if support is None else _STRIP
    parts = [
        f'<line class="here" x1="{here[step]:.1f}" y1="{_TOP}" x2="{here[step]:.1f}" y2="{_BOTTOM + below}"'
        f' stroke="{_PINK}" stroke-width="2"/>',
        _text(_WIDTH - _RIGHT, _TOP - 8, f"particles within {profile.radius:.2g} latent units", "end", _GREEN),
        *_density(here, x(np.linspace(0, length, 300)), profile, step),
        *([] if support is None else _resolutions(here, support)),
        f'<g transform="translate(0 {below})">',
        *_counts(here, profile, step),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, f"step (path length: {length:.3g} latent units)", "middle"),
        "</g>",
    ]
    style = "width:100%;max-width:1000px;height:auto;font:11px sans-serif;display:block"
    box = f"0 0 {_WIDTH} {_HEIGHT + below}"
    return f'<svg viewBox="{box}" style="{style}" class="cryotwin-profile">{"".join(parts)}</svg>'


def support_lines(support: Any, step: int) -> list[str]:
    """Return what the support by images found, on the path and at a step, as text; empty if it has no `findings`."""
    if not hasattr(support, "findings"):
        return []
    return [support.verdict, *(f"step {step}: {finding}" for finding in support.findings(step))]


def _density(here: np.ndarray, across: np.ndarray, profile: PathProfile, step: int) -> list[str]:
    """Draw the log density with a dot at each step, and its axis on the left."""
    value, at = -profile.energy, profile.step_position
    low, high = float(value.min()), float(value.max())
    heights = _height(np.interp(np.linspace(0, profile.position[-1], len(across)), profile.position, value), low, high)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, heights))
    parts = [
        _line(_LEFT, _TOP, _LEFT, _MIDDLE),
        _text(_LEFT - 18, _TOP + 4, f"{round(high, 1) + 0.0:.1f}", "end"),
        _text(_LEFT - 18, _MIDDLE, f"{low:.1f}", "end"),
        _text(_LEFT + 6, _TOP - 8, "log density relative to the start (nats)", "start", _BLUE),
        f'<polyline points="{points}" fill="none" stroke="{_BLUE}" stroke-width="2"/>',
    ]
    for k, (a, b) in enumerate(zip(here, _height(np.interp(at, profile.position, value), low, high))):
        fill = _PINK if k == step else "white"
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{fill}" stroke="{_INK}"/>')
    return parts


def _counts(here: np.ndarray, profile: PathProfile, step: int) -> list[str]:
    """Draw a bar and a count for each step, and the step numbers below."""
    counts = profile.counts
    wide = min(26.0, 0.7 * float(np.diff(here).min())) if len(here) > 1 else 26.0
    tall = (_BOTTOM - _MIDDLE - 16) * counts / max(int(counts.max()), 1)
    parts = [_line(_LEFT, _BOTTOM, _WIDTH - _RIGHT, _BOTTOM)]
    for k, (a, up, count) in enumerate(zip(here, tall, counts)):
        box = f'x="{a - wide / 2:.1f}" y="{_BOTTOM - up:.1f}" width="{wide:.1f}" height="{up:.1f}"'
        parts.append(f'<rect {box} fill="{_GREEN}"/>')
        parts.append(_text(a, _BOTTOM - up - 3, str(count), "middle"))
        parts.append(_text(a, _BOTTOM + 13, str(k), "middle", weight="bold" if k == step else "normal"))
    return parts


def _resolutions(here: np.ndarray, support: Any) -> list[str]:
    """Draw a diamond and a number for each step that has a resolution, finest on top, between the two panels."""
    resolution, images = np.asarray(support.resolution, float), np.asarray(support.n_effective, float)
    top, bottom = _MIDDLE + 26, _MIDDLE + _STRIP - 10
    parts = [
        _text(_LEFT - 18, (top + bottom) / 2 + 4, "Å", "end", _ORANGE),
        _text(0.46 * _WIDTH, _TOP - 8, "resolution of half maps (Å, FSC 0.143)", "middle", _ORANGE),
    ]
    known = np.flatnonzero(np.isfinite(resolution))
    if len(known):
        coarse, fine = resolution[known].max(), resolution[known].min()
        heights = bottom - (bottom - top) * (coarse - resolution) / max(coarse - fine, 1e-12)
    for k in known:
        a, b = here[k], heights[k]
        if k + 1 in known:
            ends = f'x1="{a:.1f}" y1="{b:.1f}" x2="{here[k + 1]:.1f}" y2="{heights[k + 1]:.1f}"'
            parts.append(f'<line {ends} stroke="{_ORANGE}" stroke-dasharray="4 3"/>')
        tip = f"<title>step {k}: {resolution[k]:.1f} Å from {images[k]:.0f} images</title>"
        corners = f"{a:.1f},{b - 5:.1f} {a + 5:.1f},{b:.1f} {a:.1f},{b + 5:.1f} {a - 5:.1f},{b:.1f}"
        parts.append(f'<polygon points="{corners}" fill="{_ORANGE}">{tip}</polygon>')
        parts.append(_text(a, b - 8, f"{resolution[k]:.1f}", "middle"))
    return parts


def _height(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Convert values to y coordinates in the upper panel."""
    return _MIDDLE - (_MIDDLE - _TOP) * (np.asarray(value) - low) / max(high - low, 1e-12)


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="{_INK}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = _INK, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">{text}</text>'
