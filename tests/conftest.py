"""Fixtures that several test modules use."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Small tensors: on a busy machine a second thread costs more than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items):
    """The notebooks take longest: they begin while the other process works on the rest."""
    items.sort(key=lambda item: "notebooks" not in item.keywords)
