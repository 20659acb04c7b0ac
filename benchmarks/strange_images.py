"""Images, poses and CTFs that no microscope records, for `numeric_faults`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import cryotwin_nb as ct

CONFIG = ct.TrainingConfig(epochs=1, device="cpu")
Case = tuple[str, Callable[[], Any]]


def simulated(n: int = 60, box_size: int = 16) -> ct.Particles:
    """Return simulated particles with shifts."""
    return ct.simulate.hinge(n, box_size, seed=1, progress=False)


def rebuilt(particles: ct.Particles, images: Any = None, **changes: Any) -> ct.Particles:
    """Return particles in memory with other images, poses or CTF."""
    images = particles.images(slice(None)) if images is None else images
    given = {name: getattr(particles, name) for name in ("rotations", "shifts", "ctf", "pixel_size")}
    return ct.Particles(images, **given | changes)


def train(particles: ct.Particles, latent_dim: int = 2, n_components: int = 3, **options: Any) -> Any:
    """Train for one epoch; return the latents, a map and the prior."""
    model = ct.CryoTwin(particles.box_size, latent_dim=latent_dim, n_components=n_components, **options)
    ct.fit(model, particles, CONFIG, progress=False)
    z = model.embed(particles)
    return z, model.volumes(z[:1]), model.prior, model.deconvolved_prior


def image_kinds(x: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield names of image kinds, and functions that make such images from simulated ones (n, D, D)."""
    size = x.shape[-1]
    noise, ramp = np.random.default_rng(0).normal(size=x.shape), np.linspace(-1, 1, size)

    def one(value: Callable[[np.ndarray], Any], row: int = 7) -> Callable[[], np.ndarray]:
        def change() -> np.ndarray:
            images = x.copy()
            images[row] = value(images[row])
            return images

        return change

    def pixel(value: float) -> Callable[[], np.ndarray]:
        return one(lambda image: np.where(np.arange(size * size).reshape(size, size) == 70, value, image))

    edge = np.zeros((size, size), np.float32)
    edge[2:-2, 2:-2] = 1
    yield "all zero", lambda: np.zeros_like(x)
    yield "all constant 5", lambda: np.full_like(x, 5)
    yield "all constant, differently", lambda: np.broadcast_to(np.arange(len(x))[:, None, None], x.shape).copy()
    yield "all identical", lambda: np.repeat(x[:1], len(x), axis=0)
    yield "pure noise", lambda: noise
    yield "times 1e-12", lambda: x * np.float32(1e-12)
    yield "times 1e-30", lambda: x * np.float32(1e-30)
    yield "times 1e18", lambda: x * np.float32(1e18)
    yield "times 1e30", lambda: x * np.float32(1e30)
    yield "times 1e36", lambda: x.astype(np.float64) * 1e36 / np.abs(x).max()
    yield "offset 1e6, std .01", lambda: 1e6 + 0.01 * x / x.std()
    yield "offset 1e30", lambda: x + np.float32(1e30)
    yield "one NaN", pixel(np.nan)
    yield "one infinity", pixel(-np.inf)
    yield "one pixel 8e5", pixel(8e5)
    yield "one pixel 1e20", pixel(1e20)
    yield "one pixel 3e38", pixel(3e38)
    yield "one image times 1e3", one(lambda image: image * 1e3)
    yield "one image times 1e10", one(lambda image: image * 1e10)
    yield "one image zero", one(lambda image: 0 * image)
    yield "one image of a ramp of 1e5", one(lambda image: image + 1e5 * ramp)
    yield "all on a ramp of 1e5", lambda: x + 1e5 * ramp
    yield "all with a zero border", lambda: x * edge
    yield "half zero", lambda: x * (np.arange(len(x)) % 2)[:, None, None]
    yield "left half zero", lambda: x * (np.arange(size) > size // 2)
    yield "checkerboard", lambda: x + 1e3 * (-1.0) ** np.add.outer(np.arange(size), np.arange(size))
    yield "only the first image not zero", lambda: x * (np.arange(len(x)) == 0)[:, None, None]
    yield "one pixel not zero", lambda: np.zeros_like(x) + (np.arange(size * size).reshape(size, size) == 70)
    yield "uint8", lambda: (127 + 20 * x / x.std()).clip(0, 255).astype(np.uint8)
    yield "int16 saturated", lambda: (1e6 * x / x.std()).clip(-32768, 32767).astype(np.int16)
    yield "int64", lambda: (100 * x / x.std()).astype(np.int64)
    yield "bool", lambda: x > 0
    yield "float16 with overflow", lambda: (x * 1e5 / x.std()).astype(np.float16)
    yield "complex", lambda: x + 1j
    yield "objects", lambda: x.astype(object)
    yield "text", lambda: x[:2].astype(str)
    yield "big-endian, strided", lambda: np.repeat(x, 2, axis=2).astype(">f4")[:, :, ::2]


def of_images() -> Iterator[Case]:
    """Yield each kind of images, trained on, looked at and reconstructed."""
    for verb, use, n in (("train", train, 60), ("look", ct.first_look, 110), ("reconstruct", ct.reconstruct, 60)):
        base = simulated(n)
        for kind, make in image_kinds(base.images(slice(None))):
            yield f"{verb}: {kind}", lambda base=base, make=make, use=use: use(rebuilt(base, make()))


def of_numbers() -> Iterator[Case]:
    """Yield few images, small boxes and extreme models."""
    for n in (1, 2, 3, 5):
        yield f"train: {n} images, 1 component", lambda n=n: train(simulated(n), n_components=1)
        yield f"look: {n} images", lambda n=n: ct.first_look(simulated(n))
        yield f"reconstruct: {n} images", lambda n=n: ct.reconstruct(simulated(n))
    yield "train: fewer images than components", lambda: train(simulated(5), n_components=10)
    yield "train: as many components as images", lambda: train(simulated(12), n_components=12)
    yield "train: more latent dimensions than images", lambda: train(simulated(5), 8, 2)
    yield "train: 40 basis maps of 10 images", lambda: train(simulated(10), n_components=2, n_basis=40)
    yield "train: n_basis below d", lambda: train(simulated(10), 4, 2, n_basis=2)
    for box in (2, 4, 6, 8, 10, 12):
        yield f"train: box {box}, d = 2", lambda box=box: train(simulated(40, box))
        yield f"look: box {box}", lambda box=box: ct.first_look(simulated(110, box))
    yield "train: box 8, d = 8", lambda: train(simulated(40, 8), 8)
    yield "train: odd box", lambda: train(rebuilt(simulated(20), np.ones((20, 15, 15), np.float32)))
    for radius in (0, 0.01, 0.05, 0.5, 0.7, float("nan")):
        yield f"train: particle radius {radius}", lambda radius=radius: train(simulated(), particle_radius=radius)
    yield "train: noise width 1e-30", lambda: train(simulated(), noise_width=1e-30)
    yield "train: noise width 1e30", lambda: train(simulated(), noise_width=1e30)
    for name in ("box_size", "latent_dim", "n_components", "n_basis"):
        for value in (10**5, 10**9, 2**70):
            yield f"CryoTwin: {name}={value}", lambda n=name, v=value: ct.CryoTwin(**{"box_size": 16} | {n: v})
    for name, value in (("epochs", 10**9), ("learning_rate", 1e30), ("beta", 1e-300), ("beta", 1e300), ("warmup", 1e9)):
        config = {"epochs": 1, "device": "cpu"} | {name: value}
        if name != "epochs":
            yield f"TrainingConfig: {name}={value}", lambda config=config: trained_with(config)
    yield "TrainingConfig: batch of 1e9", lambda: trained_with({"epochs": 1, "device": "cpu", "batch_size": 10**9})
    yield "TrainingConfig: seed 2**70", lambda: trained_with({"epochs": 1, "device": "cpu", "seed": 2**70})
    yield "TrainingConfig: cache nan", lambda: trained_with({"epochs": 1, "device": "cpu", "cache_gib": float("nan")})
    yield "TrainingConfig: device", lambda: trained_with({"epochs": 1, "device": "gpu"})


def trained_with(config: dict[str, Any]) -> Any:
    """Train a model with the given settings."""
    model = ct.CryoTwin(16, latent_dim=2, n_components=3)
    ct.fit(model, simulated(), ct.TrainingConfig(**config), progress=False)
    return model.embed(simulated())


def of_views() -> Iterator[Case]:
    """Yield strange poses, shifts and CTFs."""
    base = simulated(110)
    n, turns = len(base), base.rotations
    assert turns is not None
    assert base.ctf is not None
    tilted = turns + np.float32(1e-6) * np.random.default_rng(0).normal(size=turns.shape)
    poses = {
        "all alike": np.repeat(turns[:1], n, axis=0),
        "one axis": np.stack([rotation_z(angle) for angle in np.linspace(0, 6, n)]),
        "two views": np.repeat(turns[:2], n // 2, axis=0),
        "NaN": np.where(np.arange(n)[:, None, None] == 3, np.nan, turns),
        "reflections": -turns,
        "zero": 0 * turns,
        "nearly rotations": tilted,
        "scaled by 1.001": 1.001 * turns,
        "float16": turns.astype(np.float16),
        "integers": np.repeat(np.eye(3, dtype=int)[None], n, axis=0),
        "angles": np.zeros((n, 3)),
        "too few": turns[:5],
    }
    for kind, rotations in poses.items():
        for verb, use in (("train", train), ("look", ct.first_look), ("reconstruct", ct.reconstruct)):
            yield f"{verb}: poses {kind}", lambda r=rotations, use=use: use(rebuilt(base, rotations=r))
    for value in (np.nan, 1e30, 1e4, 80.0):
        shifts = np.full((n, 2), value)
        yield f"train: shifts {value}", lambda s=shifts: train(rebuilt(base, shifts=s))
        yield f"look: shifts {value}", lambda s=shifts: ct.first_look(rebuilt(base, shifts=s))
    ctfs = {
        "defocus 0": {"defocus_u": 0, "defocus_v": 0},
        "defocus negative": {"defocus_u": -1e4, "defocus_v": -1e4},
        "defocus in µm": {"defocus_u": 1.5, "defocus_v": 1.5},
        "defocus 1e30": {"defocus_u": 1e30, "defocus_v": 1e30},
        "defocus NaN": {"defocus_u": np.nan},
        "V for kV": {"voltage": 300_000},
        "1e-30 kV": {"voltage": 1e-30},
        "Cs 2.7e7": {"spherical_aberration": 2.7e7},
        "amplitude contrast 1": {"amplitude_contrast": 1},
        "amplitude contrast 10": {"amplitude_contrast": 10},
        "phase shift 1e20": {"phase_shift": 1e20},
        "no CTF at all": {"amplitude_contrast": 0, "defocus_u": 0, "defocus_v": 0, "spherical_aberration": 0},
    }
    for kind, change in ctfs.items():
        for verb, use in (("train", train), ("look", ct.first_look)):
            yield f"{verb}: {kind}", lambda c=change, use=use: use(rebuilt(base, ctf=with_ctf(base.ctf, c)))
    for pixel in (1e-30, 0.05, 100, 1e30, np.nan, "5"):
        yield f"train: pixel size {pixel!r}", lambda p=pixel: train(rebuilt(base, pixel_size=p))


def with_ctf(ctf: ct.CTF, change: dict[str, float]) -> ct.CTF:
    """Return a CTF with some fields set to one value for all images."""
    return replace(ctf, **{name: np.full(len(ctf), value, np.float64) for name, value in change.items()})


def rotation_z(angle: float) -> np.ndarray:
    """Return the rotation by an angle (radians) around z."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
