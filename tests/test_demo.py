import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.demo import running as demo

STORED = Path(__file__).parents[1] / "notebooks" / "models" / "assembly-small.safetensors"


@pytest.mark.notebooks
def test_demo_runs_every_stage_and_reaches_its_numbers(tmp_path, monkeypatch, capsys):
    """All of `make demo` except training: fewer images of the small set, and the stored model."""
    few = ct.simulate.assembly(1500, 32, pixel_size=10.0, snr=1.0, seed=0, progress=False)

    def take_stored(model, particles, config):
        stored = ct.CryoTwin.load(STORED)
        assert stored.config == model.config | {"latent_dim": 5, "n_basis": 5}  # as the images have chosen
        model.networks.chosen = True
        model.restore(stored.state_dict())
        model.history = stored.history
        torch.save(model.payload(), config.checkpoint)

    monkeypatch.setattr(demo.data, "fetch", lambda name: few)
    monkeypatch.setattr(demo, "fit", take_stored)
    results = demo.run(tmp_path / "demo", "assembly-small")
    made = {str(p.relative_to(tmp_path / "demo")) for p in (tmp_path / "demo").rglob("*")}
    expected = {"particles/assembly-small.star", "particles/assembly-small.mrcs", "particles/assembly-small.truth.npz"}
    expected |= {
        "model.safetensors",
        "checkpoint.pt",
        "latents.npy",
        "table.json",
        "quickstart.html",
        "pathway/pathway.cxc",
    }
    expected |= {f"pathway/map_{k:03d}.mrc" for k in range(12)} | {"figures/pathway.png", "figures/latents.png"}
    assert expected <= made
    assert results["KL(latents from prior), nats"] <= 0.25
    assert results["isometry r, random directions"] > 0.98
    assert results["sub-paths joined: a true order"]
    assert min(results["R2 of the true occupancies"].values()) > 0.95
    assert results["FSC area against truth"] > 0.93
    assert json.loads((tmp_path / "demo" / "table.json").read_text())["seconds"].keys() >= {
        "simulate",
        "train",
        "decode",
    }
    assert "sub-paths joined: blocks appear in the order" in capsys.readouterr().out
    assert np.load(tmp_path / "demo" / "latents.npy").shape == (1500, 5)


def test_the_architecture_reaches_model_and_notebook(tmp_path, monkeypatch):
    class Reached(Exception):
        pass

    def stop(model, particles, config):
        assert (model.config["architecture"], config.epochs) == ("coordinate", 3)
        raise Reached

    few = ct.simulate.assembly(20, 16, progress=False)
    monkeypatch.setattr(demo.data, "fetch", lambda name: few)
    monkeypatch.setattr(demo, "fit", stop)
    with pytest.raises(Reached):
        demo.run(tmp_path, architecture="coordinate", epochs=3)


def test_a_failed_stage_is_a_failed_demo(tmp_path, monkeypatch):
    def fail(name):
        raise OSError("disk full")

    monkeypatch.setattr(demo.data, "fetch", fail)
    with pytest.raises(OSError, match="disk full"):
        demo.run(tmp_path)


def test_table_is_aligned():
    results = {"r": 0.5, "n": 3, "order": ["a", "b"], "R2": {"x": 0.25}, "true": True, "seconds": {"train": 1.25}}
    lines = demo.table(results).splitlines()
    assert lines[2].split(None, 1) == ["order", "a -> b"]
    assert {line.index(value) for line, value in zip(lines, ["0.500", "3", "a ->", "0.250", "True", "1.2"])} == {16}
