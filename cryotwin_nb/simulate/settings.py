"""Checks of the settings of simulated data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryotwin_nb.errors import InputError, flag, known_options, positive, whole
from cryotwin_nb.imaging.fourier import require_box_size
from cryotwin_nb.runtime.memory import available

_FRACTIONS, _SPREADS = ("edge_fraction", "junk"), ("pose_error", "shift_error", "contrast_std", "shift_std")
_FLAGS = ("images", "progress")
_BYTES = 200  # of each particle's poses, CTF and truth


def checked(
    n_particles: Any,
    box_size: Any,
    pixel_size: Any,
    snr: Any,
    seed: Any,
    options: Mapping[str, Any],
    edge_fraction: Any = 0.0,
) -> tuple[int, int, int]:
    """Return number of particles, box size and seed as integers; parameters as in `assembly`.

    Raises
    ------
    InputError
        If a setting is unknown or out of range, or the images would not fit in memory.
    """
    n, seed = whole("n_particles", n_particles, "Request at least one image."), whole("seed", seed, "Pass 0.", least=0)
    size = require_box_size(whole("box_size", box_size, "Pass the box size in pixels."))
    if pixel_size is not None:
        positive("pixel_size", pixel_size, "Pass it in Å, or omit it.")
    if snr is not None:
        positive("snr", snr, "Use 0.25 for 64 pixels, 1.0 for 32.")
    known_options("simulate", options, ("junk", *_SPREADS, *_FLAGS))
    for name, value in {**options, "edge_fraction": edge_fraction}.items():
        if name in _FLAGS:
            flag(name, value)
        elif value != 0:
            positive(name, value, "Pass 0, or a positive number.")
        if name in _FRACTIONS and value > 1:
            raise InputError(name, f"{value}", "a fraction from 0 to 1", "Pass 0.1 for 10 %.")
    needed = n * (_BYTES + (12 * size**2 if options.get("images", True) else 0))  # images, noise and their sum
    if needed > (free := available()):
        found = f"{n:,} images of {size} pixels, which need {needed / 2**30:.3g} GiB"
        remedy = "Request fewer or smaller images, or pass images=False."
        raise InputError("n_particles", found, f"at most {free / 2**30:.3g} GiB, the free memory", remedy)
    return n, size, seed
