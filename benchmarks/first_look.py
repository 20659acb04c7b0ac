"""Findings of the first look on damaged data: python benchmarks/first_look.py [NAME ...].

The embedded data sets are written as files and read back as they are, and with four kinds of damage: transposed
rotations, inverted contrast, a pixel size off by 10 %, and half of the particles without their CTF parameters.
Writes benchmarks/results/first_look.json; takes a minute per data set.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from common import machine, write_results

import cryotwin_nb as ct

NAMES = ("assembly-small", "hinge-small", "assembly", "hinge")


def damaged(clean: ct.Particles, kind: str, star: Path) -> ct.Particles:
    """Return the particles as read from files with the given kind of damage."""
    rotations, ctf = clean.require_views()
    if kind == "transposed rotations":
        rotations = np.ascontiguousarray(rotations.swapaxes(1, 2))
    if kind == "half the CTF missing":
        half = np.arange(len(clean)) % 2 == 0
        there = {"defocus_u", "defocus_v", "defocus_angle"}
        ctf = replace(ctf, **{f.name: np.where(half, 0, getattr(ctf, f.name)) for f in fields(ctf) if f.name in there})
    images = clean.images(slice(None))
    ct.Particles(images, rotations, clean.shifts, ctf, pixel_size=clean.pixel_size).write(star, progress=False)
    contrast = "light" if kind == "inverted contrast" else "dark"
    factor = 1.1 if kind == "pixel size 10 % too large" else 1.0
    return ct.Particles.read(star, contrast=contrast, pixel_size=factor * clean.pixel_size)


KINDS = ("none", "transposed rotations", "inverted contrast", "pixel size 10 % too large", "half the CTF missing")


if __name__ == "__main__":
    results: dict = {"machine": machine()}
    for name in sys.argv[1:] or NAMES:
        clean = ct.data.fetch(name, progress=False)[:3000]
        results[name] = {}
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                look = ct.first_look(damaged(clean, kind, Path(folder) / "set.star"))
            found = [{"name": finding.name, "evidence": finding.evidence} for finding in look.findings]
            results[name][kind] = {"findings": found, "pose error": look.pose_error, "shift error": look.shift_error}
            print(f"{name}, damage {kind}:", ", ".join(finding["name"] for finding in found) or "silent", flush=True)
        write_results("first_look", results)
