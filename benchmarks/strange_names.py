"""Names of states, labels, titles, columns and files that have a meaning elsewhere, for `numeric_faults`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from strange_images import Case, simulated
from strange_latents import decode, prior

import cryotwin_nb as ct

NAMES: tuple[Any, ...] = (
    *("", " ", "\n", "\t", "\0", "\x1b[31m", "\ud800", "a\u202eb", "e\u0301", "\U0001f9ec", "名前", "$", "$x$"),
    *("$\\frac{$", "\\", "\\textbf{", "a,b", 'a"b', "a'b", "a;b", "#1", "@", "a/b", "../x", ".", "..", "-x", "<b>"),
    *("{0}", "%s", "NaN", "x" * 10_000, None, 5, 5.5, float("nan"), b"bytes", ("a", "b"), np.str_("a"), True),
)


def of_names() -> Iterator[Case]:
    """Yield each name as that of a state, a label, a title, a column and a file."""
    z = prior().sample(60)

    def drawn(figure: Any) -> None:
        plt.gcf().canvas.draw()

    def explore(name: Any) -> None:
        explorer = ct.PathwayExplorer(prior(), z, decode, 5.0, labels={0: name, 1: "b"})
        explorer.choose(0, 1).compute()
        explorer.figure().canvas.draw()

    def explore_columns(name: Any) -> None:
        ct.PathwayExplorer(prior(), z, decode, 5.0, columns={name: np.arange(60)})

    def naming(name: Any) -> None:
        ct.name_components(prior(), decode, "names.json", {0: name}, n_shown=2, size=20)

    def montage(name: Any) -> None:
        drawn(ct.plotting.map_montage(decode(z[:2]), 5.0, [name, "b"], size=20))

    def movie(name: Any) -> None:
        ct.plotting.write_movie("m.gif", decode(z[:2]), 5.0, titles=[name, "b"], size=24, n_between=0)

    def add_column(name: Any) -> None:
        particles = simulated(60)
        particles.write("a.star", progress=False)
        read = ct.Particles.read("a.star", contrast="dark")
        ct.write_selection("b.star", read, [0, 1], columns={name: np.arange(2)})

    def output(name: Any) -> None:
        simulated(4).write(Path(tempfile.mkdtemp()) / f"{name}.star", progress=False)

    def write_labels(name: Any) -> None:
        ct.evaluation.write_labels("labels.json", {0: name})
        ct.evaluation.read_labels("labels.json", prior())

    uses = {
        "explorer label": explore,
        "explorer column": explore_columns,
        "naming": naming,
        "scatter label": lambda name: drawn(ct.plotting.latent_scatter(z, prior(), labels=[name] * 60)),
        "scatter colour label": lambda name: drawn(ct.plotting.latent_scatter(z, colour=z[:, 0], colour_label=name)),
        "montage title": montage,
        "curve label": lambda name: drawn(
            ct.plotting.fsc_curves([ct.fsc(decode(z[:1])[0], decode(z[1:2])[0], 2.0)], [name])
        ),
        "movie title": lambda name: ct.plotting.write_movie(
            "m.gif", decode(z[:2]), 5.0, titles=[name, "b"], size=24, n_between=0
        ),
        "selection column": add_column,
        "label file": write_labels,
        "output": output,
        "map": lambda name: ct.write_map(Path(tempfile.mkdtemp()) / f"{name}.mrc", torch.ones(8, 8, 8).numpy(), 2.0),
        "occupancy": lambda name: drawn(ct.plotting.occupancy_along_path(torch.rand(5, 2), [name, "b"])),
        "state": lambda name: ct.select_state(z, prior(), name),
        "contrast": lambda name: ct.Particles(np.ones((2, 8, 8)), pixel_size=2.0, contrast=name) and None,
        "architecture": lambda name: ct.CryoTwin(16, architecture=name) and None,
    }
    for verb, use in uses.items():
        for name in NAMES:
            shown = repr(name)[:30]
            yield f"name of {verb}: {shown}", lambda use=use, name=name: use(name)
