"""Import time compared with PyTorch alone: python benchmarks/import_time.py

Starts twenty fresh processes of each kind in turn. Writes the medians and the packages that importing this package
loads to results/import_time.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from common import machine, write_results

KINDS = {
    "import torch": "import torch",
    "import torch, cryotwin_nb": "import torch, cryotwin_nb",
    "import cryotwin_nb": "import cryotwin_nb",
    "cryotwin_nb.CryoTwin": "import cryotwin_nb; cryotwin_nb.CryoTwin",
}
ROUNDS = 20


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(ROUNDS):
        for name, code in KINDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(time.perf_counter() - started)
    loaded = "import sys, cryotwin_nb; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    names = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    result = {
        "median seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "loaded by import cryotwin_nb": [name for name in names if name not in sys.stdlib_module_names],
        "machine": machine(),
    }
    write_results("import_time", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
