"""Report on a prepared stack: its contents and its suspicious images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryotwin_nb.imaging.fourier import fft2, grid, n_shells, shell_mean
from cryotwin_nb.particles.comparison import CONSTANT, LEAST, equalised, judge, noise_levels
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.whitening import Whitening
from cryotwin_nb.preparation.views import view_evenness

_TIMES = 8.0  # multiple of the usual deviation beyond which an image is suspicious
_USUAL = 0.02  # minimum of the usual deviation, relative to the images' standard deviation: normalised images vary less


@dataclass(frozen=True)
class Preparation:
    """Report of `prepare`.

    Attributes
    ----------
    path : Path
        Path of the STAR file.
    n, box_size, pixel_size : int, int, float
        Number of images; box size D, pixels; pixel size, Å.
    contrast : {"dark", "light"}
        Contrast of the particles as recorded; in the stack they are dark, or light if it is for RELION.
    dtype : str
        Data type of the stack.
    whitened : bool
        Whether the images were divided by the noise spectrum. If not, float16 images were divided by the standard
        deviation of the noise.
    defocus : (n,) float64 or None
        Mean defocus of both axes, µm, positive for underfocus.
    views : (n, 3) float32 or None
        Viewing direction of each particle in the molecule's frame.
    evenness : float or None
        Evenness of the views over the sphere (`view_evenness`).
    suspicious : dict of int to str
        Images to inspect, by zero-based number, with the reasons.
    examples : dict of int to (D, D) float32
        Example images from the stack, including the first suspicious ones.
    frequency, image_power, noise_power : (D/2,) float64
        Spatial frequency of each shell, 1/Å, and mean power of the Fourier coefficients of images and noise in that
        shell, before whitening and in common units. `noise_power` is None if the noise was not measured.
    seconds : float
        Wall-clock time of the preparation, s.
    for_relion : bool
        Whether the stack is for RELION: each image is normalised by its background, and particles are light.
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
    for_relion: bool = False

    @property
    def resolution_limit(self) -> float:
        """Resolution at the Nyquist frequency, Å."""
        return 2 * self.pixel_size

    def summary(self) -> str:
        """Return the report as a few lines of text."""
        scaled = "noise of unit variance" if self.dtype == "float16" else "grey values as recorded"
        scaled, stored = ("normalised for RELION", "light") if self.for_relion else (scaled, "dark")
        how = f"{self.dtype}, {'whitened' if self.whitened else scaled}, {stored}"
        turned = "" if self.contrast == stored else f" (recorded as {self.contrast}, inverted)"
        lines = [
            f"{self.path}: {self.n:,} images, box {self.box_size} px at {self.pixel_size:.4g} Å/px",
            f"resolution limit: {self.resolution_limit:.3g} Å; {how}{turned}; {self.seconds:.0f} s",
        ]
        if self.defocus is None:
            lines.append("defocus: unknown")
        else:
            low, middle, high = np.quantile(self.defocus, (0.05, 0.5, 0.95))
            lines.append(f"defocus: median {middle:.2f} µm, 90 % between {low:.2f} and {high:.2f} µm")
        known = self.evenness is not None
        lines.append(f"views: evenness {self.evenness:.2f} (1: uniform)" if known else "views: unknown")
        reasons = Counter(reason for why in self.suspicious.values() for reason in why.split("; "))
        kinds = Counter(reason.split(" of image ")[0].split(" (")[0] for reason in reasons.elements())
        listed = ", ".join(f"{count} {reason}" for reason, count in kinds.most_common())
        lines.append(f"suspicious images: {len(self.suspicious)}{f' ({listed})' if listed else ''}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.summary()}>"


def report(
    path: Path,
    source: Particles,
    kept: dict[str, np.ndarray],
    full_size: int,
    whitening: Whitening | None,
    dtype: str,
    seconds: float,
    for_relion: bool = False,
) -> Preparation:
    """Return the report on a newly written stack.

    Parameters
    ----------
    path : Path
        Path of the STAR file of the stack.
    source : Particles
        Particles from which the stack was made, on the new grid.
    kept : dict
        Statistics of the images, as in `suspicious_images`.
    full_size : int
        Box size of the images before cropping, pixels.
    whitening : Whitening, optional
        Scaling applied to the images.
    dtype : str
        Data type of the stack.
    seconds : float
        Wall-clock time of the preparation, s.
    for_relion : bool
        Whether the stack is for RELION.
    """
    # Passing the contrast avoids a warning: the stack's contrast was set by `prepare`.
    prepared = Particles.read(path, contrast="light" if for_relion else "dark")
    suspicious = suspicious_images(kept, full_size, source.optics_group)
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
        for_relion=for_relion,
    )


def _power(particles: Particles, rows: np.ndarray) -> np.ndarray:
    """Return the mean power (D/2,) of the images' Fourier coefficients in each shell."""
    size = particles.box_size
    shell = grid(size, 2).reshape(-1, 2).float().norm(dim=-1).round().long()
    power = torch.zeros(size * size, dtype=torch.float64)
    for chunk in np.array_split(rows, -(-len(rows) // 100)):
        images = particles.unwhitened(chunk)
        power += fft2(images).abs().square().double().sum(0).flatten()
    return shell_mean(power / len(rows), shell, n_shells(size))[1 : size // 2 + 1].numpy()


def suspicious_images(kept: dict[str, np.ndarray], size: int, group: np.ndarray) -> dict[int, str]:
    """Return the numbers of images that differ strongly from the others, and the reasons.

    Parameters
    ----------
    kept : dict of (n,) arrays
        mean: mean grey value; outside, inside, slope: as in `artefacts.Meter`; hot: number of hot pixels, replaced;
        power: mean square after whitening; digest: hash of the pixels.
    size : int
        Box size of the images before cropping, pixels.
    group : (n,) int64
        Optics groups, whose noise levels can differ.
    """
    usual = float(np.median(kept["outside"]))
    found: dict[int, list[str]] = {}

    def note(rows: np.ndarray, reason: str) -> None:
        for row in rows.tolist():
            found.setdefault(row, []).append(reason)

    measures = np.stack([kept[name] for name in ("outside", "inside", "slope")], axis=1)
    level = noise_levels(measures)
    bad = judge(level + equalised(level, group)[0], measures, kept["hot"], size) if len(level) >= LEAST else {}
    for row, why in bad.items():
        note(np.array([row]), why)
    constant = np.isin(np.arange(len(level)), [row for row, why in bad.items() if why == CONSTANT])
    note(np.flatnonzero(_outliers(kept["mean"], _USUAL * usual) & ~constant), "unusual mean")
    power = kept["power"]
    note(np.flatnonzero(_outliers(power, _USUAL * float(np.median(power))) & ~constant), "unusual power")
    note(np.flatnonzero((kept["hot"] > 0) & ~constant), "hot pixel")
    _, first, group = np.unique(kept["digest"], return_index=True, return_inverse=True)
    for row in np.flatnonzero((first[group] != np.arange(len(group))) & ~constant):
        note(np.array([row]), f"duplicate of image {first[group[row]]}")
    return {row: "; ".join(found[row]) for row in sorted(found)}


def _outliers(values: np.ndarray, least: float) -> np.ndarray:
    """Return which values differ from the median by more than `_TIMES` usual deviations (of at least `least`)."""
    away = np.abs(values - np.median(values))
    return away > _TIMES * max(1.4826 * float(np.median(away)), least)
