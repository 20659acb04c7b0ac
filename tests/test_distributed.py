"""Training in two processes (Gloo) against training in one. Run as a script, this file is one of the processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.runtime import distributed

MODELS = {
    "subspace": dict(latent_dim=5, n_components=8),
    "auto": dict(n_components=8),
    "coordinate": dict(architecture="coordinate", latent_dim=2, n_components=4, width=16, depth=1, n_features=16),
}
# 16 x 16 + 1 images: the first process has no image in the last batch of each epoch
NUMBERS = {"subspace": 400, "auto": 400, "coordinate": 257}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path(ct.__file__).parents[1]}"}
BATCH = {"subspace": 64, "auto": 64, "coordinate": 16}


def data(kind: str) -> ct.Particles:
    return ct.simulate.assembly(NUMBERS[kind], 16, pixel_size=20.0, snr=30.0, progress=False)


def train(kind: str, cache_gib: float) -> dict:
    """Train a model; return its state, latents, maps and history."""
    particles, model = data(kind), ct.CryoTwin(16, **MODELS[kind])
    settings = {"batch_size": BATCH[kind], "cache_gib": cache_gib, "device": "cpu", "precision": "float32"}
    history = ct.fit(model, particles, ct.TrainingConfig(epochs=2, **settings), progress=False)
    z = model.embed(particles, batch_size=100)
    return {
        "z": z,
        "maps": model.volumes(z[:3]),
        "means": model.prior.means,
        "covariances": model.prior.covariances,
        "weights": model.prior.weights,
        "distortion": torch.tensor(history.distortion),
        "rate": torch.tensor(history.rate),
        "evidence": torch.tensor(history.log_evidence[1:] or [0.0]),
        "moments": model.moments.second,
    }


def sums(folder: Path) -> None:
    """Write the functions' results for numbers that differ between the two processes."""
    number, mine = distributed.rank(), distributed.share(5)
    rows = torch.arange(5.0)[:, None].repeat(1, 2)
    own = rows[mine].requires_grad_()
    gathered = distributed.gather(own, 5)
    gathered.square().sum().backward()
    assembled = distributed.assemble(((part,) for part in rows[mine].split(1)), 5)[0]
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), 1.0 + number)
    distributed.sum_gradients([parameter, torch.nn.Parameter(torch.zeros(1))])
    results = {
        "world": distributed.world(),
        "share": torch.arange(5)[mine],
        "total": distributed.total(10.0**number),
        "gathered": gathered.detach(),
        "gradient": own.grad,
        "assembled": assembled,
        "summed gradient": parameter.grad,
        "first": distributed.first(lambda: f"said by {number}"),
    }
    torch.save(results, folder / f"sums{number}.pt")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with distributed.joined("cpu"):
        sums(folder)
        for kind in MODELS:
            torch.save(train(kind, cache_gib=0.0), folder / f"{kind}{distributed.rank()}.pt")
        with pytest.raises(ct.InputError, match="2 processes for 1 images"):
            distributed.require_enough(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder with the output of two processes."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    command = [sys.executable, __file__, f"{folder}"]
    environments = [ENVIRONMENT | shared | {"RANK": f"{k}", "LOCAL_RANK": f"{k}"} for k in range(2)]
    both = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for env in environments]
    errors = [process.communicate(timeout=600)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    return folder


def test_sums_shares_and_gradients(folder):
    results = [torch.load(folder / f"sums{k}.pt") for k in range(2)]
    assert torch.equal(torch.cat([r["share"] for r in results]), torch.arange(5))
    rows = torch.arange(5.0)[:, None].repeat(1, 2)
    assert torch.equal(torch.cat([r["gradient"] for r in results]), 2 * rows)
    for result in results:
        assert result["world"] == 2 and result["total"] == 11.0 and result["first"] == "said by 0"
        assert torch.equal(result["gathered"], rows) and torch.equal(result["assembled"], rows)
        assert result["summed gradient"].tolist() == [3.0, 3.0, 3.0]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", MODELS)
def test_two_processes_find_what_one_finds(folder, kind):
    alone, *both = train(kind, cache_gib=4.0), *(torch.load(folder / f"{kind}{k}.pt") for k in range(2))
    for together in both:
        for name, expected in alone.items():
            error = float((together[name] - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
            assert error < 1e-5, (name, error)
    for name, value in both[0].items():
        assert torch.equal(value, both[1][name]), name  # both end in the state of the first


def test_one_process_alone_is_given_back_what_it_gives():
    rows = torch.randn(4, 2)
    assert distributed.gather(rows, 4) is rows and distributed.share(4) == slice(0, 4)
    assert torch.equal(distributed.assemble([(rows[:3],), (rows[3:],)], 4)[0], rows)
    assert distributed.first(lambda: 7) == 7 and distributed.total(3) == 3
    assert (distributed.rank(), distributed.world()) == (0, 1)
    with distributed.joined():  # not started by torchrun
        assert distributed.world() == 1


def test_torchrun_trains_and_only_the_first_process_writes_and_speaks(tmp_path):
    particles = ct.simulate.hinge(60, 16, progress=False)
    particles.write(tmp_path / "p.star", progress=False)
    arguments = f"train {tmp_path / 'p.star'} --contrast dark --latent-dim 2 --n-components 3 --epochs 1 --device cpu"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "cryotwin_nb", *arguments.split(), "--output", f"{tmp_path / 'out'}", "--resume"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr
    for said in ("60 particles", "The prior uses", "components in 2 dimensions"):
        assert run.stdout.count(said) == 1, run.stdout
    assert run.stderr.count("| 0/12 [00:00<?") == 1, run.stderr  # a bar that waits is drawn again, with a later time
    left = {"model.safetensors", "checkpoint.pt", "latents.npy", "latents.npy.origin.npz"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == left
    latents = np.load(tmp_path / "out" / "latents.npy")
    model = ct.CryoTwin.load(tmp_path / "out" / "model.safetensors")
    np.testing.assert_allclose(model.embed(particles), latents, atol=1e-4)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
