"""Heartbeats of the processes of a distributed training, sent by a thread while the process computes or waits.

A process whose machine fails, or that is suspended, would let the others wait for ever. A process that computes alone
while the others wait, such as the first one when it fits mixtures, keeps sending.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from cryotwin_nb.runtime.leaving import remove_hidden_files

_INTERVAL, _REPORTED_AFTER = 5.0, 60.0  # seconds
_ENDED = 2**40  # added to the count of a process that has finished
_FAILED = 2


@contextmanager
def watched(rank: int, world: int, patience: float) -> Iterator[None]:
    """Send heartbeats, and end this process if another one stays silent.

    The first process watches all others, and they watch the first, through a connection of their own to the store.

    Parameters
    ----------
    rank, world : int
        Rank of this process; number of processes.
    patience : float
        Time without a heartbeat after which a process is given up, minutes. It is reported after a quarter of this
        time, and at the latest after a minute.
    """
    beats = _Heartbeats(rank, world, 60 * patience)
    threads = [threading.Thread(target=work, name="heartbeat", daemon=True) for work in (beats.send, beats.watch)]
    for thread in threads:
        thread.start()
    yield
    beats.done.set()
    for thread in threads:
        thread.join(1.0)
    with suppress(RuntimeError):
        beats.store.add(f"{rank}", _ENDED)


class _Heartbeats:
    def __init__(self, rank: int, world: int, limit: float) -> None:
        self.rank, self.limit, self.done = rank, limit, threading.Event()
        self.interval = min(_INTERVAL, limit / 20)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(minutes=2), wait_for_workers=False)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = dist.PrefixStore(f"cryotwin heartbeats {attempt}", store)
        self.store.set(f"host {rank}", socket.gethostname())
        watched = range(1, world) if rank == 0 else (0,)
        self.hosts = {other: self.store.get(f"host {other}").decode() for other in watched}
        self.seen = {other: (0, time.monotonic()) for other in watched}  # last count, and since when

    def send(self) -> None:
        """Send heartbeats and note those of others. Calls block while the machine of the store does not answer."""
        while not self.done.wait(self.interval):
            with suppress(RuntimeError):
                self.store.add(f"{self.rank}", 1)
                for other, (before, _) in self.seen.items():
                    count = self.store.add(f"{other}", 0)
                    if count != before:
                        self.seen[other] = count, time.monotonic()

    def watch(self) -> None:
        """Report silent processes and give them up."""
        reported: set[int] = set()
        last = time.monotonic()
        while not self.done.wait(self.interval):
            now = time.monotonic()
            if now - last > 4 * self.interval:  # this process was suspended, perhaps with the others
                self.seen = {other: (count, now) for other, (count, _) in self.seen.items()}
            last = now
            for other, (count, since) in list(self.seen.items()):
                silence = now - since
                if count >= _ENDED or silence < min(_REPORTED_AFTER, self.limit / 4):
                    reported.discard(other)
                elif silence > self.limit:
                    self._give_up(other)
                elif other not in reported:
                    reported.add(other)
                    self._print(f"note: {self._named(other)} has sent no heartbeat for {silence:.0f} s.")

    def _give_up(self, other: int) -> None:
        silent = f"{self._named(other)} has sent no heartbeat for {self.limit / 60:.3g} minutes"
        remedy = "Check that machine, then repeat the command with --resume. --patience MINUTES sets the limit."
        self._print(f"error: {silent}: given up.\n{remedy}")
        remove_hidden_files()
        os._exit(_FAILED)

    def _named(self, other: int) -> str:
        return f"Process {other} on {self.hosts[other]}"

    def _print(self, text: str) -> None:
        if self.rank < 2:  # of those that watch the first process, one reports
            print(text, file=sys.stderr, flush=True)
