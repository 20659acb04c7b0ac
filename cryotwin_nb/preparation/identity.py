"""Identity of the input of an interrupted preparation."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from cryotwin_nb.particles.particles import Particles


def identity_of(particles: Particles, chunk: int) -> str:
    """Return a hash of the metadata, and of the images, or the sizes and modification times of their files.

    Parameters
    ----------
    particles : Particles
        Particles to prepare.
    chunk : int
        Number of images to read at a time.
    """
    digest = hashlib.sha256(f"{len(particles)} {particles.pixel_size} {particles.contrast}".encode())
    ctf = particles.ctf
    arrays = [] if ctf is None else [getattr(ctf, f.name) for f in fields(ctf)]
    for array in (particles.rotations, particles.shifts, particles.optics_group, *arrays):
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    for path in sorted(filter(None, particles.files.values())):
        digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    for rows in np.array_split(np.arange(len(particles)), -(-len(particles) // chunk)):
        if particles.files:
            digest.update("".join(map(particles.image_name, rows.tolist())).encode())
        else:
            digest.update(np.ascontiguousarray(particles.images(rows)).tobytes())
    return digest.hexdigest()[:16]
