"""Distributed training in several processes (torchrun): their shares of the images, and sums over all processes.

In a single process every function is a no-op, so callers need no special case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cryotwin_nb.errors import InputError, positive
from cryotwin_nb.runtime.liveness import watched

T = TypeVar("T")

_UNLIMITED = timedelta(days=24)  # `liveness` decides how long to wait; Gloo counts milliseconds in 32 bits


@contextmanager
def joined(device: str | None = None, patience: float = 10.0) -> Iterator[None]:
    """Join the processes started by torchrun, if any: NCCL between GPUs (one per process), otherwise Gloo.

    Parameters
    ----------
    device : str, optional
        Device to train on; by default, GPUs if available.
    patience : float
        Time after which a process is given up that sends no heartbeat (see `liveness`), minutes.

    Raises
    ------
    InputError
        If a machine has fewer GPUs than processes, or the patience is not positive.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    patience = positive("--patience", patience, "Pass a positive number of minutes; the default is 10.")
    on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    if on_gpu:
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            remedy = f"Start torchrun with --nproc-per-node {gpus} or fewer, or pass --device cpu."
            sentence = f"torchrun started more processes than this machine has GPUs ({gpus})."
            raise InputError("torchrun", f"{gpus} GPUs", "a GPU for each process", remedy, sentence)
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_UNLIMITED)
    with watched(dist.get_rank(), dist.get_world_size(), patience):
        yield
        all_sum(torch.zeros(1))  # all end together
    dist.destroy_process_group()  # skipped after an error, when other processes may still be waiting


def rank() -> int:
    """Return the rank of this process; rank 0 writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(n: int) -> slice:
    """Return the slice of n rows assigned to this process: contiguous blocks in rank order, as equal as possible."""
    return slice(n * rank() // world(), n * (rank() + 1) // world())


def all_sum(*tensors: Tensor) -> None:
    """Replace tensors, in place, by their sums over the processes."""
    if world() == 1:
        return
    for tensor in tensors:
        # NCCL communicates GPU tensors only
        sent = (tensor.cuda() if dist.get_backend() == "nccl" else tensor).contiguous()
        _together(partial(dist.all_reduce, sent))
        if sent is not tensor:
            tensor.copy_(sent)


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients of parameters by their sums over the processes, in one exchange."""
    if world() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    all_sum(flat)
    for gradient, values in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(values.view_as(gradient))


def total(value: float) -> float:
    """Return the sum of a number over the processes."""
    summed = torch.tensor(value, dtype=torch.float64)
    all_sum(summed)
    return float(summed)


def gather(mine: Tensor, n: int) -> Tensor:
    """Return the rows (n, ...) of all processes; `mine` holds the rows `share(n)` and keeps its gradient."""
    if world() == 1:
        return mine
    rows, whole = share(n), mine.new_zeros(n, *mine.shape[1:])
    whole[rows] = mine.detach()
    all_sum(whole)
    return torch.cat([whole[: rows.start], mine, whole[rows.stop :]])


def assemble(parts: Iterable[tuple[Tensor, ...]], n: int) -> list[Tensor]:
    """Return fields (n, ...) of all processes; `parts` yields the rows `share(n)` of this process, a few at a time.

    Rows are copied into place as they arrive, so only one copy is held in memory.
    """
    whole: list[Tensor] = []
    start = share(n).start
    for part in parts:
        whole = whole or [field.new_zeros(n, *field.shape[1:]) for field in part]
        for target, rows in zip(whole, part, strict=True):
            target[start : start + len(rows)] = rows
        start += len(part[0])
    all_sum(*whole)
    return whole


def first(function: Callable[[], T]) -> T:
    """Call a function in the first process only and return its result in every process; tensors must be on the CPU."""
    if world() == 1:
        return function()
    result = [function() if rank() == 0 else None]
    _together(partial(dist.broadcast_object_list, result))
    return result[0]  # type: ignore[return-value]


def require_enough(n: int) -> None:
    """Raise `InputError` if there are fewer images (n) than processes."""
    if n < world():
        raise InputError(
            "torchrun", f"{world()} processes for {n} images", "an image for each process", "Start fewer processes."
        )


def _together(function: Callable[[], object]) -> None:
    """Run a collective operation; a failure means that another process has stopped and reported why."""
    try:
        function()
    except RuntimeError as error:
        remedy = "Read its error message, above or below this one."
        sentence = f"One of the {world()} processes has stopped."
        raise InputError("torchrun", "a stopped process", f"{world()} processes", remedy, sentence) from error
