"""What stops a training run: too little memory, found before it starts, and images that determine no map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from cryotwin_nb.errors import InputError, explained
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.runtime.memory import available

_UNITS = (140.0, 2.0, 0.5)  # memory of the closed-form passes / (4 D^3 bytes), a polynomial in the number of maps
_EXAMINED, _SAMPLE = 1000, 64  # images examined after a failure, and before the work
_ROUNDED = 1e-6  # deviation from the mean, relative to the grey values, that float32 hardly resolves


def needed(box_size: int, n_maps: int) -> float:
    """Return the bytes that the closed-form passes of the subspace architecture need at least.

    This is a lower bound, so that nothing is refused that would work. Peaks measured with 40 images on one thread, GB
    (and the bound): 0.09 (0.03) for D = 32 and 13 maps; 0.48 (0.19), 0.64 (0.26) and 1.2 (0.53) for D = 64 and 7, 13
    and 25 maps; 1.8 (0.88) for D = 96 and 13 maps; 2.1 (1.4) for D = 128 and 5 maps.

    Parameters
    ----------
    box_size : int
        Box size D, pixels.
    n_maps : int
        Number of maps, n_basis + 1.
    """
    constant, linear, quadratic = _UNITS
    return 4.0 * box_size**3 * (constant + linear * n_maps + quadratic * n_maps**2)


def require_device(device: str) -> torch.device:
    """Return a device of PyTorch, or raise `InputError` if it does not exist here."""
    try:
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        expected, remedy = "a device of this machine", "Pass cpu, cuda or cuda:1, or omit the device."
        raise InputError("device", f"{device!r} ({str(error).splitlines()[0][:100]})", expected, remedy) from error


def require_memory(model: CryoTwin) -> None:
    """Raise `InputError` if the memory on the device of a model is certainly too small to train it."""
    config = model.config
    if config["architecture"] != "subspace":
        return
    free, bytes_needed = available(model.device), needed(config["box_size"], config["n_basis"] + 1)
    if bytes_needed > free:
        size, n_basis = config["box_size"], config["n_basis"]
        sentence = (
            f"A box of {size} pixels and {n_basis} directions (n_basis) need at least {bytes_needed / 1e9:.2g} GB "
        )
        sentence += f"of memory; {free / 1e9:.2g} GB are free."
        raise InputError("fit", f"{free:.0f} free bytes", f"{bytes_needed:.0f}", _advice(config, free), sentence)


@contextmanager
def failures_explained(model: CryoTwin, particles: Particles) -> Iterator[None]:
    """Convert exhausted memory and singular matrices in a training run into an `InputError` with a remedy."""
    try:
        with explained("fit", _advice(model.config, available(model.device))):
            yield
    except InputError as error:
        if error.found != "a singular matrix":
            raise
        found, remedy = _examined(particles)
        sentence = f"Training stopped: the images do not determine a map. They have {found}."
        raise InputError(particles.where, found, "images that determine a map", remedy, sentence) from error


def _advice(config: dict, free: float) -> str:
    """Return what box size and number of maps would fit into free memory."""
    n_maps = config.get("n_basis", 0) + 1
    size = max((d for d in range(8, config["box_size"], 8) if needed(d, n_maps) < free / 3), default=None)
    if size is None or config["architecture"] != "subspace":
        return "Free memory, or use a machine with more of it."
    return f"Bring the images to a smaller box with `prepare --box-size {size}`, or use fewer maps (n_basis=)."


def require_values(particles: Particles) -> None:
    """Raise `InputError` if the signal of the images was lost in rounding, because their mean is too large."""
    _, spread, largest = _grey_values(particles, _SAMPLE)
    if np.median(spread) < _ROUNDED * np.median(largest):
        found, remedy = _rounded(spread, largest)
        sentence = f"The images do not determine a map. They have {found}."
        raise InputError(particles.where, found, "images that determine a map", remedy, sentence)


def _grey_values(particles: Particles, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of at most n images, their standard deviations and their largest absolute values."""
    rows = np.linspace(0, len(particles) - 1, min(len(particles), n)).astype(int)
    images = (particles.images([row])[0].astype(np.float64) for row in rows)
    spread, largest = np.array([(image.std(), np.abs(image).max()) for image in images]).T
    return rows, spread, largest


def _rounded(spread: np.ndarray, largest: np.ndarray) -> tuple[str, str]:
    found = f"grey values of about {np.median(largest):.3g} that deviate by {np.median(spread):.3g} from their mean"
    return found, "Subtract the mean before images are stored as float32, and leave out constant images."


def _examined(particles: Particles) -> tuple[str, str]:
    """Return what is unusual about the images, and what to do."""
    rows, spread, largest = _grey_values(particles, _EXAMINED)
    usual, worst = float(np.median(spread)), int(largest.argmax())
    where = particles.image_name(int(rows[worst]))
    if largest[worst] > 100 * max(float(np.median(largest)), usual):
        found = f"grey values up to {largest[worst]:.3g} in {where}; the median deviation is {usual:.3g}"
        return found, "Leave this image out with indices=, or extract it again."
    if usual < _ROUNDED * float(np.median(largest)):
        return _rounded(spread, largest)
    found = f"grey values that deviate by {usual:.3g} from their mean, and are up to {float(np.median(largest)):.3g}"
    return found, "Use images as extracted and normalised, neither masked nor filtered, with their own poses."
