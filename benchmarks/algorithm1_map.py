"""Where Algorithm 1 of the paper follows a planted route from C2 to E4: python benchmarks/algorithm1_map.py PART ... .

The latents of `assembly` are made without images (`algorithm1_latents.py`). The parts, stored in
benchmarks/results/algorithm1.json:

geometry    how close to the planted route a path of Algorithm 1 can pass if all components have equal covariances
candidates  how far the candidates lie from the latents, by width of the components, concentration and omega
grid        one training and one sampling seed for each setting; --components and --snr restrict it
fine        priors by EM, more choices of omega and concentration, with training and sampling seeds 0 to 4
confirm     the best settings of both, on new sets with training and sampling seeds 10 to 14, 25 paths for each

A path follows the route (K = 11, M = 1000) if all of these hold: start and end are C2 and E4; the blocks pass half
occupancy in a planted order, each at a step of its own, while the base stays and H68 stays away; at each point at least
20 latents lie within 1.5 times the median distance of a latent from its 20th neighbour; and the barrier is at most 3
nats above that of `max_flux` (in the grid, to save time, above that of the planted route, drawn as straight pieces).
Occupancies along a path are a linear regression of the true ones on the latents. All parts take about half an hour.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product

import numpy as np
from algorithm1_judge import (
    CONCENTRATIONS,
    FINE_CONCENTRATIONS,
    FINE_FLOORS,
    FINE_OMEGAS,
    FLOORS,
    LEAST,
    OMEGAS,
    Judge,
    Setting,
    examined,
    priors,
)
from algorithm1_latents import SNRS, simulated
from algorithm1_mechanism import candidates, geometry
from algorithm1_picture import draw
from common import RESULTS, machine, write_results

_EM = Setting(0.1), Setting(0.1, floor=0.07)
CONFIRM = {
    Setting(0.1, training="rate"): [(1.2, 1.0), (2.0, 1.0)],
    _EM[0]: [(1.2, 1.0), (2.0, 1.0), (4.0, 1.0)],
    _EM[1]: [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.05, floor=0.2): [(1.2, 1.0), (4.0, 1.0)],
    Setting(0.05, floor=0.4): [(1.2, 1.0), (4.0, 1.0)],
    Setting(0.05, training="rate", width=0.2): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.1, 30): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.1, 30, floor=0.2): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.1, 30, "rate", 0.2): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.05, 30): [(1.2, 1.0), (4.0, 1.0)],
    Setting(0.05, 30, "rate"): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.2, 30, "rate"): [(1.2, 0.01), (2.0, 0.01)],
    Setting(0.02): [(1.2, 1.0), (2.0, 1.0), (4.0, 1.0)],
    Setting(0.02, training="rate", width=0.2): [(1.2, 1.0), (2.0, 1.0), (4.0, 1.0)],
}  # taken from the grid


def _settings(snr: float, components: int, n: int) -> list[Setting]:
    few = components > 100 or snr >= 0.2 or n > 8000
    widths, kept = ((0.07,), (0.0, 0.2)) if few else ((0.07, 0.2), FLOORS)
    settings = [Setting(snr, components, floor=floor, n=n) for floor in kept]
    for width in widths:
        settings += [Setting(snr, components, "rate", width, floor, n) for floor in (0.0, width)]
    if not few:
        settings += [Setting(snr, components, "rate, then EM", 0.07, floor, n) for floor in (0.0, 0.2)]
    return settings


def grid(snrs: list[float], components: list[int], n: int, stored: list) -> Iterator[list]:
    """Yield the rows of the grid, with those already stored, after each prior."""
    new = {(snr, count, n) for snr, count in product(snrs, components)}
    rows = [row for row in stored if (row["snr"], row["components"], row["n"]) not in new]
    for count, snr in product(components, snrs):
        latents = simulated(n, snr, 0)
        judge, started = Judge(latents), time.perf_counter()
        choices = list(product(OMEGAS, CONCENTRATIONS))
        for setting, prior in priors(latents, _settings(snr, count, n), 0):
            row = vars(setting) | {"spacing / noise": round(latents.spacing / latents.noise, 2)}
            rows.append(row | examined(latents, judge, prior, choices, [0], False))
            passed = [(p["omega"], p["concentration"]) for p in rows[-1].get("paths", []) if p.get("follows")]
            best = min((p["barrier"] for p in rows[-1].get("paths", [])), default=None)
            straight = rows[-1].get("straight", {}).get("barrier")
            print(vars(setting), "barriers", best, rows[-1].get("route"), straight, "follow:", passed, flush=True)
            yield rows
        print(f"{time.perf_counter() - started:.0f} s", flush=True)


def repeated(
    choices: dict[Setting, list[tuple[float, float]]], seeds: range, stored: list, reference: bool
) -> Iterator[list]:
    """Yield the rows of settings on sets and trainings of several seeds, each with samples of all, or only its own."""
    rows = list(stored)
    done = {(json.dumps(_of(row)), row["training seed"]) for row in rows}
    groups: dict[tuple, list[Setting]] = {}
    for setting in choices:
        groups.setdefault((setting.n, setting.snr, setting.components), []).append(setting)
    for ((n, snr, _), members), seed in product(groups.items(), seeds):
        left = [s for s in members if (json.dumps(vars(s)), seed) not in done]
        if not left:
            continue
        latents = simulated(n, snr, seed)
        judge = Judge(latents)
        for setting, prior in priors(latents, left, seed):
            row = vars(setting) | {"spacing / noise": round(latents.spacing / latents.noise, 2)}
            samples = list(seeds) if reference else [seed]
            measured = examined(latents, judge, prior, choices[setting], samples, reference)
            rows.append(row | {"training seed": seed} | measured)
            follow = [(p["omega"], p["concentration"]) for p in measured.get("paths", []) if p["follows"]]
            print(vars(setting), seed, "straight", measured.get("straight"), "follow", follow, flush=True)
            yield rows


def _of(row: dict) -> dict:
    return {name: row[name] for name in Setting.__dataclass_fields__}


def _mean(rows: list, name: str) -> float | None:
    return round(float(np.mean([row[name] for row in rows])), 3) if rows else None


def confirmed(rows: list) -> list:
    """Return, for each setting and choice, how many trainings and paths follow the route, and the straight line's."""
    found = []
    keys = {json.dumps(_of(row)) for row in rows}
    for key in sorted(keys):
        own = [row for row in rows if json.dumps(_of(row)) == key]
        choices = sorted({(p["omega"], p["concentration"]) for row in own for p in row.get("paths", [])})
        for omega, concentration in choices:
            chosen = [
                [p for p in row.get("paths", []) if (p["omega"], p["concentration"]) == (omega, concentration)]
                for row in own
            ]
            follow = [sum(p["follows"] for p in paths) for paths in chosen]
            every = [p for paths in chosen for p in paths]
            lines = [row["straight"] for row in own if row["ends"]]
            found.append(json.loads(key) | {
                "omega": omega,
                "concentration": concentration,
                "spacing / noise": round(float(np.mean([row["spacing / noise"] for row in own])), 2),
                "trainings": len(own),
                "trainings with C2 and E4": len(lines),
                "paths that follow, by training": follow,
                "paths": sum(follow),
                "paths in order at steps of their own": sum(p["ordered"] for p in every),
                "paths with 20 latents at each point": sum(p["least"] >= LEAST for p in every),
                "straight lines that follow": sum(line["follows"] for line in lines),
                "mean barrier": _mean(every, "barrier"),
                "mean barrier, straight line": _mean(lines, "barrier"),
                "mean distance of the route, in units of the spacing": _mean(every, "from route"),
                "mean distance of the route from the straight line": _mean(lines, "from route"),
"trainings with most paths": (most := sum(2 * n > 5 for n in follow)),
                "regime": most >= 4 and sum(follow) >= 20 and sum(line["follows"] for line in lines) < most,
            })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=("geometry", "candidates", "grid", "fine", "confirm", "draw"))
    parser.add_argument("--snr", type=float, nargs="+", default=list(SNRS))
    parser.add_argument("--components", type=int, nargs="+", default=[30, 100, 300])
    parser.add_argument("--n", type=int, default=8000)
    arguments = parser.parse_args()
    file = RESULTS / "algorithm1.json"

    def store(**new: object) -> None:
        old = json.loads(file.read_text()) if file.exists() else {}
        write_results("algorithm1", old | new | {"machine": machine()})

    stored = json.loads(file.read_text()) if file.exists() else {}
    for part in arguments.parts:
        if part in ("geometry", "candidates"):
            store(**{part: {"geometry": geometry, "candidates": candidates}[part]()})
        elif part == "grid":
            for rows in grid(arguments.snr, arguments.components, arguments.n, stored.get("grid", [])):
                store(grid=rows)
        elif part == "fine":
            settings = [
                Setting(*of) for of in product(arguments.snr, arguments.components, ["EM"], [0.07], FINE_FLOORS)
            ]
            chosen = {key: list(product(FINE_OMEGAS, FINE_CONCENTRATIONS)) for key in settings}
            for rows in repeated(chosen, range(5), stored.get("fine", []), reference=False):
                store(fine=rows)
        elif part == "confirm":
            chosen = {s: c for s, c in CONFIRM.items() if s.snr in arguments.snr}
            for rows in repeated(chosen, range(10, 15), stored.get("confirm", []), reference=True):
                store(confirm=rows, confirmed=confirmed(rows))
        else:
            draw(json.loads(file.read_text()))


if __name__ == "__main__":
    main()
