"""Calls that write several files over those of a former call, and functions that read all of them.

Used by the tests and by benchmarks/stops.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from matplotlib.figure import Figure

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.cli.reading import require_own_latents
from cryotwin_nb.exchange.export import require_listed
from cryotwin_nb.exchange.latents import latents_of
from cryotwin_nb.explorer.saving import write_snapshot
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.formats.mrc import read_map
from cryotwin_nb.formats.origins import chain_of, load, record_of
from cryotwin_nb.models.records import ImageContrasts
from cryotwin_nb.pathways.ridgeline import pathway_from_knots

DARK = ["--contrast", "dark"]
N = 100


class Case(NamedTuple):
    """A call: writes the former output, writes the new one over it, and reads what is there."""

    former: Callable[[Path], Any]
    call: Callable[[Path], Any]
    state: Callable[[Path], Any]


def make(folder: Path) -> None:
    """Write particles and a model that the calls start from."""
    particles = simulated(0)
    particles.write(folder / "raw.star", progress=False)
    model = ct.CryoTwin(16, latent_dim=2, n_components=2)
    read = ct.Particles.read(folder / "raw.star", contrast="dark")
    ct.fit(model, read, ct.TrainingConfig(epochs=1, device="cpu", final_em=False), progress=False)
    model.prior = prior()
    model.save(folder / "model.safetensors")
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    model.save(folder / "other.safetensors")


def prior() -> ct.GaussianMixture:
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
    return ct.GaussianMixture([0.5, 0.5], means, 0.3 * torch.eye(2).expand(2, 2, 2))


def simulated(seed: int, truth: bool = True) -> ct.Particles:
    particles = ct.simulate.hinge(N, 16, seed=seed, progress=False)
    particles.truth = particles.truth if truth else None
    return particles


def cases(inputs: Path) -> dict[str, Case]:
    """Return all calls by name; `inputs` is the folder of `make`."""
    raw = ct.Particles.read(inputs / "raw.star", contrast="dark")
    z = [prior().sample(N, seed=seed) for seed in (0, 1)]

    def prepares(seed: int, **options: Any) -> Callable[[Path], Any]:
        particles = raw if seed == 0 else simulated(seed, truth=False)
        return lambda f: ct.prepare(particles, f / "p.star", progress=False, workers=1, **options)

    def writes(seed: int, truth: bool) -> Callable[[Path], Any]:
        return lambda f: simulated(seed, truth).write(f / "p.star", progress=False)

    def selects(name: str, rows: range) -> Callable[[Path], Any]:
        return lambda f: ct.write_selection(f / name, raw, rows)

    def states(seed: int) -> Callable[[Path], Any]:
        found = ct.find_states(prior())[: 2 - seed]  # the second time, one state less
        return lambda f: ct.write_states(f, raw, z[seed], prior(), found)

    def embeds(model: str) -> Callable[[Path], Any]:
        given = [f"{inputs / model}.safetensors", f"{inputs / 'raw.star'}", *DARK]

        def embed(folder: Path) -> None:
            with ready_latents(z[model == "other"]):
                command("embed", *given, "--output", f"{folder / 'z.npy'}")

        return embed

    return {
        "prepare": Case(prepares(1), prepares(0), particles_in),
        "prepare over a stack without a whitening": Case(writes(1, False), prepares(0), particles_in),
        "prepare, not whitened, over a whitened stack": Case(prepares(0), prepares(1, whiten=False), particles_in),
        "Particles.write": Case(writes(0, True), writes(1, True), particles_in),
        "Particles.write over a stack with a truth": Case(writes(0, True), writes(1, False), particles_in),
        "write_selection, .star": Case(selects("s.star", range(9)), selects("s.star", range(9, 18)), selection),
        "write_selection, .pkl": Case(selects("s.pkl", range(9)), selects("s.pkl", range(9, 18)), indices),
        "write_states": Case(states(0), states(1), state_files),
        "write_pathway": Case(lambda f: pathway(f, 3, 0.0), lambda f: pathway(f, 1, 1.0), path_in),
        "embed": Case(embeds("model"), embeds("other"), lambda f: latents(f / "z.npy", inputs)),
        "train": Case(lambda f: trains(inputs, f, "model"), lambda f: trains(inputs, f, "other"), run),
        "train, from its beginning": Case(
            lambda f: trains_fully(inputs, f, 0), lambda f: trains_fully(inputs, f, 1), run
        ),
        "explorer.export": Case(lambda f: explores(f, 3), lambda f: explores(f, 2), exploration),
        "look": Case(lambda f: looks(inputs, f), lambda f: looks(inputs, f, "--flip-hand"), maps),
    }


def ready_latents(z: torch.Tensor) -> Any:
    """Replace the computation of latents, which uses threads that do not survive a fork."""

    @functools.wraps(ct.CryoTwin.embed)  # its signature makes options
    def embed(*_: Any, **__: Any) -> torch.Tensor:
        return z.float()

    def contrasts(*_: Any, **__: Any) -> ImageContrasts:
        return ImageContrasts(*torch.ones(2, len(z)))

    return both(mock.patch.object(ct.CryoTwin, "embed", embed), mock.patch.object(ct.CryoTwin, "contrasts", contrasts))


@contextmanager
def both(first: Any, second: Any) -> Iterator[None]:
    with first, second:
        yield


def command(*arguments: str) -> None:
    """Run a command, which must succeed."""
    assert main([*arguments, "--overwrite"]) == 0, arguments


def particles_in(folder: Path) -> Any:
    read = ct.Particles.read(folder / "p.star", contrast="dark")
    parts = [None if part is None else vars(part) for part in (read.truth, read.whitening)]
    chain = chain_of(read.source, read.source_rows)
    return [read.images(slice(None)), read.rotations, vars(read.ctf), parts, links(chain)]


def links(chain: Any) -> list:
    return [[link.source.name, link.rows, link.fingerprint] for link in chain]


def selection(folder: Path) -> Any:
    read = ct.Particles.read(folder / "s.star", contrast="dark", images=False)
    return [read.rotations, links(chain_of(read.source, read.source_rows))]


def indices(folder: Path) -> Any:
    from cryotwin_nb.formats.cryodrgn import read_indices

    path = folder / "s.pkl"
    return [read_indices(path), links(load(record_of(path), folder))]


def state_files(folder: Path) -> Any:
    found = {}
    ct.Particles.read(folder / "states.star", contrast="dark", images=False)
    names = json.loads((folder / "states.json").read_text())["files"]
    assert sorted(names) == sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    for path in sorted(folder.glob("[!.]*.star")):
        read = ct.Particles.read(path, contrast="dark", images=False)
        found[path.name] = [read.rotations, links(chain_of(path, read.source_rows)), read.columns.to_numpy().tolist()]
    return found


def pathway(folder: Path, n_steps: int, shift: float) -> None:
    path = pathway_from_knots(prior(), prior().means + shift, n_steps, method="line")
    maps = torch.randn(n_steps + 1, 8, 8, 8, generator=torch.Generator().manual_seed(n_steps))
    ct.write_pathway(folder, path, maps, 1.0)


def path_in(folder: Path) -> Any:
    summary = json.loads(file_of(folder / "path.json").read_text())
    for name in summary["files"]:
        require_listed(folder / name)
    summary.pop("sha256")  # of headers and scripts that contain the time
    found = {name: read_map(folder / name)[0] for name in summary["files"] if name.endswith(".mrc")}
    texts = {name: (folder / name).read_text() for name in ("pathway.cxc", "pathway.pml")}
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))  # partial files are hidden
    return [summary, found, texts, ct.read_latents(folder / "latents.npy"), files]


def file_of(path: Path) -> Path:
    from cryotwin_nb.formats.files import require_file

    return require_file(path)


def latents(path: Path, inputs: Path, read: Any = None) -> Any:
    """Return the latents, and to which of the two models they belong."""
    models = {name: ct.CryoTwin.load(inputs / f"{name}.safetensors") for name in ("model", "other")}
    belongs = {}
    for name, model in models.items():
        try:
            require_own_latents(path, model, inputs / f"{name}.safetensors")
            belongs[name] = True
        except ct.InputError as error:
            if "of another model" not in f"{error}" and "holds latents of" not in f"{error}":
                raise
            belongs[name] = False
    assert sum(belongs.values()) == 1, belongs
    particles = ct.Particles.read(inputs / "raw.star", contrast="dark") if read is None else read
    return [belongs, latents_of(particles, path)[1]]


def trains(inputs: Path, folder: Path, model: str) -> None:
    """Run `train` with a ready model instead of the training."""

    def fit(trained: ct.CryoTwin, *_: Any, **__: Any) -> None:
        ready = ct.CryoTwin.load(inputs / f"{model}.safetensors")
        trained.restore(ready.state_dict())
        trained.prior = ready.prior

    arguments = [f"{inputs / 'raw.star'}", *DARK, "--latent-dim", "2", "--n-components", "2", "--device", "cpu"]
    unjudged = mock.patch("cryotwin_nb.cli.training._judged", return_value=[])  # uses threads, as embedding does
    with unjudged, mock.patch("cryotwin_nb.training.fit", fit), ready_latents(prior().sample(N, seed=len(model))):
        command("train", *arguments, "--output", f"{folder}")


def trains_fully(inputs: Path, folder: Path, seed: int) -> None:
    arguments = [f"{inputs / 'raw.star'}", *DARK, "--latent-dim", "2", "--n-components", "2", "--device", "cpu"]
    command("train", *arguments, "--epochs", "1", "--seed", f"{seed}", "--output", f"{folder}")


def run(folder: Path) -> Any:
    model = ct.CryoTwin.load(folder / "model.safetensors")
    require_own_latents(folder / "latents.npy", model, folder / "model.safetensors")
    z = ct.read_latents(folder / "latents.npy")
    return [dict(model.state_dict()), z, links(load(record_of(folder / "latents.npy"), folder))]


def looks(inputs: Path, folder: Path, *options: str) -> None:
    main(["look", f"{inputs / 'raw.star'}", *DARK, "--output", f"{folder}", "--overwrite", *options])


def an_explorer(n_steps: int) -> ct.PathwayExplorer:
    """Return an explorer with a path of a ball that grows."""
    means = torch.tensor([[0.0, 0.0], [4.0, 0.5]])
    density = ct.GaussianMixture([0.6, 0.4], means, 0.8 * torch.eye(2).expand(2, 2, 2))
    balls = (torch.arange(8.0) - 4).square()
    balls = balls[:, None, None] + balls[:, None] + balls

    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.exp(-balls / (6 + torch.as_tensor(z)[:, :1, None, None].abs())).float()

    explorer = ct.PathwayExplorer(density, density.sample(50, seed=0), decode, voxel_size=3.0)
    return explorer.set(n_steps=n_steps).choose(0, 1).compute()


def small_movie(file: Path, *_: Any, **__: Any) -> None:
    with atomic(file) as partial:
        partial.write_bytes(b"a movie")


def small_pictures() -> Any:
    """Replace the movie and the figure of an export, which take seconds."""
    names = {"write_movie": small_movie, "draw_view": lambda _: Figure((1, 1), dpi=20)}
    return mock.patch.multiple("cryotwin_nb.explorer.saving", **names)


def explores(folder: Path, n_steps: int) -> None:
    explorer = an_explorer(n_steps)
    if n_steps == 3:  # the former one has a picture, which the new path is too short for
        write_snapshot(folder, 3, b"png")
    try:
        with small_pictures():
            explorer.export(folder, movie=True)
    finally:
        explorer.close()  # so that the next one may write there


def exploration(folder: Path) -> Any:
    note = json.loads(file_of(folder / "explorer.json").read_text())
    pictures = [(folder / name).read_bytes() for name in note["files"] if name.endswith((".png", ".gif"))]
    return [note, pictures, path_in(folder)]


def maps(folder: Path) -> Any:
    from PIL import Image

    found = [read_map(folder / f"{name}.mrc")[0] for name in ("map", "half1", "half2")]
    return [*found, np.asarray(Image.open(file_of(folder / "look.png")))]
