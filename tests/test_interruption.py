"""Ctrl-C at any moment: one line, exit status 130, no hidden file, also where libraries swallow an exception."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main

ENVIRONMENT = os.environ | {"PYTHONPATH": f"{Path(ct.__file__).parents[1]}", "OMP_NUM_THREADS": "1"}
LINE = "Interrupted. `train --resume` and `prepare` resume where they stopped.\n"


@pytest.fixture(scope="module")
def star(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("particles") / "p.star"
    ct.simulate.hinge(30, 16, progress=False).write(path, progress=False)
    return path


def raising(error: BaseException):
    def work(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        raise error

    return work


def swallowing(*_, **__):
    class Noisy:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    Noisy()  # the interruption is raised within its destructor, where Python ignores it
    time.sleep(5)
    raise AssertionError("not interrupted")


def converting(*_, **__):
    try:
        raising(AssertionError())()
    except KeyboardInterrupt as error:
        raise ImportError("a library could not be loaded") from error


def handled_with_files(folder: Path):
    from cryotwin_nb.formats.files import atomic
    from cryotwin_nb.runtime.locks import writing

    def work(*_, **__):
        open_lock, open_file = writing(folder / "a"), atomic(folder / "b")
        open_lock.__enter__()
        open_file.__enter__().write_text("partial")
        left.extend([open_lock, open_file])  # never closed, as in the moment before a `with` statement begins
        assert len(list(folder.iterdir())) == 2
        raise KeyboardInterrupt

    left: list = []
    return work


@pytest.mark.parametrize(
    "work", [raising(AssertionError()), swallowing, converting], ids=["raised", "swallowed", "lost"]
)
def test_one_line_and_130(work, star, monkeypatch, capsys):
    monkeypatch.setattr("cryotwin_nb.preparation.first_look", work)
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    assert main(["look", f"{star}", "--contrast", "dark"]) == 130
    assert capsys.readouterr().err.rpartition("\r")[2] == LINE
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


def test_hidden_files_are_removed_even_if_nothing_closes_them(star, tmp_path, monkeypatch):
    monkeypatch.setattr("cryotwin_nb.preparation.first_look", handled_with_files(tmp_path))
    assert main(["look", f"{star}", "--contrast", "dark"]) == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("delay", [0.15, 0.6, 1.2])
def test_an_interrupted_import_is_reported_as_any_other(delay, star, tmp_path):
    command = [sys.executable, "-m", "cryotwin_nb", "prepare", f"{star}", "--output", f"{tmp_path / 'out' / 'q.star'}"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while maps.exists() and process.poll() is None and "_datetime" not in maps.read_text():
            time.sleep(0.005)  # until Python itself has started
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    if process.returncode:
        assert process.returncode == 130 and error.replace("\r", "\n").count(LINE) == 1 and "Traceback" not in error
        left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
        assert not [path for path in left if path.name.startswith(".") and "unfinished" not in path.name]


def test_a_second_signal_ends_the_process_at_once(star, tmp_path):
    program = f"""
import os, signal, sys, time
import cryotwin_nb.preparation as preparation
from cryotwin_nb.__main__ import run
from cryotwin_nb.runtime.locks import writing
def work(*_, **__):
    with writing({str(tmp_path / "a")!r}):
        try:
            os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)
preparation.first_look = work
sys.argv = ["cryotwin", "look", {str(star)!r}, "--contrast", "dark"]
run()
"""
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 130 and done.stderr.endswith(LINE) and done.stderr.count("Interrupted") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_python_ends_does_not_change_the_status_of_complete_work(number):
    program = f"""
import os, sys
from cryotwin_nb.__main__ import run
class Late:
    def __del__(self, kill=os.kill, process=os.getpid()):
        kill(process, {int(number)})
late = Late()  # deleted when Python has taken back its own handlers
sys.argv = ["cryotwin", "--version"]
sys.exit(run())
"""
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0 and done.stdout and not done.stderr
