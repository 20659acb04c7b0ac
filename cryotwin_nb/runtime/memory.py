"""How much memory a process may still take: what the system has free, and the limits set on this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

_UNLIMITED = 2**60  # cgroup v1 writes a huge number where there is no limit


def available(device: torch.device | str = "cpu", root: Path = Path("/")) -> float:
    """Bytes that can still be allocated on a device; infinity where nothing says.

    On the CPU, the minimum of free memory, of what remains of the limits of the process's control groups (version 1 or
    2, as batch queues and containers set them), and of the limits on its address space and data.

    Parameters
    ----------
    root : path, optional
        Where /proc and /sys are.
    """
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min([_free(root), *_groups(root), *_process_limits(root)])


def _free(root: Path) -> float:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024.0
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))  # macOS: all there is
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _groups(root: Path) -> Iterator[float]:
    """What is left of the limit of each control group of this process, and of those around it."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, used = mount, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, used = mount / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        # in a container the path may be that of the host: then the mount itself is the container's
        for folder in (group, *group.parents):
            most = _number(folder / limit)
            if most is not None and most < _UNLIMITED:
                yield max(0.0, most - (_number(folder / used) or 0.0) + _reclaimable(folder))
            if folder == base:
                break


def _reclaimable(folder: Path) -> float:
    """Bytes of a control group that are copies of files: they count as used and are given up when needed."""
    lines = dict(line.split() for line in _read(folder / "memory.stat").splitlines() if len(line.split()) == 2)
    return sum(float(lines.get(name, 0)) for name in ("inactive_file", "active_file"))


def _process_limits(root: Path) -> Iterator[float]:
    """What is left of the limits on address space and on data (ulimit -v, ulimit -d)."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    status = dict(line.split(":", 1) for line in _read(root / "proc/self/status").splitlines() if ":" in line)
    for kind, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            yield max(0.0, most - int(status.get(name, "0 kB").split()[0]) * 1024.0)


def _number(path: Path) -> float | None:
    text = _read(path).strip()
    return float(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
