"""Fixtures shared by several test modules."""

import difflib

import approval
import pytest
import torch

DRAWING = ("test_plotting", "test_explorer", "test_naming")  # modules whose figures and widgets are approved


def pytest_addoption(parser):
    parser.addoption("--approve", action="store_true", help="store what the tests draw as approved")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Compare the figures and widgets that a test leaves with the approved ones (see `approval`)."""
    module = item.module.__name__
    if not module.startswith(DRAWING) or module.endswith("browser"):
        return (yield)
    before = approval.existing()
    result = yield
    compare(item, approval.drawn(before))
    return result


def compare(item, lines, tolerance=1e-3, anywhere=True):
    """Fail unless `lines` are those approved for this test; with --approve, store them.

    Rounding differs between processors, and training amplifies it: such results are compared on one processor only.
    """
    module = item.module.__name__
    if not (anywhere or item.config.getoption("approve") or approval.same_processor(module)):
        pytest.skip("approved on another processor")
    if item.config.getoption("approve"):
        if approval.stored(module).get(item.name) != ["varies"]:
            approval.store(module, {item.name: lines})
    elif lines and approval.comparable(module):
        expected = approval.stored(module).get(item.name, [])
        if expected != ["varies"] and not approval.equal(lines, expected, tolerance):
            change = "\n".join(difflib.unified_diff(expected, lines, "approved", "found", lineterm="", n=0))
            pytest.fail(f"This is not what was approved. If it is right: pytest --approve\n{change}", pytrace=False)


@pytest.fixture
def approved(request):
    """Return a function that compares lines with those approved for this test."""
    return lambda lines, tolerance=1e-3, anywhere=True: compare(request.node, lines, tolerance, anywhere)


@pytest.fixture(scope="module")
def one_thread():
    """Use one thread: tensors are small, and on a busy machine a second thread slows them down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items):
    """Run the notebooks first: they take longest, and the other process runs the rest meanwhile."""
    items.sort(key=lambda item: "notebooks" not in item.keywords)
