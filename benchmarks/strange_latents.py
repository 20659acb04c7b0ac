"""Latents, mixtures, paths, maps and arguments that no model returns, for `numeric_faults`."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from strange_images import CONFIG, Case, simulated
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.evaluation import kl_lower_bound, kl_neighbours, metric_tensors

NAN = float("nan")


@cache
def trained() -> tuple[ct.CryoTwin, ct.Particles, Tensor]:
    """Return a small model, its particles and their latents.

    The model is trained in a process of its own: after using threads, this one could not be forked.
    """
    with tempfile.TemporaryDirectory() as folder:
        training = multiprocessing.get_context("fork").Process(target=_train, args=(Path(folder),))
        training.start()
        training.join()
        model = ct.CryoTwin.load(Path(folder) / "model.safetensors")
        return model, simulated(150), torch.load(Path(folder) / "z.pt")


def _train(folder: Path) -> None:
    model, particles = ct.CryoTwin(16, latent_dim=2, n_components=4), simulated(150)
    ct.fit(model, particles, CONFIG, progress=False)
    model.save(folder / "model.safetensors")
    torch.save(model.embed(particles), folder / "z.pt")


@cache
def prior() -> ct.GaussianMixture:
    """Return a mixture of three separate components in two dimensions."""
    means = torch.tensor([[0.0, 0.0], [6.0, 0.0], [3.0, 5.0]])
    return ct.GaussianMixture([0.4, 0.3, 0.3], means, torch.eye(2).repeat(3, 1, 1))


def latent_kinds() -> dict[str, Any]:
    """Return strange latents for a model of d = 2."""
    z = prior().sample(150)
    bad, infinite, far = z.clone(), z.clone(), z.clone()
    bad[3, 1], infinite[3, 1], far[3] = NAN, torch.inf, 1e20
    return {
        "NaN": bad,
        "infinity": infinite,
        "one far": far,
        "all NaN": torch.full_like(z, NAN),
        "constant": torch.ones_like(z),
        "one constant dimension": z * torch.tensor([1.0, 0.0]),
        "identical but one": torch.where(torch.arange(150)[:, None] == 0, 1.0, 0.0).expand(150, 2),
        "on a line": z[:, :1].repeat(1, 2),
        "times 1e-30": z * 1e-30,
        "times 1e30": z * 1e30,
        "one": z[:1],
        "two": z[:2],
        "none": z[:0],
        "d = 1": z[:, :1],
        "d = 3": torch.cat([z, z[:, :1]], 1),
        "a vector": z[:, 0],
        "float16": z.half(),
        "integers": z.round().int().numpy(),
        "complex": z.numpy() + 1j,
        "text": z.numpy().astype(str),
        "a list": z.tolist(),
        "with gradients": z.clone().requires_grad_(),
        "None": None,
        "big-endian": z.numpy().astype(">f8"),
        "negative strides": z.numpy()[::-1],
    }


def of_latents() -> Iterator[Case]:
    """Yield each kind of latents, used in every function that accepts latents."""

    def explore(z: Any) -> Any:
        explorer = ct.PathwayExplorer(prior(), z, decode, 5.0)
        explorer.choose(0, 1).compute()
        return explorer.figure() and None

    uses: dict[str, Callable[[Any], Any]] = {
        "fit mixture": lambda z: ct.GaussianMixture.fit(z, 1),
        "fit 4 components": lambda z: ct.GaussianMixture.fit(z, 4),
        "log_prob": lambda z: prior().log_prob(z).nan_to_num(nan=NAN, neginf=-1e9),  # of 1e20, in float32
        "select_near": lambda z: ct.select_near(z, [1.0, 1.0], n=5),
        "select_near, as places": lambda z: ct.select_near(prior().sample(50), z, n=5),
        "select_state": lambda z: ct.select_state(z, prior(), 0),
        "find_routes": lambda z: ct.find_routes(prior(), 0, 1, evidence=z, n_draws=3),
        "bootstrap": lambda z: ct.bootstrap_path(prior(), z, ct.max_flux(prior(), 0, 1), n_draws=3),
        "embed_tsne": lambda z: ct.embed_tsne(z, prior()),
        "kl": lambda z: ct.kl_divergence(z, prior(), n_samples=200, n_centres=50),
        "kl_lower_bound": lambda z: kl_lower_bound(z, prior(), n_components=2),
        "kl_neighbours": lambda z: kl_neighbours(z, prior(), n_samples=200),
        "isometry": lambda z: ct.isometry(decode, z, n_pairs=10),
        "metric": lambda z: metric_tensors(decode, z, n_points=3),
        "principal_axes": lambda z: ct.evaluation.principal_axes(z),
        "volumes": lambda z: trained()[0].volumes(z),
        "support": lambda z: ct.pathway_support(trained()[0], trained()[1], trained()[2][:3], latents=z),
        "support, as path": lambda z: ct.pathway_support(*trained()[:2], None if z is None else z[:3]),
        "scatter": lambda z: ct.plotting.latent_scatter(z, prior()) and None,
        "explorer": explore,
    }
    for verb, use in uses.items():
        for kind, z in latent_kinds().items():
            yield f"{verb}: latents {kind}", lambda use=use, z=z: use(z)


def decode(z: Tensor) -> Tensor:
    """Return a map (m, 8, 8, 8) for each latent (m, d)."""
    base = torch.linspace(0, 1, 512).view(8, 8, 8)
    return z[:, 0, None, None, None] * base + z[:, -1, None, None, None] * base.flip(0)


def of_mixtures() -> Iterator[Case]:
    """Yield strange mixtures, and strange ends and numbers of paths through a usual one."""
    eye = torch.eye(2)
    mixtures: dict[str, Any] = {
        "singular covariance": ([1.0], [[0, 0]], [[[1, 1], [1, 1]]]),
        "nearly singular covariance": ([0.5, 0.5], [[0, 0], [1, 1]], [eye.tolist(), [[1, 1 - 1e-13], [1 - 1e-13, 1]]]),
        "covariance 1e-300": ([0.5, 0.5], [[0, 0], [1, 1]], [(eye * 1e-300).double().numpy()] * 2),
        "covariance 1e-30 and 1e30": ([0.5, 0.5], [[0, 0], [1, 1]], [(eye * 1e-30).tolist(), (eye * 1e30).tolist()]),
        "not symmetric": ([1.0], [[0, 0]], [[[1, 0.5], [0, 1]]]),
        "zero covariance": ([1.0], [[0, 0]], [[[0, 0], [0, 0]]]),
        "NaN means": ([1.0], [[NAN, 0]], [eye.tolist()]),
        "weights of 0": ([0.0, 1.0], [[0, 0], [5, 5]], [eye.tolist()] * 2),
        "negative weight": ([-0.5, 1.5], [[0, 0], [5, 5]], [eye.tolist()] * 2),
        "weights that sum to 2": ([1.0, 1.0], [[0, 0], [5, 5]], [eye.tolist()] * 2),
        "equal components": ([0.5, 0.5], [[0, 0], [0, 0]], [eye.tolist()] * 2),
        "components 1e10 apart": ([0.5, 0.5], [[0, 0], [1e10, 0]], [eye.tolist()] * 2),
        "d = 1": ([0.5, 0.5], [[0], [5]], [[[1]], [[1]]]),
        "no component": ([], np.zeros((0, 2)), np.zeros((0, 2, 2))),
        "text": ("a", "b", "c"),
        "complex": ([1.0], [[1j, 0]], [eye.tolist()]),
        "ragged": ([1.0], [[0, 0], [1]], [eye.tolist()]),
    }
    for kind, parts in mixtures.items():
        yield f"max_flux: mixture of {kind}", lambda parts=parts: ct.max_flux(ct.GaussianMixture(*parts), 0, 1)
        yield f"routes: mixture of {kind}", lambda parts=parts: ct.find_routes(ct.GaussianMixture(*parts), 0, 1)
        yield f"ridgeline: mixture of {kind}", lambda parts=parts: ct.ridgeline(ct.GaussianMixture(*parts), 0, 1)
        yield f"chain: mixture of {kind}", lambda parts=parts: ct.ridgeline_chain(ct.GaussianMixture(*parts), 0, 1)
        yield f"states: mixture of {kind}", lambda parts=parts: [ct.find_states(ct.GaussianMixture(*parts)), None][1]
    ends: list[Any] = [0, 5, -1, 10**30, 0.5, True, "0", "S1", None, NAN, [NAN, 0.0], [1e30, 0.0], [1.0], [[0.0, 0.0]]]
    ends += [torch.tensor([0.0, 0.0], requires_grad=True), np.array([0.0, 0.0]), torch.zeros(2).half(), [1, 0], (), {}]
    for end in ends:
        for verb in (ct.max_flux, ct.find_routes, ct.ridgeline, ct.ridgeline_chain):
            yield f"{verb.__name__}: end {end!r}", lambda verb=verb, end=end: verb(prior(), 1, end)
            yield f"{verb.__name__}: start {end!r}", lambda verb=verb, end=end: verb(prior(), end, 1)
    for verb in (ct.max_flux, ct.find_routes, ct.ridgeline, ct.ridgeline_chain):
        for steps in (0, 1, 2, 10**9, 2**70, 5.5, NAN, "11", None, -3):
            yield f"{verb.__name__}: n_steps={steps!r}", lambda v=verb, s=steps: v(prior(), 0, 1, n_steps=s)
        for seed in (-1, 2**70, 0.5, None):
            yield f"{verb.__name__}: seed={seed!r}", lambda v=verb, s=seed: v(prior(), 0, 1, seed=s)
    for name in ("exponent", "spacing"):
        for value in (0, -1, 1e30, NAN, "length", None):
            yield f"max_flux: {name}={value!r}", lambda n=name, v=value: ct.max_flux(prior(), 0, 1, **{n: v})
    for name in ("omega", "n_samples", "concentration"):
        for value in (0, -1, 1e30, NAN, 10**12, None):
            yield f"ridgeline: {name}={value!r}", lambda n=name, v=value: ct.ridgeline(prior(), 0, 1, **{n: v})
    for name in ("max_routes", "least_share", "n_draws", "states"):
        for value in (0, -1, NAN, 1.5, None, [], "a"):
            yield f"find_routes: {name}={value!r}", lambda n=name, v=value: ct.find_routes(prior(), 0, 1, **{n: v})
    for name in ("threshold", "least_mass"):
        for value in (0, -1, 2, NAN, None, "a"):
            yield f"find_states: {name}={value!r}", lambda n=name, v=value: len(ct.find_states(prior(), **{n: v}))


def of_arguments() -> Iterator[Case]:
    """Yield strange numbers for the other functions."""
    z = prior().sample(100)
    folder = Path(tempfile.mkdtemp())
    for value in (5.5, 0, -1, NAN, 10**12, "5", None, True):
        yield f"select_near: n={value!r}", lambda v=value: ct.select_near(z, z[0], n=v)
        yield f"select_near: radius={value!r}", lambda v=value: ct.select_near(z, z[0], radius=v)
        yield f"select_state: least={value!r}", lambda v=value: ct.select_state(z, prior(), 0, least=v)
        yield f"select_state: state={value!r}", lambda v=value: ct.select_state(z, prior(), v)
        yield f"sample: n={value!r}", lambda v=value: prior().sample(v)
        yield f"window: {value!r}", lambda v=value: prior().log_window_mass(z, v)
        for name in ("n_components", "seed", "n_init", "max_iter", "tol", "strength"):
            if (name, value) != ("n_init", 10**12):
                yield f"fit mixture: {name}={value!r}", lambda n=name, v=value: ct.GaussianMixture.fit(z, **{n: v})
        yield f"embed_tsne: perplexity={value!r}", lambda v=value: ct.embed_tsne(z, prior(), perplexity=v)
        yield f"embed_tsne: n_samples={value!r}", lambda v=value: ct.embed_tsne(z, prior(), n_samples=v)
        yield f"isometry: n_pairs={value!r}", lambda v=value: ct.isometry(decode, z, n_pairs=v)
        yield f"isometry: step={value!r}", lambda v=value: ct.isometry(decode, z, n_pairs=5, step=v)
        yield f"look: n_images={value!r}", lambda v=value: ct.first_look(trained()[1], n_images=v)
        yield f"embed: batch_size={value!r}", lambda v=value: trained()[0].embed(trained()[1], batch_size=v)
        yield f"reconstruct: radius={value!r}", lambda v=value: ct.reconstruct(trained()[1], particle_radius=v)
        yield f"support: bandwidth={value!r}", lambda v=value: ct.pathway_support(*trained(), bandwidth=v)
    for weights in ([1.0], NAN, -1.0, 0.0, 1e30, 1e300, "a", [[1.0]], 1j):
        n = len(trained()[1])
        given = np.full(n, weights) if not isinstance(weights, (list, str)) else weights
        yield f"reconstruct: weights {weights!r}", lambda w=given: ct.reconstruct(trained()[1], w)
        yield f"fit mixture: weights {weights!r}", lambda w=given: ct.GaussianMixture.fit(trained()[2], 2, weights=w)
    for rows in ([0.5], [-1], [10**9], [], "a", None, [NAN], slice(0, 0), np.zeros(3, bool), {0}, ...):
        yield f"particles[{rows!r}]", lambda r=rows: trained()[1][r].shifts
        yield f"images({rows!r})", lambda r=rows: trained()[1].images(r)
    cube = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    maps = {
        "zero": 0 * cube,
        "NaN": cube * NAN,
        "infinity": cube * np.inf,
        "1e38": cube * 1e37,
        "constant": 0 * cube + 5,
    }
    maps |= {
        "1e300": cube.astype(float) * 1e300,
        "complex": cube + 1j,
        "text": "abc",
        "2-D": cube[0],
        "odd": cube[1:, 1:, 1:],
    }
    maps |= {"a box": cube[:4], "empty": cube[:0], "None": None, "int64": (cube * 9).astype(int), "1": cube[:1, :1, :1]}
    for kind, given in maps.items():
        yield f"fsc: map {kind}", lambda m=given: ct.fsc(m, cube, 2.0)
        yield f"fsc: map {kind} with itself", lambda m=given: ct.fsc(m, m, 2.0)
        yield f"fsc: mask {kind}", lambda m=given: ct.fsc(cube, cube, 2.0, mask=m)
        yield f"write_map: {kind}", lambda m=given: ct.write_map(folder / "m.mrc", m, 2.0)
        yield f"montage: {kind}", lambda m=given: ct.plotting.map_montage([m, m], 2.0) and None
        yield f"slices: {kind}", lambda m=given: ct.plotting.central_slices([m, m], 2.0) and None
        yield f"movie: {kind}", lambda m=given: ct.plotting.write_movie(folder / "m.gif", [m, m], 2.0) and None
        yield f"write_pathway: {kind}", lambda m=given: write_pathway(folder / "p", m)
    for size in (0, -1, NAN, 1e30, "2", None, 1e-30):
        yield f"write_map: voxel size {size!r}", lambda s=size: ct.write_map(folder / "m.mrc", cube, s)
        yield f"fsc: voxel size {size!r}", lambda s=size: ct.fsc(cube, cube, s)
        yield f"write_map: box size {size!r}", lambda s=size: ct.write_map(folder / "m.mrc", cube, 2.0, box_size=s)
        yield f"explorer: voxel size {size!r}", lambda s=size: ct.PathwayExplorer(prior(), z, decode, s) and None
    output = folder / "prepared.star"
    for box in (0, 1, 2, 7, 15, 17, 10**9, NAN, "8", 16.0):
        yield f"prepare: box {box!r}", lambda b=box: ct.prepare(simulated(), output, b, progress=False).noise_power


def write_pathway(folder: Path, volume: Any) -> None:
    """Write a path all of whose maps are `volume`."""
    path = ct.max_flux(prior(), 0, 1, n_steps=3)
    ct.write_pathway(folder, path, np.stack([volume] * 3), 2.0)
