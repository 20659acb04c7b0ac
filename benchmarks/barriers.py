"""Barriers measured by counting images, against known densities: accuracy, dead directions, coverage of intervals.

Latents are drawn from double wells along a curve, with a spread across it and a different error for each image.

    python benchmarks/barriers.py [--simulations 100]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from common import machine, write_results

import cryotwin_nb as ct


@dataclass(frozen=True)
class Planted:
    """Two states on a line or an arc, with a known density along it.

    Attributes
    ----------
    barrier : float
        True barrier, nats.
    live, dead : int
        Directions in which structures differ; directions in which they do not.
    bend : float
        Angle of the arc, radians; 0 is a straight line.
    width, widening : float
        Standard deviation across the curve at the wells, and its ratio at the barrier to that.
    wells : str
        "quartic" for one smooth potential, "gaussian" for two Gaussians.
    error : tuple of float
        Smallest and largest standard error of an image in a direction.
    """

    barrier: float
    live: int = 2
    dead: int = 0
    bend: float = 0.0
    width: float = 0.15
    widening: float = 1.0
    wells: str = "quartic"
    error: tuple[float, float] = (0.05, 0.25)

    def density(self) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (M,) along the curve, with wells at -1 and 1, and the density there."""
        s = np.linspace(-2.6, 2.6, 8001)
        if self.wells == "quartic":
            energy = self.barrier * (s**2 - 1) ** 2
        else:  # the density at 0 is 2 exp(-1 / (2 width^2)) of that at the wells
            width = np.sqrt(0.5 / (self.barrier + np.log(2)))
            energy = -np.logaddexp(-((s - 1) ** 2) / (2 * width**2), -((s + 1) ** 2) / (2 * width**2))
        density = np.exp(-energy)
        return s, density / density.sum()

    def true_barrier(self) -> float:
        s, density = self.density()
        return float(np.log(density[s < 0].max() / density[(s > -1) & (s < 1)].min()))

    def point(self, s: np.ndarray, across: np.ndarray) -> np.ndarray:
        """Return points (n, live) at positions (n,) and offsets across the curve (n, live - 1)."""
        if self.bend == 0:
            return np.column_stack([s, across])
        radius = 2 / self.bend  # of the arc from -1 to 1; straight beyond
        angle = np.clip(s, -1, 1) / radius
        beyond = (s - np.clip(s, -1, 1))[:, None]
        tangent = np.column_stack([np.cos(angle), np.sin(angle)])
        normal = np.column_stack([-np.sin(angle), np.cos(angle)])
        centre = radius * np.column_stack([np.sin(angle), 1 - np.cos(angle)])
        plane = centre + beyond * tangent + across[:, :1] * normal
        return np.concatenate([plane, across[:, 1:]], axis=1)

    def curve(self) -> np.ndarray:
        s = np.linspace(-1, 1, 200)
        return np.pad(self.point(s, np.zeros((200, self.live - 1))), ((0, 0), (0, self.dead)))

    def sample(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return latents (n, d) with errors, and the covariances of the errors (n, d, d)."""
        generator = np.random.default_rng(seed)
        s, density = self.density()
        s = generator.choice(s, n, p=density)
        width = self.width * (1 + (self.widening - 1) * np.exp(-((s / 0.5) ** 2)))
        x = self.point(s, width[:, None] * generator.normal(size=(n, self.live - 1)))
        dim = self.live + self.dead
        axes = np.linalg.qr(generator.normal(size=(n, dim, dim)))[0]
        errors = np.exp(generator.uniform(*np.log(self.error), (n, 1, dim)))
        root = axes * errors
        x = np.pad(x, ((0, 0), (0, self.dead))) + np.einsum("nde,ne->nd", root, generator.normal(size=(n, dim)))
        return x, root @ root.transpose(0, 2, 1)

    def measured(self, n: int, seed: int, n_draws: int = 100) -> ct.MeasuredBarrier:
        x, noise = self.sample(n, seed)
        return ct.measure_barrier(self.curve(), x, noise, n_draws=n_draws)


def family(barrier: float) -> list[Planted]:
    """Return five densities with about this barrier."""
    return [
        Planted(barrier, live=1),
        Planted(barrier, live=2, bend=1.5),
        Planted(barrier, live=3, dead=2, widening=2.0),
        Planted(barrier, live=2, dead=6, wells="gaussian"),
        Planted(barrier, live=3, dead=1, bend=2.5, width=0.1, wells="gaussian"),
    ]


def accuracy() -> list[dict]:
    rows = []
    for barrier in (1, 2, 3, 4, 5, 6):
        n = 8_000 if barrier <= 3 else 300_000
        for number, planted in enumerate(family(barrier)):
            started = time.perf_counter()
            found = planted.measured(n, seed=number, n_draws=20)
            truth = planted.true_barrier()
            row = {"barrier": truth, "density": number, "n": n, "measured": found.value, "interval": found.interval}
            rows.append(row | {"seconds": round(time.perf_counter() - started, 1)})
            print(
                f"barrier {truth:.2f}  density {number}  n = {n:,}  {found}  error {found.value - truth:+.2f}",
                flush=True,
            )
    return rows


def with_dead(x: np.ndarray, noise: np.ndarray, dead: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same images with more directions, in which they only differ by errors of .02 to .5."""
    generator, dim = np.random.default_rng(5), x.shape[1]
    sizes = generator.uniform(0.02, 0.5, (len(x), dead))
    more = np.zeros((len(x), dim + dead, dim + dead))
    more[:, :dim, :dim] = noise
    more[:, range(dim, dim + dead), range(dim, dim + dead)] = sizes**2
    return np.concatenate([x, sizes * generator.normal(size=sizes.shape)], axis=1), more


def dead_directions() -> list[dict]:
    rows = []
    for live in (1, 2, 3):
        planted = Planted(2.5, live=live)
        x, noise = planted.sample(8_000, seed=1)
        for dead in (0, 1, 3, 5):
            curve = np.pad(planted.curve(), ((0, 0), (0, dead)))
            found = ct.measure_barrier(curve, *with_dead(x, noise, dead), n_draws=20)
            rows.append({"live": live, "dead": dead, "measured": found.value, "truth": planted.true_barrier()})
            print(f"live {live}  dead {dead}  {found}", flush=True)
    return rows


def coverage(simulations: int) -> list[dict]:
    rows = []
    for number, planted in enumerate(family(2.0)):
        results = [planted.measured(4_000, seed=100 + k) for k in range(simulations)]
        truth = planted.true_barrier()
        inside = np.mean([r.interval[0] <= truth <= r.interval[1] for r in results])
        values = np.array([r.value for r in results])
        width = np.mean([r.interval[1] - r.interval[0] for r in results])
        row = {"density": number, "coverage": float(inside), "bias": float(values.mean() - truth)}
        rows.append(row | {"deviation": float(values.std()), "width": float(width), "simulations": simulations})
        print(f"density {number}: {inside:.0%} of the 90 % intervals contain the truth; {rows[-1]}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=100)
    options = parser.parse_args()
    results = {"machine": machine(), "accuracy": accuracy(), "dead": dead_directions()}
    write_results("barriers", results | {"coverage": coverage(options.simulations)})


if __name__ == "__main__":
    main()
