"""What a prepared stack holds, and what is remarkable about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryotwin_nb.imaging.fourier import fft2, grid, n_shells, shell_mean
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.whitening import Whitening

_TIMES = 8.0  # the usual deviation, beyond which an image is suspicious
_USUAL = 0.02  # of the images' standard deviation: smaller deviations are those of normalised images
_HOT = 12.0  # times the usual difference of a pixel from its neighbours


@dataclass(frozen=True)
class Preparation:
    """Report of `prepare`.

    Attributes
    ----------
    path : Path
        The STAR file written.
    n, box_size, pixel_size : int, int, float
        Images; D in pixels; Å.
    contrast : {"dark", "light"}
        Contrast of the particles as recorded; in the stack they are dark.
    dtype : str
        Data type of the stack.
    whitened : bool
        Divided by the noise's spectrum; otherwise, in half precision, by its standard deviation.
    defocus : (n,) float64 or None
        Mean of both axes, µm, positive for underfocus.
    views : (n, 3) float32 or None
        Direction in which each particle is looked at, in the molecule's frame.
    evenness : float or None
        Evenness of the views over the sphere (`view_evenness`).
    suspicious : dict of int to str
        Images to look at, by their number from 0, and why.
    examples : dict of int to (D, D) float32
        Some images as they are in the stack, the first suspicious ones among them.
    frequency, image_power, noise_power : (D/2,) float64
        1/Å; mean power of the images' and of the noise's Fourier coefficients in each shell, before whitening and in
        one common unit. The noise is None where it was not measured.
    seconds : float
        It took this long.
    """

    path: Path
    n: int
    box_size: int
    pixel_size: float
    contrast: str
    dtype: str
    whitened: bool
    defocus: np.ndarray | None
    views: np.ndarray | None
    evenness: float | None
    suspicious: dict[int, str]
    examples: dict[int, np.ndarray]
    frequency: np.ndarray
    image_power: np.ndarray
    noise_power: np.ndarray | None
    seconds: float

    @property
    def resolution_limit(self) -> float:
        """The finest detail that the pixels can hold (Nyquist), Å."""
        return 2 * self.pixel_size

    def summary(self) -> str:
        """All of it in a few lines."""
        scaled = "noise of unit variance" if self.dtype == "float16" else "grey values as recorded"
        how = f"{self.dtype}, {'whitened' if self.whitened else scaled}, dark"
        turned = "" if self.contrast == "dark" else " (recorded as light, inverted)"
        lines = [
            f"{self.path}: {self.n:,} images, box {self.box_size} px at {self.pixel_size:.4g} Å/px",
            f"resolution limit: {self.resolution_limit:.3g} Å; {how}{turned}; {self.seconds:.0f} s",
        ]
        if self.defocus is None:
            lines.append("defocus: unknown")
        else:
            low, middle, high = np.quantile(self.defocus, (0.05, 0.5, 0.95))
            lines.append(f"defocus: median {middle:.2f} µm, nine tenths between {low:.2f} and {high:.2f} µm")
        known = self.evenness is not None
        lines.append(f"views: evenness {self.evenness:.2f} (1: all directions alike)" if known else "views: unknown")
        reasons = Counter(reason for why in self.suspicious.values() for reason in why.split("; "))
        kinds = Counter(reason.split(" of image ")[0] for reason in reasons.elements())
        listed = ", ".join(f"{count} {reason}" for reason, count in kinds.most_common())
        lines.append(f"suspicious images: {len(self.suspicious)}{f' ({listed})' if listed else ''}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.summary()}>"


def report(
    path: Path, source: Particles, kept: dict[str, np.ndarray], whitening: Whitening | None, dtype: str, seconds: float
) -> Preparation:
    """The report on a stack that was just written.

    Parameters
    ----------
    path : Path
        Its STAR file.
    source : Particles
        What it was made from, on the new grid.
    kept : dict
        As for `suspicious_images`.
    """
    # A warning about the contrast, which is declared in the file, would be about our own choice.
    prepared = Particles.read(path, contrast="dark")
    suspicious = suspicious_images(kept)
    even = np.linspace(0, len(prepared) - 1, min(6, len(prepared))).astype(int).tolist()
    rows = [*list(suspicious)[:6], *(row for row in even if row not in suspicious)]
    sample = np.linspace(0, len(prepared) - 1, min(500, len(prepared))).astype(int)
    ctf, size = source.ctf, source.box_size
    noise, whitened = None, whitening is not None and np.ptp(whitening.amplitude[0]) > 0
    if whitening is not None and whitened:
        noise = whitening.amplitude[0, 1 : size // 2 + 1] ** 2 / size
    views = None if source.rotations is None else source.rotations[:, :, 2]
    return Preparation(
        path=path,
        n=len(source),
        box_size=size,
        pixel_size=source.pixel_size,
        contrast=source.contrast,
        dtype=dtype,
        whitened=whitened,
        defocus=None if ctf is None else (ctf.defocus_u.astype(np.float64) + ctf.defocus_v) / 2e4,
        views=views,
        evenness=None if views is None else view_evenness(views),
        suspicious=suspicious,
        examples={row: prepared.images(row)[0] for row in rows},
        frequency=np.arange(1, size // 2 + 1) / (size * source.pixel_size),
        image_power=_power(prepared, sample),
        noise_power=noise,
        seconds=seconds,
    )


def _power(particles: Particles, rows: np.ndarray) -> np.ndarray:
    """Mean power (D/2,) of the images' Fourier coefficients in each shell."""
    size = particles.box_size
    shell = grid(size, 2).reshape(-1, 2).float().norm(dim=-1).round().long()
    power = torch.zeros(size * size, dtype=torch.float64)
    for chunk in np.array_split(rows, -(-len(rows) // 100)):
        images = particles.unwhitened(chunk)
        power += fft2(images).abs().square().double().sum(0).flatten()
    return shell_mean(power / len(rows), shell, n_shells(size))[1 : size // 2 + 1].numpy()


def view_evenness(views: np.ndarray, width: float = 0.1, points: int = 500) -> float:
    """How evenly the views sample Fourier space: 1 if all directions are alike, near 0 if some are missing.

    Parameters
    ----------
    views : (n, 3)
        Unit vectors; a particle seen along v fills the plane perpendicular to v.
    width : float
        Sine of the angle within which a plane counts for a direction.
    points : int
        Directions looked at.

    Notes
    -----
    Harmonic over arithmetic mean of the number of planes through each direction, the inverse of the sampling
    compensation factor (Baldwin and Lyumkis 2020). All views from the side give 0.6 to 0.8, all along one axis 0.
    """
    height = 1 - (np.arange(points) + 0.5) / points  # a spiral over half the sphere
    turn = np.pi * (3 - 5**0.5) * np.arange(points)
    ring = np.sqrt(1 - height**2)
    directions = np.stack([ring * np.cos(turn), ring * np.sin(turn), height]).astype(np.float32)
    hits = np.zeros(points)
    for part in np.array_split(views.astype(np.float32), -(-len(views) // 4096)):
        hits += (np.abs(part @ directions) < width).sum(0)
    return float(1 / (1 / np.maximum(hits, 0.5)).mean() / max(hits.mean(), 0.5))


def suspicious_images(kept: dict[str, np.ndarray]) -> dict[int, str]:
    """Numbers of images that differ from the others by far, and why.

    Parameters
    ----------
    kept : dict of (n,) arrays
        mean, std: of the grey values; power: mean square after whitening; spike: largest difference of a pixel from
        its neighbours, over the usual one; digest: of the pixels.
    """
    std, usual = kept["std"], float(np.median(kept["std"]))
    found: dict[int, list[str]] = {}

    def note(rows: np.ndarray, reason: str) -> None:
        for row in rows.tolist():
            found.setdefault(row, []).append(reason)

    constant = std < 1e-3 * usual
    note(np.flatnonzero(constant), "nearly constant")
    note(np.flatnonzero(_outliers(kept["mean"], _USUAL * usual)), "unusual mean")
    note(np.flatnonzero(_outliers(std, _USUAL * usual) & ~constant), "unusual standard deviation")
    power = kept["power"]
    note(np.flatnonzero(_outliers(power, _USUAL * float(np.median(power))) & ~constant), "unusual power")
    note(np.flatnonzero((kept["spike"] > _HOT) & ~constant), "hot pixel")
    _, first, group = np.unique(kept["digest"], return_index=True, return_inverse=True)
    for row in np.flatnonzero((first[group] != np.arange(len(group))) & ~constant):
        note(np.array([row]), f"duplicate of image {first[group[row]]}")
    return {row: "; ".join(found[row]) for row in sorted(found)}


def _outliers(values: np.ndarray, least: float) -> np.ndarray:
    """Which values are farther from the median than `_TIMES` the usual deviation, or `least` if that is more."""
    away = np.abs(values - np.median(values))
    return away > _TIMES * max(1.4826 * float(np.median(away)), least)
