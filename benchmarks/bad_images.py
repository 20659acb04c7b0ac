"""A few bad images among good ones: python benchmarks/bad_images.py [--images 5] [--seeds 3] [--only PART].

`hinge` images of 24 px are trained on as they are, and with bad images: hot pixels, other scales, gradients, edges and
constant images. The number of components, the held-out R^2 of the hinge angles and the named images are compared with
those of the good images. Half of the images are also multiplied by a factor, with and without an optics group of their
own. The first look is compared in the same way, and standard sets are searched for good images that are set aside.
The purity of components and the number of states are compared with one bad image among 3,000 of `assembly`; and
mixtures of latents with and without some that are far from all others.

Writes benchmarks/results/bad_images.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, machine, write_results

import cryotwin_nb as ct
from cryotwin_nb.evaluation.truth_scores import coordinate_r2, fsc_to_truth

N, SIZE = 1000, 24
RAMP = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
Spoil = Callable[[np.ndarray, float], np.ndarray]


def pixel(sigma: float, at: tuple[int, int] = (12, 12), extent: int = 1) -> Spoil:
    """Return a function that sets a pixel, or a block, to `sigma` standard deviations."""

    def spoil(image: np.ndarray, std: float) -> np.ndarray:
        image = image.copy()
        image[at[0] : at[0] + extent, at[1] : at[1] + extent] = sigma * std
        return image

    return spoil


def times(factor: float) -> Spoil:
    return lambda image, std: factor * image


def ramp(sigma: float, axis: int = 0) -> Spoil:
    added = np.broadcast_to(RAMP[:, None] if axis == 0 else RAMP, (SIZE, SIZE))
    return lambda image, std: image + sigma * std * added


def edge(sigma: float, where: int = 8) -> Spoil:
    return lambda image, std: image + sigma * std * (np.arange(SIZE) < where).astype(np.float32)


KINDS: dict[str, Spoil] = {
    "pixel of 30 sigma": pixel(30),
    "pixel of 100 sigma": pixel(100),
    "pixel of 1,000 sigma": pixel(1000),
    "pixel of -300 sigma at the border": pixel(-300, (0, 5)),
    "block of 9 pixels, 100 sigma": pixel(100, (10, 7), 3),
    "x 5": times(5),
    "x 10": times(10),
    "x 100": times(100),
    "x 10,000": times(1e4),
    "x -20": times(-20),
    "ramp of 10 sigma": ramp(10),
    "ramp of 6 sigma along x": ramp(6, 1),
    "carbon edge of 4 sigma": edge(4),
    "all zero": lambda image, std: np.zeros_like(image),
    "all 7": lambda image, std: np.full_like(image, 7),
}


def copied(particles: ct.Particles, images: np.ndarray, group: np.ndarray | None = None) -> ct.Particles:
    """Return particles with other images."""
    views = particles.rotations, particles.shifts, particles.ctf
    added = {"pixel_size": particles.pixel_size, "truth": particles.truth, "optics_group": group}
    return ct.Particles(images, *views, **added)


def trained(particles: ct.Particles, seed: int) -> tuple[int, float, float]:
    """Return the number of components, R^2 of the angles (mean) and area under the FSC with the true maps."""
    model = ct.CryoTwin(particles.box_size, latent_dim=2, n_components=8, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ct.fit(model, particles, ct.TrainingConfig(epochs=10, device="cpu", seed=seed), progress=False)
        z = model.embed(particles)
    kept, truth = ct.image_quality(particles).kept, particles.require_truth()
    r2 = float(np.mean(list(coordinate_r2(z[kept], truth[np.flatnonzero(kept)]).values())))
    return model.prior.n_components, r2, float(fsc_to_truth(model.volumes, z, truth, 20).mean())


def spoiled(particles: ct.Particles, rows: np.ndarray, spoils: list[Spoil]) -> ct.Particles:
    """Return particles whose images `rows` are bad."""
    images = particles.images(slice(None)).copy()
    std = float(images.std())
    for row, spoil in zip(rows.tolist(), spoils, strict=True):
        images[row] = spoil(images[row], std)
    return copied(particles, images)


def named(particles: ct.Particles) -> set[int]:
    quality = ct.image_quality(particles)
    return {*quality.reasons, *np.flatnonzero(quality.hot_pixels).tolist()}


def single(seeds: range, images: int) -> Iterator[tuple[str, dict]]:
    """Yield the results with one bad image of each kind."""
    sets = {seed: ct.simulate.hinge(N, SIZE, seed=seed, progress=False) for seed in seeds}
    bases = {seed: trained(good, seed) for seed, good in sets.items()}
    for name, spoil in KINDS.items():
        rows = []
        for seed in seeds:
            good, base = sets[seed], bases[seed]
            for row in np.random.default_rng(seed).choice(N, images, replace=False):
                bad = spoiled(good, np.array([row]), [spoil])
                found = trained(bad, seed)
                rows.append((base[0], found[0], found[1] - base[1], row in named(bad), len(named(bad))))
        table = np.array(rows, dtype=float)
        yield (
            name,
            {
                "runs": len(table),
                "components without": sorted(set(table[:, 0].astype(int).tolist())),
                "components with": sorted(set(table[:, 1].astype(int).tolist())),
                "largest change of components": int(np.abs(table[:, 1] - table[:, 0]).max()),
                "largest change of R2": round(float(np.abs(table[:, 2]).max()), 4),
                "bad image named": int(table[:, 3].sum()),
                "others named": int((table[:, 4] - table[:, 3]).sum()),
            },
        )


def several(seeds: range) -> Iterator[tuple[str, dict]]:
    """Yield the results with 3 % of bad images of all kinds at once."""
    for seed in seeds:
        good = ct.simulate.hinge(N, SIZE, seed=seed, progress=False)
        base, rng = trained(good, seed), np.random.default_rng(seed)
        rows = rng.choice(N, 3 * N // 100, replace=False)
        bad = spoiled(
            good, rows, [list(KINDS.values())[i] for i in rng.permutation(2 * len(KINDS))[: len(rows)] % len(KINDS)]
        )
        found, there = trained(bad, seed), named(bad)
        yield (
            f"3 %, seed {seed}",
            {
                "components": [base[0], found[0]],
                "R2": [round(base[1], 4), round(found[1], 4)],
                "bad images named": f"{len(there & set(rows.tolist()))} of {len(rows)}",
                "good images named": len(there - set(rows.tolist())),
            },
        )


def scales(seeds: range) -> Iterator[tuple[str, dict]]:
    """Yield the results with half of the images multiplied by a factor."""
    for factor in (0.3, 3.0, 100.0):
        for labelled in ("optics group", "micrograph", "nothing"):
            for seed in seeds:
                good = ct.simulate.hinge(N, SIZE, seed=seed, progress=False)
                half = np.random.default_rng(seed).permutation(N) % 2
                images = good.images(slice(None)) * np.where(half, factor, 1)[:, None, None].astype(np.float32)
                base = trained(good, seed)
                with tempfile.TemporaryDirectory() as folder:
                    bad = copied(good, images, half if labelled == "optics group" else None)
                    if labelled == "micrograph":
                        bad = with_micrographs(bad, half, Path(folder))
                    try:
                        found = trained(bad, seed)
                    except ct.InputError as error:
                        yield f"half x {factor:g}, {labelled}, seed {seed}", {"refused": str(error)}
                        continue
                yield (
                    f"half x {factor:g}, {labelled}, seed {seed}",
                    {
                        "components": [base[0], found[0]],
                        "R2": [round(base[1], 4), round(found[1], 4)],
                        "FSC": [round(base[2], 4), round(found[2], 4)],
                    },
                )


def with_micrographs(particles: ct.Particles, half: np.ndarray, folder: Path) -> ct.Particles:
    """Return particles from a STAR file whose micrographs, of 50 particles each, have one scale each."""
    path = folder / "particles.star"
    particles.write(path, progress=False)
    number = np.empty(len(half), int)
    for kind in (0, 1):
        members = np.flatnonzero(half == kind)
        number[members] = 2 * (np.arange(len(members)) // 50) + kind
    lines, row, columns = path.read_text().splitlines(), 0, 0
    table = max(i for i, line in enumerate(lines) if line.startswith("data_"))
    for i in range(table, len(lines)):
        if lines[i].startswith("_rln"):
            columns, last = columns + 1, i
        elif "@" in lines[i]:
            lines[i] += f" mic_{number[row]:03d}.mrc"
            row += 1
    lines.insert(last + 1, f"_rlnMicrographName #{columns + 1}")
    path.write_text("\n".join(lines) + "\n")
    return ct.Particles.read(path, contrast="dark")


def looks(seeds: range) -> Iterator[tuple[str, dict]]:
    """Yield the findings of the first look without and with bad images."""
    for name, spoil in KINDS.items():
        changed = []
        for seed in seeds:
            good = ct.simulate.hinge(N, SIZE, seed=seed, progress=False)
            bad = spoiled(good, np.array([7 + seed]), [spoil])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                before, after = ct.first_look(good), ct.first_look(bad)
            own = [f.name for f in after.findings if f.name not in {b.name for b in before.findings}]
            changed.append(own)
        yield name, {"added findings": changed}


def purities(seeds: range) -> Iterator[tuple[str, dict]]:
    """Yield the purity of components and the number of states with one bad image among 3,000 of `assembly`."""
    kinds = {"x 4": times(4), "x 10": times(10), "block of 16 pixels, 100 sigma": pixel(100, (14, 14), 4)}
    for seed in seeds:
        good = ct.simulate.assembly(3000, 32, seed=seed, snr=1.0, progress=False)
        base = pure(good, seed)
        for name, spoil in kinds.items():
            found = pure(spoiled(good, np.array([700 + seed]), [spoil]), seed)
            yield (
                f"{name}, seed {seed}",
                {
                    "components": [base[0], found[0]],
                    "purity": [round(base[1], 4), round(found[1], 4)],
                    "states": [base[2], found[2]],
                },
            )


def pure(particles: ct.Particles, seed: int) -> tuple[int, float, int]:
    """Return the number of components, the share of images of their component's commonest state, and the states."""
    model = ct.CryoTwin(particles.box_size, n_components=60, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ct.fit(model, particles, ct.TrainingConfig(epochs=10, device="cpu", seed=seed), progress=False)
        z = model.embed(particles)
    truth = particles.require_truth()
    rows = ~truth.between & ct.image_quality(particles).kept
    own, labels = model.prior.responsibilities(z).argmax(1).numpy()[rows], truth.labels[rows]
    common = sum(Counter(labels[own == component]).most_common(1)[0][1] for component in np.unique(own))
    return model.prior.n_components, common / len(labels), len(ct.find_states(model.prior, latents=z))


def far(seeds: range) -> Iterator[tuple[str, dict]]:
    """Yield the mixtures of 3,000 latents of 13 clusters, with and without latents far from all others."""
    for bound in (40, 60):
        rows = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            centres = rng.normal(0, 1.5, (13, 8))
            own = rng.integers(13, size=3000)
            points = centres[own] + rng.normal(0, 0.12, (3000, 8))
            base = ct.GaussianMixture.fit(points, bound, seed=seed)
            for number, distance in ((1, 14), (1, 1000), (8, 30), (40, 100)):
                away = rng.normal(size=(number, 8))
                away *= distance / np.linalg.norm(away, axis=1, keepdims=True)
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    found = ct.GaussianMixture.fit(np.concatenate([points, away]), bound, seed=seed)
                masses = [masses_of(mixture, points, own) for mixture in (base, found)]
                named = any(f"{number} " in str(w.message) or "3000" in str(w.message) for w in said)
                change = found.n_components - base.n_components
                rows.append((abs(change), np.abs(masses[1] - masses[0]).max(), named))
        table = np.array(rows, dtype=float)
        yield (
            f"at most {bound} components",
            {
                "runs": len(table),
                "largest change of components": int(table[:, 0].max()),
                "largest change of the mass of a cluster": round(float(table[:, 1].max()), 5),
                "far latents named": int(table[:, 2].sum()),
            },
        )


def masses_of(mixture: ct.GaussianMixture, points: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return the mass (13,) that a mixture gives to each cluster."""
    share = mixture.responsibilities(torch.as_tensor(points)).numpy()
    of_cluster = np.stack([share[own == cluster].sum(0) for cluster in range(13)])
    return (of_cluster / of_cluster.sum(0).clip(1e-9)) @ mixture.weights.detach().numpy()


def standard() -> Iterator[tuple[str, dict]]:
    """Yield the number of good images set aside or mended in standard sets."""
    sets = {
        "assembly-small": lambda: ct.data.fetch("assembly-small", progress=False),
        "hinge-small": lambda: ct.data.fetch("hinge-small", progress=False),
        "assembly, 10,000 x 32^2": lambda: ct.simulate.assembly(10_000, 32, seed=1, progress=False),
        "hinge, 10,000 x 32^2": lambda: ct.simulate.hinge(10_000, 32, seed=1, progress=False),
        "assembly, contrast spread .25": lambda: ct.simulate.assembly(
            5000, 32, seed=3, contrast_std=0.25, progress=False
        ),
        "hinge, contrast spread .25, SNR 1": lambda: ct.simulate.hinge(
            5000, 32, seed=3, snr=1.0, contrast_std=0.25, progress=False
        ),
        "hinge, SNR 1,000": lambda: ct.simulate.hinge(3000, 32, seed=0, snr=1000.0, progress=False),
        "assembly, 3,000 x 64^2": lambda: ct.simulate.assembly(3000, 64, seed=2, progress=False),
    }
    for name, make in sets.items():
        particles = make()
        started = time.perf_counter()
        quality = ct.image_quality(particles)
        seconds = time.perf_counter() - started
        yield (
            name,
            {
                "images": len(particles),
                "set aside": len(quality.reasons),
                "with hot pixels": int((quality.hot_pixels > 0).sum()),
                "images/s": round(len(particles) / seconds),
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=5, help="bad images of each kind and seed, one at a time")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="one part of the benchmark; the others keep their stored results")
    options = parser.parse_args()
    seeds, few = range(options.seeds), range(min(options.seeds, 2))
    parts = {
        "standard sets": standard(),
        "3 % of the images": several(seeds),
        "scales": scales(few),
        "first look": looks(few),
        "one image": single(seeds, options.images),
        "states": purities(seeds),
        "far latents": far(range(10)),
    }
    stored = RESULTS / "bad_images.json"
    results: dict = json.loads(stored.read_text()) if options.only and stored.exists() else {}
    results["machine"] = machine()
    for part, rows in parts.items():
        if options.only in (None, part):
            results[part] = {}
            for name, row in rows:
                print(part, "|", name, "|", row, flush=True)
                results[part][name] = row
            write_results("bad_images", results)


if __name__ == "__main__":
    main()
