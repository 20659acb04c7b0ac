"""Free memory: control groups of both versions, as files in a folder, and process limits."""

import subprocess
import sys
from pathlib import Path

import pytest

from cryotwin_nb.runtime.memory import available

GIB = 2**30


@pytest.fixture
def machine(tmp_path):
    """Create /proc and /sys of a machine with 16 GiB free in a folder; return a function that adds files."""

    def add(name: str, text: object) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    add("proc/meminfo", f"MemTotal: {32 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {16 * 2**20} kB")
    return tmp_path, add


def test_free_memory_counts_where_there_is_no_limit(machine):
    assert available("cpu", machine[0]) == 16 * GIB


def test_version_2_counts_the_tightest_group_around_the_process_and_not_the_cached_files(machine):
    root, add = machine
    add("proc/self/cgroup", "0::/slurm/job_7/step_0")
    add("sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max")
    add("sys/fs/cgroup/slurm/job_7/memory.max", 6 * GIB)
    add("sys/fs/cgroup/slurm/job_7/memory.current", 5 * GIB)
    add("sys/fs/cgroup/slurm/job_7/memory.stat", f"anon {3 * GIB}\ninactive_file {2 * GIB}\nactive_file 0")
    assert available("cpu", root) == 3 * GIB


def test_version_1_counts_too_and_in_a_container_its_mount(machine):
    root, add = machine
    add("proc/self/cgroup", "9:cpu:/\n4:memory:/docker/abc\n0::/")
    add("sys/fs/cgroup/memory/memory.limit_in_bytes", 4 * GIB)
    add("sys/fs/cgroup/memory/memory.usage_in_bytes", GIB)
    assert available("cpu", root) == 3 * GIB
    add("sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)  # the value for "no limit"
    assert available("cpu", root) == 16 * GIB


def test_more_used_than_allowed_leaves_nothing(machine):
    root, add = machine
    add("proc/self/cgroup", "0::/")
    add("sys/fs/cgroup/memory.max", GIB)
    add("sys/fs/cgroup/memory.current", 2 * GIB)
    assert available("cpu", root) == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_limits_of_the_process_count(kind):
    limited = f"""if True:
        import resource
        from cryotwin_nb.runtime.memory import available
        free = available()
        used = dict(line.split(":") for line in open("/proc/self/status"))
        used = int(used[{{"RLIMIT_AS": "VmSize", "RLIMIT_DATA": "VmData"}}["{kind}"]].split()[0]) * 1024
        resource.setrlimit(resource.{kind}, (used + 2**29, used + 2**29))
        print(free, available())"""
    free, left = map(float, subprocess.check_output([sys.executable, "-c", limited], text=True).split())
    assert free > left and abs(left - 2**29) < 2**26
