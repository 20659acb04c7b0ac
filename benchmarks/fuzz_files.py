"""Small files with less common features, beside those of the test suite, for `fuzz_readers.py`."""

from __future__ import annotations

import re
from pathlib import Path

import fuzz_damage  # noqa: F401 (finds the test suite)
import numpy as np
from test_fuzz_readers import cs_table, star_31

import cryotwin_nb as ct


def write_more(folder: Path) -> None:
    """Write files with less common features, beside those of the test suite."""
    lines = star_31().replace("_rlnOpticsGroup #10\n", "_rlnOpticsGroup #10\n_rlnPhaseShift\n_rlnOddZernike\n", 1)
    lines = re.sub(r"(@stack.*) (\d)\n", r"\1 \2 90 [0,1.5,2]\n", lines).replace("45 1", "45 1 ", 1)
    (folder / "rich.star").write_text(lines.replace("1@stack.mrcs", "'1@stack.mrcs'", 1) + "# end\n")
    rows = cs_table()
    more = [("alignments3D_multi/pose", "<f4", (3, 3)), ("alignments3D_multi/class_posterior", "<f4", (3,))]
    more += [("alignments3D_multi/shift", "<f4", (3, 2)), ("blob/sign", "<f4"), ("ctf/phase_shift_rad", "<f4")]
    kept = [name for name in rows.dtype.names if not name.startswith("alignments3D/")]
    rich = np.zeros(len(rows), [(name, rows.dtype[name]) for name in kept] + more)
    for name in kept:
        rich[name] = rows[name]
    rich["blob/sign"] = -1
    rich["alignments3D_multi/class_posterior"] = np.eye(4, 3)
    save(folder / "rich.cs", rich)
    uid = np.array([7, 2**60, 3, 12], "<u8")
    for name, own in {"first.cs": ("alignments3D/", "ctf/"), "second.cs": ("blob/",)}.items():
        part = [field for field in rows.dtype.names if field.startswith(own)]
        joined = np.zeros(len(rows), [("uid", "<u8")] + [(field, rows.dtype[field]) for field in part])
        joined["uid"] = uid if name == "first.cs" else uid[::-1]
        for field in part:
            joined[field] = rows[field]
        save(folder / name, joined)

    modes = np.zeros(len(rows), [("uid", "<u8"), *((f"components_mode_{k}/value", "<f4") for k in range(2))])
    modes["uid"] = uid
    save(folder / "latents.cs", modes)
    save(folder / "latents.npy", np.ones((len(rows), 2), np.float32))
    np.savetxt(folder / "latents.txt", np.ones((len(rows), 2)))
    particles = ct.Particles.read(folder / "old.star", images=False)
    ct.write_selection(folder / "copied.star", particles)  # with a record of its rows


def save(path: Path, rows: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, rows)
