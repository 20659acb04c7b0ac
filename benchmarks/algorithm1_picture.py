"""Picture of the results of `algorithm1_map.py`."""

from __future__ import annotations

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from algorithm1_judge import FINE_CONCENTRATIONS, FINE_FLOORS, FINE_OMEGAS, LEAST, SLACK
from common import RESULTS

from cryotwin_nb import plotting
from cryotwin_nb.plotting.style import styled


@styled
def draw(results: dict) -> None:
    """Draw the map of the grid, the mechanism and the confirmation to results/algorithm1.svg and .png."""
    figure, ax = plt.subplots(2, 2, figsize=(10, 8))
    _draw_lines(ax[0], results)
    _draw_fine(ax[1, 0], results["fine"])
    _draw_confirmed(ax[1, 1], results.get("confirmed", []))
    for label, panel in zip("abcd", ax.flat, strict=True):
        title = f"{label}  {panel.get_title()}"
        panel.set_title("")
        panel.set_title(title, loc="left", fontweight="bold", fontsize=9, pad=18 if label == "c" else 6)
    for suffix in ("svg", "png"):
        figure.savefig(RESULTS / f"algorithm1.{suffix}", dpi=130)


def _draw_lines(ax: np.ndarray, results: dict) -> None:
    """Draw barrier and number of latents against spacing / noise, with omega and concentration as printed."""
    rows = [*results["fine"], *(row for row in results["grid"] if row["training"] == "rate")]
    rows = [row for row in rows if row["components"] == 100 and row["ends"] and row["n"] == 8000]
    kinds = {
        "EM, mean of five seeds": ("EM", 0.07, 0.0),
        "the same, floor 0.2": ("EM", 0.07, 0.2),
        "the paper's scheme, one seed": ("rate", 0.07, 0.0),
    }
    for number, (name, kind) in enumerate(kinds.items()):
        own = [row for row in rows if (row["training"], row["width"], row["floor"]) == kind]
        for panel, of in ((ax[0], "barrier"), (ax[1], "least")):
            points = []
            for snr in sorted({row["snr"] for row in own}):
                same = [row for row in own if row["snr"] == snr]
                paths = [next(p for p in row["paths"] if (p["omega"], p["concentration"]) == (2, 1)) for row in same]
                less = [row["route"] if of == "barrier" else 0 for row in same]
                values = [
                    [p[of] - zero, row["straight"][of] - zero] for p, row, zero in zip(paths, same, less, strict=True)
                ]
                points.append([np.mean([row["spacing / noise"] for row in same]), *np.mean(values, axis=0)])
            x, path, straight = np.array(points).T
            colour = plotting.COLOURS[number]
            panel.plot(x, path, "o-", color=colour, ms=4, label=name)
            panel.plot(x, straight, ":", color=colour, lw=1.5)
    x = np.linspace(1.5, 11.5, 100)
    best = results["geometry"]["2"]["largest distance from the route, at best"]
    ax[0].plot(x, (best * x) ** 2 / 2, "--", color="0.5", label="0.54 spacings off the route")
    ax[0].axhline(SLACK, color="0.5", lw=0.8)
    ax[0].set(title="Barrier above that of the planted route", xlabel="spacing of the states / noise",
              ylabel="nats", ylim=(-1, 36))  # fmt: skip
    ax[1].axhline(LEAST, color="0.5", lw=0.8)
    ax[1].set(title="Latents at the emptiest point of the path", ylabel="latents")
    ax[1].set_xlabel("spacing of the states / noise")
    ax[1].set_yscale("symlog", linthresh=1)
    ax[1].set_ylim(-0.2, 600)
    ax[0].legend(title="Algorithm 1 as printed (dotted: straight line)", title_fontsize=8, loc="upper left")


def _draw_fine(ax: plt.Axes, rows: list) -> None:
    """Draw how many of five trainings follow the route, for each choice, floor and signal-to-noise ratio."""
    rows = [row for row in rows if row["components"] == 100]
    choices = [(0.0, 0.0), *product(FINE_CONCENTRATIONS, FINE_OMEGAS)]  # the first is the straight line
    columns = sorted({(-row["snr"], row["floor"]) for row in rows})
    counts = np.zeros((len(choices), len(columns)))
    for row in rows:
        column = columns.index((-row["snr"], row["floor"]))
        counts[0, column] += row.get("straight", {}).get("follows", False)
        for p in row.get("paths", []):
            counts[choices.index((p["concentration"], p["omega"])), column] += p["follows"]
    ax.imshow(counts, cmap="Blues", vmin=0, vmax=6, aspect="auto")
    for (y, x), count in np.ndenumerate(counts):
        ax.text(x, y, f"{count:.0f}", ha="center", va="center", fontsize=7, color="w" if count > 3 else "0.2")
    width = len(FINE_FLOORS)
    for place, snr in enumerate(dict(columns)):
        ratio = np.mean([row["spacing / noise"] for row in rows if row["snr"] == -snr])
        ax.text(width * (place + 0.5) - 0.5, -0.8, f"ratio {ratio:.1f}", ha="center", va="bottom", fontsize=7)
        ax.axvline(width * place - 0.5, color="0.7", lw=0.8)
    for place in range(len(FINE_CONCENTRATIONS)):
        ax.axhline(place * len(FINE_OMEGAS) + 0.5, color="0.7", lw=0.8)
    ax.set_xticks(range(len(columns)), [f"{floor:g}" for _, floor in columns], fontsize=7)
    names = ["straight line", *(f"Dirichlet({c:g}), ω = {omega:g}" for c, omega in choices[1:])]
    ax.set_yticks(range(len(choices)), names, fontsize=7)
    ax.set_xlabel("floor added to the covariances (spacings)")
    ax.set(title="Trainings, of five, that follow (EM, C = 100)")


def _draw_confirmed(ax: plt.Axes, rows: list) -> None:
    """Draw how many of 25 paths follow the route on new sets, against the number of straight lines that do."""
    ratios = sorted({round(row["spacing / noise"], 1) for row in rows})
    for number, ratio in enumerate(ratios):
        own = [row for row in rows if round(row["spacing / noise"], 1) == ratio]
        lines = np.array([row["straight lines that follow"] for row in own]) + 0.07 * (number - len(ratios) / 2)
        colour = plotting.COLOURS[number]
        ax.plot(lines, [row["paths"] for row in own], "o", color=colour, ms=5, label=f"ratio {ratio:g}")
    ax.axhline(20, color="0.5", ls="--", lw=0.8)
    ax.set(title="New sets (seeds 10 to 14), one point for each setting", xlim=(-0.5, 5.5), ylim=(-1, 26))
    ax.set(xlabel="straight lines that follow, of 5", ylabel="paths of Algorithm 1 that follow, of 25")
    ax.legend(loc="upper left")
