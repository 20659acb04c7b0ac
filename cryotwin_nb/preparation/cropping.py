"""Particles on a coarser grid, with images that are cropped in Fourier space when they are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import crop_images, require_box_size
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import cleaned


@dataclass(frozen=True)
class CroppedImages:
    """Particle images without hot pixels, Fourier-cropped to a smaller box when they are read."""

    particles: Particles
    box_size: int

    def __len__(self) -> int:
        return len(self.particles)

    def __getitem__(self, rows: np.ndarray) -> CroppedImages:
        return replace(self, particles=self.particles[rows])

    @property
    def files(self) -> dict[str, Path | None]:
        return self.particles.files

    def read(self, rows: np.ndarray) -> np.ndarray:
        images = crop_images(cleaned(self.particles, rows), self.box_size).numpy()
        return -images if self.particles.contrast == "light" else images

    @property
    def identity(self) -> np.ndarray:
        return self.particles.identity

    def name(self, row: int) -> str:
        return self.particles.image_name(row)


def cropped(particles: Particles, box_size: int) -> Particles:
    """Return the particles with images Fourier-cropped to `box_size` pixels and the same extent in Å.

    Images are only read when needed. Poses, shifts (Å), CTF and grey values do not change; pixel size and ground truth
    refer to the new grid.

    Raises
    ------
    InputError
        If the new box size is odd, below 8 or larger than the box size of the images.
    """
    size = particles.box_size
    if require_box_size(box_size) > size:
        found, remedy = f"{box_size} pixels", "Choose a smaller box: cropping cannot enlarge images."
        raise InputError("box_size", found, f"at most {size} pixels, the box size of the images", remedy)
    if box_size == size:
        return particles
    return Particles(
        CroppedImages(particles, box_size),
        particles.rotations,
        particles.shifts,
        particles.ctf,
        pixel_size=particles.pixel_size * size / box_size,
        optics_group=particles.optics_group,
        contrast=particles.contrast,
        truth=None if particles.truth is None else particles.truth.on_grid(box_size),
        where=particles.where,
        inputs=particles.inputs,
    )
