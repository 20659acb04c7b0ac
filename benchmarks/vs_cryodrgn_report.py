"""The table and the figure of `vs_cryodrgn.py`: python benchmarks/vs_cryodrgn_report.py makes both anew.

Reads benchmarks/results/vs_cryodrgn.json, prints the README's tables, writes the .png beside it.
"""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS

import cryotwin_nb as ct
from cryotwin_nb.plotting import style


def table(results: dict) -> str:
    """The README's tables, in Markdown: quality, then speed."""
    target = results["cryodrgn"]["FSC area"] if "cryodrgn" in results else 1.0
    lines = [
        "| | training, s | to cryoDRGN's FSC area, s | FSC area | mean R² | isometry r, all and active directions "
        "| KL, nats | peak memory, GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, leg in results.items():
        if isinstance(leg, dict) and "FSC area" in leg:
            reached = next((f"{s:.0f}" for s, area in leg["curve"] if area >= target), "never")
            r = f"{leg['isometry r']:.2f}, {leg['isometry r, active subspace']:.2f}"
            cells = [
                f"{leg['seconds']:.0f}",
                reached,
                f"{leg['FSC area']:.3f}",
                f"{np.mean(list(leg['R2'].values())):.3f}",
            ]
            cells += [r, f"{leg['KL, nats']:.3f}", f"{leg['peak memory, GiB']:.2f}"]
            lines.append(f"| {title(name, results)} | {' | '.join(cells)} |")
    if "subspace" in results:
        average = np.mean(results["subspace"]["FSC of the average"])
        lines.append(f"| the average map | | | {average:.3f} | | | | |")
    lines += ["", "| | images per second |", "|---|---|"]
    for name, leg in results.items():
        if isinstance(leg, dict) and "images per second" in leg:
            lines += [f"| {title(name, results)}, {what} | {v:.1f} |" for what, v in leg["images per second"].items()]
    return "\n".join(lines)


def title(leg: str, results: dict) -> str:
    """How a leg is called in tables and figures."""
    if leg == "cryodrgn":
        return f"cryoDRGN {results['versions']['cryoDRGN']}, 256 wide, {results[leg]['epochs']} epochs"
    return {"cryodrgn-defaults": "cryoDRGN, defaults"}.get(leg, leg)


@style.styled
def draw(results: dict) -> plt.Figure:
    """FSC area against seconds, and the final FSC; one legend for both.

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
    left.set(xscale="log", xlabel="training (s)", ylabel="FSC area against the truth of single images")
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
