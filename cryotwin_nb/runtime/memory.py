"""Memory available to the process: free system memory and the limits set on the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

_UNLIMITED = 2**60  # cgroup v1 reports a huge number if there is no limit


def available(device: torch.device | str = "cpu", root: Path = Path("/")) -> float:
    """Return the number of bytes that can still be allocated on a device; infinity if unknown.

    On the CPU, this is the minimum of free memory, remaining cgroup limits (v1 or v2, set by batch queues and
    containers), and remaining limits on the address space and data of the process.

    Parameters
    ----------
    device : torch.device or str
        Device to query.
    root : path, optional
        Folder that contains proc and sys.
    """
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min([_free(root), *_groups(root), *_process_limits(root)])


def _free(root: Path) -> float:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024.0
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))  # macOS: total memory
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _groups(root: Path) -> Iterator[float]:
    """Yield the remaining bytes of each memory cgroup of this process and of the parents of that cgroup."""
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
        # in a container, `path` can be the path on the host; the mount point is then the container's own cgroup
        for folder in (group, *group.parents):
            most = _number(folder / limit)
            if most is not None and most < _UNLIMITED:
                yield max(0.0, most - (_number(folder / used) or 0.0) + _reclaimable(folder))
            if folder == base:
                break


def _reclaimable(folder: Path) -> float:
    """Return the bytes of a cgroup's page cache, which count as used but are released when needed."""
    lines = dict(line.split() for line in _read(folder / "memory.stat").splitlines() if len(line.split()) == 2)
    return sum(float(lines.get(name, 0)) for name in ("inactive_file", "active_file"))


def _process_limits(root: Path) -> Iterator[float]:
    """Yield the bytes that remain below the limits on address space and data (ulimit -v, ulimit -d)."""
    try:
        import resource
    except ImportError:  # not available on Windows
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
