"""One writer per output: locks with and without `fcntl`, of killed processes and of other machines."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.runtime import locks, writers
from cryotwin_nb.runtime.locks import lock_path, writing

ENVIRONMENT = os.environ | {"PYTHONPATH": f"{Path(ct.__file__).parents[1]}"}
WITHOUT = "import fcntl; fcntl.flock = lambda *_: (_ for _ in ()).throw(OSError(37, 'No locks available'));"
HOLD = "from cryotwin_nb.runtime.locks import writing\nwith writing({output!r}): print('held', flush=True); input()"
RACE = """
import os, sys, time
from pathlib import Path
from cryotwin_nb.runtime.locks import writing
output = Path(sys.argv[1])
for _ in range(2):
    with writing(output, wait=60):
        os.close(os.open(output.with_name("inside"), os.O_CREAT | os.O_EXCL))  # fails if another is inside
        time.sleep(0.01)
        output.with_name("inside").unlink()
        with open(output, "a") as file: file.write("x")
"""


@pytest.fixture(params=["fcntl", "no fcntl"])
def without(request, monkeypatch) -> str:
    """Return code that takes `fcntl` away from a process, or nothing; here it is taken away, too."""
    if request.param == "fcntl":
        return ""

    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    return WITHOUT


@contextmanager
def holder(output: Path, without: str) -> Iterator[subprocess.Popen]:
    """Start a process that holds the lock until it receives a line."""
    command = [sys.executable, "-c", without + HOLD.format(output=str(output))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process


def named(path: Path, **changes: object) -> None:
    """Leave the lock file of another process."""
    path.write_text(json.dumps(writers.this_process()._asdict() | changes))


def is_free(output: Path) -> bool:
    try:
        with writing(output):
            return True
    except InputError:
        return False


def test_the_second_is_told_who_is_writing_and_waits_only_if_asked(tmp_path, without):
    output = tmp_path / "run" / ".." / "out.star"
    (tmp_path / "run").mkdir()
    with holder(tmp_path / "out.star", without) as first:
        who = rf"is being written by process {first.pid} on .*, since 2.*\n.*--wait"
        with pytest.raises(InputError, match=who), writing(output):
            pytest.fail("two writers")
        threading.Timer(0.3, lambda: print(file=first.stdin, flush=True)).start()
        with pytest.warns(UserWarning, match=f"Waiting until process {first.pid} on"), writing(output, wait=30):
            assert lock_path(tmp_path / "out.star").exists()
    assert first.returncode == 0 and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_lock_of_a_killed_process_is_replaced_at_once(tmp_path, without):
    output = tmp_path / "out.star"
    with holder(output, without) as first:
        first.kill()
    assert lock_path(output).exists()
    with writing(output):
        assert json.loads(lock_path(output).read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_another_machine_counts_as_running_for_five_minutes_by_the_clock_of_the_files(tmp_path, without, monkeypatch):
    output, lock = tmp_path / "out.star", lock_path(tmp_path / "out.star")
    named(lock, machine="other", host="node7", process=1)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a clock that is wrong by decades
    with pytest.raises(InputError, match="process 1 on node7"), writing(output):
        pytest.fail("two writers")
    stamp = lock.stat().st_mtime
    os.utime(lock, (stamp - 290, stamp - 290))
    assert not is_free(output)
    os.utime(lock, (stamp - 310, stamp - 310))
    assert is_free(output) and not lock.exists()
    named(lock, machine="other")
    os.utime(lock, (stamp + 1e6, stamp + 1e6))  # the clock of the disk was wrong
    assert is_free(output)


def test_a_process_id_that_was_given_to_another_process_is_not_the_writer(tmp_path, without):
    lock = lock_path(tmp_path / "out.star")
    named(lock, started="1" if writers.this_process().started else "")
    assert is_free(tmp_path / "out.star") or not writers.this_process().started
    lock.write_text("")  # killed before it wrote its name
    os.utime(lock, (0, 0))
    assert is_free(tmp_path / "out.star")


def test_many_processes_that_find_the_lock_of_a_killed_one_write_one_at_a_time(tmp_path, without):
    output = tmp_path / "out"
    named(lock_path(output), machine="other")
    os.utime(lock_path(output), (0, 0))
    command = [sys.executable, "-W", "ignore", "-c", without + RACE, str(output)]
    racers = [subprocess.Popen(command, env=ENVIRONMENT) for _ in range(4)]
    assert [racer.wait() for racer in racers] == [0] * 4
    assert output.read_text() == "x" * 8 and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_thread_holds_a_lock_repeatedly_and_other_threads_are_refused(tmp_path, without):
    first, second, found = tmp_path / "a", tmp_path / "b", []
    with writing(second, first), writing(first):
        thread = threading.Thread(target=lambda: found.extend([is_free(first), is_free(second), is_free(tmp_path)]))
        thread.start()
        thread.join()
        assert lock_path(first).exists() and lock_path(second).exists()
    assert found == [False, False, True] and not list(tmp_path.iterdir())


def test_errors_release_the_lock_and_a_fork_does_not(tmp_path, without):
    with ExitStack() as stack, pytest.raises(RuntimeError):
        stack.enter_context(writing(tmp_path / "out"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks in a process with threads
            child = os.fork()
        if not child:
            stack.close()
            os._exit(0 if lock_path(tmp_path / "out").exists() else 1)
        assert os.waitpid(child, 0)[1] == 0 and lock_path(tmp_path / "out").exists()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_the_stamp_is_renewed_and_a_lost_lock_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_RENEWAL", 0.01)
    output, told = tmp_path / "out", []
    monkeypatch.setattr(locks, "warn_user", told.append)
    with writing(output):
        os.utime(lock_path(output), (0, 0))
        until = time.monotonic() + 10
        while lock_path(output).stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert lock_path(output).stat().st_mtime > 1e9 and not told
        named(lock_path(output).with_name("new"), machine="other")
        os.replace(lock_path(output).with_name("new"), lock_path(output))
        while not told and time.monotonic() < until:
            time.sleep(0.01)
    assert len(told) == 1 and "cannot be renewed (it was removed or replaced)" in told[0]
    assert lock_path(output).exists()  # of the other machine


def test_without_any_lock_there_is_one_warning_and_the_work_goes_on(tmp_path, monkeypatch):
    def fail(path, *_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fail)
        with pytest.warns(UserWarning, match="cannot be locked") as told, writing(tmp_path / "out"):
            pass
    assert len(told) == 1
    with writing(tmp_path / "missing" / "out"):  # reported by whoever writes there
        pass
    with writing(tmp_path / f"{'n' * 250}.star"):
        assert len(list(tmp_path.iterdir())) == 1


WRITE = {
    "p.star": lambda folder, particles, _: particles.write(folder / "p.star", progress=False),
    "q.star": lambda folder, particles, _: ct.prepare(particles, folder / "q.star", progress=False),
    "c.pt": lambda folder, particles, model: ct.fit(model, particles, ct.TrainingConfig(checkpoint=folder / "c.pt")),
    "path.json": lambda folder, _, model: ct.write_pathway(
        folder, ct.max_flux(model.prior, 0, 1, n_steps=2), np.zeros((3, 16, 16, 16)), 1.0
    ),
    "s.pkl": lambda folder, particles, _: ct.write_selection(folder / "s.pkl", particles, [0]),
    "states.star": lambda folder, particles, model: ct.write_states(folder, particles, np.zeros((30, 2)), model.prior),
}


@pytest.mark.parametrize("name", WRITE)
def test_functions_refuse_an_output_that_another_process_is_writing(name, tmp_path_factory, tmp_path):
    folder = tmp_path_factory.mktemp("in")
    ct.simulate.hinge(30, 16, progress=False).write(folder / "in.star", progress=False)
    particles, model = (
        ct.Particles.read(folder / "in.star", contrast="dark"),
        ct.CryoTwin(16, latent_dim=2, n_components=2),
    )
    model.prior = ct.GaussianMixture([0.6, 0.4], [[0.0, 0.0], [3.0, 0.0]], np.stack([np.eye(2)] * 2))
    named(lock_path(tmp_path / name), machine="other", process=7, host="node7")
    with pytest.raises(InputError, match="is being written by process 7 on node7"):
        WRITE[name](tmp_path, particles, model)
    assert [path.name for path in tmp_path.iterdir()] == [f".{name}.lock"]
