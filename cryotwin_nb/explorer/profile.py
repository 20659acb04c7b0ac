"""What a path passes, as a small drawing beneath the maps: log density, particles near each step, the current step."""

from __future__ import annotations

import numpy as np

from cryotwin_nb.pathways import PathProfile

_WIDTH, _HEIGHT = 900, 158
_LEFT, _RIGHT, _TOP, _MIDDLE, _BOTTOM = 62, 30, 20, 88, 124  # edges of the two panels
_BLUE, _GREEN, _PINK, _INK = "#0072b2", "#009e73", "#cc79a7", "#333"


def profile_svg(profile: PathProfile, step: int) -> str:
    """An SVG drawing: above the log density along the path, below the particles near each of its points."""
    length, at = profile.position[-1], profile.step_position

    def x(position: np.ndarray) -> np.ndarray:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * np.asarray(position) / max(length, 1e-12)

    value = -profile.energy
    low, high = float(value.min()), float(value.max())

    def y(v: np.ndarray) -> np.ndarray:
        return _MIDDLE - (_MIDDLE - _TOP) * (np.asarray(v) - low) / max(high - low, 1e-12)

    corners = np.linspace(0, length, 300)
    heights = y(np.interp(corners, profile.position, value))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x(corners), heights))
    counts, here = profile.counts, x(at)
    wide = min(26.0, 0.7 * float(np.diff(here).min())) if len(here) > 1 else 26.0
    tall = (_BOTTOM - _MIDDLE - 16) * counts / max(int(counts.max()), 1)
    parts = [
        _line(_LEFT, _TOP, _LEFT, _MIDDLE),
        _line(_LEFT, _BOTTOM, _WIDTH - _RIGHT, _BOTTOM),
        _text(_LEFT - 18, _TOP + 4, f"{round(high, 1) + 0.0:.1f}", "end"),
        _text(_LEFT - 18, _MIDDLE, f"{low:.1f}", "end"),
        _text(_LEFT + 6, _TOP - 8, "log density, from the start (nats)", "start", _BLUE),
        _text(_WIDTH - _RIGHT, _TOP - 8, f"particles up to {profile.radius:.2g} latent units away", "end", _GREEN),
        f'<line class="here" x1="{here[step]:.1f}" y1="{_TOP}" x2="{here[step]:.1f}" y2="{_BOTTOM}" stroke="{_PINK}"'
        ' stroke-width="2"/>',
        f'<polyline points="{points}" fill="none" stroke="{_BLUE}" stroke-width="2"/>',
    ]
    for k, (a, count) in enumerate(zip(here, counts)):
        b = float(y(np.interp(at[k], profile.position, value)))
        fill = _PINK if k == step else "white"
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{fill}" stroke="{_INK}"/>')
        parts.append(
            f'<rect x="{a - wide / 2:.1f}" y="{_BOTTOM - tall[k]:.1f}" width="{wide:.1f}" height="{tall[k]:.1f}"'
            f' fill="{_GREEN}"/>'
        )
        parts.append(_text(a, _BOTTOM - tall[k] - 3, str(count), "middle"))
        parts.append(_text(a, _BOTTOM + 13, str(k), "middle", weight="bold" if k == step else "normal"))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 6, f"step (path of {length:.3g} latent units)", "middle"))
    style = "width:100%;max-width:1000px;height:auto;font:11px sans-serif;display:block"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" style="{style}" class="cryotwin-profile">{"".join(parts)}</svg>'


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="{_INK}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = _INK, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">{text}</text>'
