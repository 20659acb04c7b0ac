"""A command that prints nothing for a second shows that it works."""

from __future__ import annotations

import io
import sys
import time
from itertools import pairwise

from tqdm.auto import tqdm

from cryotwin_nb.runtime.heartbeat import heartbeat


class Timed(io.StringIO):
    """A stream that keeps the time of each write."""

    def __init__(self) -> None:
        super().__init__()
        self.times = [time.monotonic()]

    def write(self, text: str) -> int:
        self.times.append(time.monotonic())
        return super().write(text)


def silences(stream: Timed) -> list[float]:
    times = [*stream.times, time.monotonic()]
    return [after - before for before, after in pairwise(times)]


def test_silent_work_shows_its_name_and_the_time(monkeypatch):
    stream = Timed()
    monkeypatch.setattr(sys, "stderr", stream)
    with heartbeat("states"):
        time.sleep(3.5)
    assert max(silences(stream)) < 2
    assert "states: 1 s" in stream.getvalue() and "states: 3 s" in stream.getvalue()
    assert stream.getvalue().endswith("\r") and sys.stderr is stream


def test_a_bar_that_stands_still_is_redrawn_with_its_time(monkeypatch):
    stream = Timed()
    monkeypatch.setattr(sys, "stderr", stream)
    with heartbeat("train"):
        for _ in tqdm(range(1), desc="closed form"):
            time.sleep(3.5)
    assert max(silences(stream)) < 2
    assert "00:02" in stream.getvalue() and "train:" not in stream.getvalue()


def test_work_that_prints_is_left_alone(monkeypatch):
    stream, out = Timed(), Timed()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", out)
    with heartbeat("look"):
        for number in range(5):
            print(number)
            time.sleep(0.5)
    assert stream.getvalue() == "" and out.getvalue().split() == list("01234")


def test_the_next_output_begins_on_a_clean_line(monkeypatch):
    terminal = Timed()  # both streams of a terminal
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with heartbeat("states"):
        time.sleep(1.6)
        print("S1")
    shown = terminal.getvalue()
    assert "states: 1 s" in shown and shown[: shown.index("S1")].endswith(" \r")
