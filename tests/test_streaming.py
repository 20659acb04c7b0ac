"""Prefetching images: order, errors and end of the thread, and caching in memory."""

import threading
import time

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.particles import streaming
from cryotwin_nb.particles.streaming import PreparedImages, chunks, prefetched


def threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_results_come_in_order_and_no_more_than_one_ahead():
    asked = []

    def function(item):
        asked.append(item)
        return 10 * item

    for number, result in enumerate(prefetched(function, range(20))):
        assert result == 10 * number
        time.sleep(0.002)
        assert max(asked) <= number + 1  # otherwise the memory for waiting images would be unbounded
    assert number == 19 and threads() == 0


def test_the_next_result_is_made_while_the_present_one_is_used():
    started = threading.Event()

    def function(item):
        if item == 1:
            started.set()
        return item

    results = prefetched(function, range(3))
    assert next(results) == 0 and started.wait(5)


def test_nothing_gives_nothing():
    assert list(prefetched(lambda item: item, [])) == []


def test_an_error_of_the_thread_comes_at_its_turn_with_its_message():
    def function(item):
        if item == 2:
            raise ct.InputError("stack.mrcs", "item 2", "a good one", "Mend it.")
        return item

    results = prefetched(function, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ct.InputError, match=r"stack\.mrcs: found item 2"):
        next(results)
    assert threads() == 0


def test_the_thread_ends_as_soon_as_nobody_wants_more():
    done = []
    results = prefetched(lambda item: (time.sleep(0.05), done.append(item)), range(1000))
    next(results)
    began = time.perf_counter()
    results.close()
    assert time.perf_counter() - began < 1 and len(done) <= 3 and threads() == 0


@pytest.fixture(scope="module")
def measured():
    particles = ct.simulate.hinge(40, 16, progress=False)
    model = ct.CryoTwin(16, n_components=1)
    model.imaging.measure(particles)
    return model.imaging, particles


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tuple(a), tuple(b), strict=True))


def test_kept_and_streamed_images_are_the_same_and_kept_ones_are_read_once(measured, monkeypatch):
    imaging, particles = measured
    order = np.array_split(np.random.default_rng(0).permutation(40), 3)
    kept, streamed = (PreparedImages(imaging, particles, gib, slice(0, 40)) for gib in (1.0, 0.0))
    for a, b in zip(kept.batches(order), streamed.batches(order), strict=True):
        assert torch.allclose(a.data, b.data, atol=1e-5) and same(a[1:], b[1:])
    monkeypatch.setattr(particles, "images", lambda rows: pytest.fail("read again"))
    assert sum(len(batch.data) for batch in kept.chunks()) == 40


def test_rows_that_are_not_kept_are_read_when_they_are_asked_for(measured):
    imaging, particles = measured
    some = PreparedImages(imaging, particles, 1.0, slice(10, 20))
    (batch,) = some.batches([np.array([3, 12])])
    assert torch.allclose(batch.data, imaging.batch(particles, np.array([3, 12])).data, atol=1e-5)
    (inside,) = some.batches([np.array([19, 10])])
    assert torch.equal(inside.rotations, torch.as_tensor(particles.rotations[[19, 10]]))


def test_half_of_the_free_memory_at_most_is_used(measured, monkeypatch):
    imaging, particles = measured
    needed = 40 * len(imaging.frequencies) * 12
    for free, keeps in ((1.9 * needed, False), (2.1 * needed, True)):
        monkeypatch.setattr(streaming, "available", lambda device, free=free: free)
        assert PreparedImages(imaging, particles, 4.0, slice(0, 40))._keep is keeps
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # two processes share it
    assert not PreparedImages(imaging, particles, 4.0, slice(0, 40))._keep


def test_chunks_hold_every_image_once_and_fewer_of_large_ones():
    for n, box, most in ((1000, 64, 256), (1000, 128, 256), (1000, 256, 64), (3, 512, 16)):
        rows = chunks(n, box)
        np.testing.assert_array_equal(np.concatenate(rows), np.arange(n))
        assert max(map(len, rows)) <= most
