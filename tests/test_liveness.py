"""Silent processes are reported and given up; one that computes alone is not. As a script: one of two processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch

import cryotwin_nb as ct
from cryotwin_nb.runtime import distributed
from cryotwin_nb.runtime.leaving import remove_on_leaving

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path(ct.__file__).parents[1]}"}
LIMIT = 3.0  # seconds


def main(case: str, folder: Path) -> None:
    torch.set_num_threads(1)
    with distributed.joined("cpu", patience=LIMIT / 60):
        distributed.total(1.0)
        hidden = folder / f".{distributed.rank()}"
        hidden.touch()
        remove_on_leaving(hidden, hidden.unlink)
        if case == f"{distributed.rank()} stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        print(distributed.first(compute if case == "0 computes" else os.getpid), flush=True)


def compute() -> str:
    until, matrix = time.monotonic() + 1.5 * LIMIT, torch.ones(100, 100)
    while time.monotonic() < until:
        matrix = matrix @ matrix / 100
    return "computed"


def both(case: str, folder: Path) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    environments = [ENVIRONMENT | shared | {"RANK": f"{k}", "LOCAL_RANK": f"{k}"} for k in range(2)]
    command = [sys.executable, __file__, case, f"{folder}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, env=environment, **pipes) for environment in environments]


def test_a_process_that_computes_alone_is_not_given_up(tmp_path):
    processes = both("0 computes", tmp_path)
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert [out for out, _ in ended] == ["computed\n"] * 2 and not any("given up" in error for _, error in ended)


def test_a_silent_process_is_reported_and_given_up(tmp_path):
    for silent in (0, 1):
        (tmp_path / f"{silent}").mkdir()
    pairs = [both(f"{silent} stops", tmp_path / f"{silent}") for silent in (0, 1)]
    for silent, processes in enumerate(pairs):
        error = processes[1 - silent].communicate(timeout=120)[1]
        processes[silent].kill()
        processes[silent].communicate()
        who = f"Process {silent} on {socket.gethostname()} has sent no heartbeat for"
        assert processes[1 - silent].returncode == 2, error
        assert f"note: {who}" in error and f"error: {who} {LIMIT / 60:.3g} minutes: given up.\n" in error
        assert [path.name for path in (tmp_path / f"{silent}").iterdir()] == [f".{silent}"]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
