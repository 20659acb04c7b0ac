"""Calls stopped at every step on the disk: python benchmarks/stops.py [--only prepare].

Each call that writes several files is run over a former output of the same kind, and its process is ended before and
after each file that it opens for writing, renames, removes or flushes. Then the files are read: all of the former
output must be found, or all of the new one. After that the call is run again, which must give the new output.

Writes benchmarks/results/stops.json: for each call, how often the former output, the new one, a mixture or a refusal
was found, and how often running it again did not help.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["NUMBA_THREADING_LAYER"] = "workqueue"  # the other threads do not survive a fork
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from common import RESULTS, machine, write_results
from outputs_of_calls import cases, make
from stopping import after_stops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="", help="part of the names of the calls to stop; the results of the others are kept"
    )
    args = parser.parse_args()
    results = RESULTS / "stops.json"
    found = json.loads(results.read_text())["found after a stop"] if args.only and results.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name, "inputs")
        inputs.mkdir()
        make(inputs)
        for number, (call, case) in enumerate(cases(inputs).items()):
            if args.only not in call:
                continue
            former, began = Path(name, f"former{number}"), time.perf_counter()
            former.mkdir()
            case.former(former)
            counts = after_stops(case.call, case.state, former, Path(name, f"work{number}"), again=True)
            found[call] = {key: counts[key] for key in ("old", "new", "refused", "mixed", "again")}
            print(f"{call}: {found[call]}, {time.perf_counter() - began:.0f} s", flush=True)
            write_results("stops", {"machine": machine(), "found after a stop": found})


if __name__ == "__main__":
    main()
