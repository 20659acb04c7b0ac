"""Regenerate the tables and the figure of `vs_cryodrgn.py`: python benchmarks/vs_cryodrgn_report.py.

Reads benchmarks/results/vs_cryodrgn.json, prints the README's tables, writes the .png beside it.
"""

from __future__ import annotations

import json
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS

import cryotwin_nb as ct
from cryotwin_nb.plotting import style


def table(results: dict) -> str:
    """Return the README's tables, in Markdown: quality, then time, then speed."""
    legs = {title(n, results): leg for n, leg in results.items() if isinstance(leg, dict) and "FSC area" in leg}
    lines = [f"| | {' | '.join(legs)} |", "|---" * (len(legs) + 1) + "|"]
    rows = {
        "per-image FSC with the truth, mean over shells": lambda leg: with_interval(leg, "FSC area"),
        "isometry r, random directions": lambda leg: with_interval(leg, "isometry r"),
        "isometry r, active subspace": lambda leg: with_interval(leg, "isometry r, active subspace"),
        "relaxed distortion, active subspace": lambda leg: f"{leg['relaxed distortion, active subspace']:.2f}",
        "KL by KLIEP, nats (five seeds)": lambda leg: number_and_range(leg["KL, nats"], leg["KL, range of five seeds"]),
        "KL, lower bound by held-out likelihood, nats": lambda leg: f"{leg['KL at least, nats']:.2f}",
        **{f"kNN R², {name}": partial(r2, name) for name in next(iter(legs.values()))["R2"]},
        "training, s": lambda leg: f"{leg['seconds']:.0f}",
        "time to reach cryoDRGN's FSC, s": lambda leg: reached(leg, results),
        "peak memory, GiB": lambda leg: f"{leg['peak memory, GiB']:.2f}",
    }
    for name, cell in rows.items():
        lines.append(f"| {name} | {' | '.join(cell(leg) for leg in legs.values())} |")
    if "subspace" in results:
        lines.append(f"\nFSC of the average map alone: {np.mean(results['subspace']['FSC of the average']):.3f}.")
    lines += ["", "| | images per second |", "|---|---|"]
    for name, leg in results.items():
        if isinstance(leg, dict) and "images per second" in leg:
            lines += [f"| {title(name, results)}, {what} | {v:.1f} |" for what, v in leg["images per second"].items()]
    return "\n".join(lines)


def with_interval(leg: dict, name: str) -> str:
    """Return a figure of merit with its 95 % interval."""
    return number_and_range(leg[name], leg[f"{name}, interval"])


def r2(name: str, leg: dict) -> str:
    return number_and_range(leg["R2"][name], leg["R2, intervals"][name])


def number_and_range(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}–{interval[1]:.3f})"


def reached(leg: dict, results: dict) -> str:
    """Return the seconds of training until cryoDRGN's final FSC area is reached."""
    target = results["cryodrgn"]["FSC area"] if "cryodrgn" in results else 1.0
    return next((f"{s:.0f}" for s, area in leg["curve"] if area >= target), "never")


def title(leg: str, results: dict) -> str:
    """Return the name of a leg in tables and figures."""
    if leg == "cryodrgn":
        return f"cryoDRGN {results['versions']['cryoDRGN']}, 256 wide, {results[leg]['epochs']} epochs"
    return {"cryodrgn-defaults": "cryoDRGN, defaults"}.get(leg, leg)


@style.styled
def draw(results: dict) -> plt.Figure:
    """Plot FSC area against seconds, and the final FSC, with one legend for both.

    The subspace falls below the average map, its first point, while its passes are limited to low resolution.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
    legs = {name: leg for name, leg in results.items() if isinstance(leg, dict) and "curve" in leg}
    for leg in legs.values():
        left.plot(*zip(*leg["curve"]), "o-", ms=3)
    curves = {title(name, results): leg["FSC"] for name, leg in legs.items()}
    if "subspace" in legs:
        curves["the average map"] = legs["subspace"]["FSC of the average"]
        left.axhline(np.mean(curves["the average map"]), color=style.COLOURS[len(legs)], zorder=0)
    left.set(xscale="log", xlabel="training (s)", ylabel="FSC area of single images against the truth")
    size, pixel = results["settings"]["box_size"], results["settings"]["pixel_size"]
    frequency = np.arange(1, size // 2 + 1) / (size * pixel)
    ct.plotting.fsc_curves([ct.FscCurve(frequency, np.array(c)) for c in curves.values()], list(curves), None, right)
    return figure


def report() -> None:
    """Print the tables and write the figure."""
    results = json.loads((RESULTS / "vs_cryodrgn.json").read_text())
    print(table(results))
    draw(results).savefig(RESULTS / "vs_cryodrgn.png", dpi=130)


if __name__ == "__main__":
    report()
