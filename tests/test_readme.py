"""All commands and code of the README run in order, on 300 images of 32 x 32 pixels."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BOX = "--box-size 128", "--box-size 16"  # box size in the README, and a box size suitable for these images
matplotlib.use("agg")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands() -> list[str]:
    """Return the commands of the shell blocks, without comments."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [part.strip() for line in lines for part in re.split(r";|&&", line.partition(" #")[0]) if part.strip()]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a user's folder with a refined stack in it."""
    place = tmp_path
    particles = ct.simulate.assembly(300, 32, pixel_size=10.0, snr=8.0, seed=1, progress=False)
    particles.truth = None
    particles.write(place / "run_data.star", progress=False)
    return place


def test_the_python_blocks_run_in_their_order(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks("python"):
        with pytest.warns(UserWarning, match="treating the particles as dark"):
            exec(compile(block, "README.md", "exec"), names)
    assert len(names["maps"]) == 12 and names["routes"]
    assert (folder / "run" / "pathway" / "pathway.cxc").exists() and (folder / "run" / "model.safetensors").exists()


@pytest.mark.filterwarnings("default")
def test_the_commands_run_in_their_order(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    ran = []
    for command in commands():
        words = shlex.split(command.replace(*BOX))
        if words[0] == "cryotwin" and words[1] != "demo":  # the demo is tested separately
            status = main([*words[1:], "--device", "cpu"] if words[1] in ("train",) else words[1:])
            assert status == 0 or (words[1] == "look" and status == 1), (command, capsys.readouterr().err)
            ran.append(words[1])
        elif words[0] == "torchrun":
            run_on_two_processes(words, folder)
            ran.append("torchrun")
    assert ran == ["prepare", "look", "train", "torchrun", "states", "pathway", "support", "select"]
    assert len(ct.Particles.read("s1.star", contrast="dark")) > 0


def run_on_two_processes(words: list[str], folder: Path) -> None:
    words = [*words, "--device", "cpu"]
    words[words.index("--nproc-per-node") + 1] = "2"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--master-port", "29621", *words[1:]]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_the_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.M))
    assert {"demo", "lab", "test", "docs", "setup"} <= named <= targets
