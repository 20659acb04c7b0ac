"""Quality of particle images: hot pixels, images unlike all others, and groups of images with other grey values.

All limits are relative to the images themselves, by statistics that up to a fifth of bad images hardly changes. Hot
pixels are replaced by noise. Images that remain unlike the others are set aside: they are embedded, but have weight 0
in all fits. Optics groups or micrographs whose grey values have another scale are brought to one scale.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Event
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.imaging.artefacts import Meter, mend
from cryotwin_nb.particles.comparison import LEAST, equalised, hot_limit, judge, noise_levels, unlike
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.runtime import distributed

_MOST, _LISTED = 0.2, 5  # part of the images that can be set aside; images that a warning names
_MANY = 0.01  # part of the images with other noise levels from which micrographs are compared
_MICROGRAPH = ("rlnMicrographName", "location/micrograph_path", "location/micrograph_uid")
_PIXELS, _PATIENCE = 2**21, 3  # pixels read at once; seconds without a progress bar


@dataclass(frozen=True, eq=False)
class Quality:
    """What is wrong with particle images, and what is done about it.

    Attributes
    ----------
    reasons : dict of int to str
        Images that are set aside, by row, and why.
    hot_pixels : (n,) int64
        Number of hot pixels that are replaced in each image.
    hot : float
        Difference of a hot pixel from its neighbours, relative to the usual difference in its image.
    scale : (n,) float32
        Factor that brings each image to the scale of the others; 1 unless optics groups or micrographs differ.
    scaled : str
        What is scaled and how, in words; empty if nothing is.
    names : dict of int to str
        Names of the images that are set aside or have hot pixels, by row.
    warned : Event
        Set when a warning has named them; shared by subsets.
    """

    reasons: dict[int, str]
    hot_pixels: np.ndarray
    hot: float
    scale: np.ndarray
    scaled: str
    names: dict[int, str]
    warned: Event = field(default_factory=Event, repr=False)

    @property
    def kept(self) -> np.ndarray:
        """Whether each image (n,) bool has a weight in fits."""
        kept = np.ones(len(self.hot_pixels), dtype=bool)
        kept[list(self.reasons)] = False
        return kept

    @property
    def status(self) -> np.ndarray:
        """Status of each image (n,): "good", "mended" (hot pixels were replaced) or "set aside"."""
        status = np.where(self.hot_pixels > 0, "mended", "good").astype("U9")
        status[list(self.reasons)] = "set aside"
        return status

    def __getitem__(self, rows: np.ndarray) -> Quality:
        """Return the quality of a subset of the images."""

        def chosen(found: dict[int, str]) -> dict[int, str]:
            return {i: found[row] for i, row in enumerate(rows.tolist()) if row in found} if found else {}

        parts = self.hot_pixels[rows], self.hot, self.scale[rows], self.scaled
        return Quality(chosen(self.reasons), *parts, chosen(self.names), self.warned)

    def describe(self, listed: int = _LISTED) -> list[str]:
        """Return what was found, one sentence per kind, with the names of the first `listed` images."""
        n, lines = len(self.hot_pixels), [self.scaled] if self.scaled else []
        mended = [row for row in np.flatnonzero(self.hot_pixels).tolist() if row not in self.reasons]
        if mended:
            pixels = int(self.hot_pixels[mended].sum())
            named = _listed([self.names[row] for row in mended], listed)
            lines.append(f"hot pixels are replaced by noise: {pixels} in {len(mended)} of {n} images ({named})")
        if self.reasons:
            named = _listed([f"{self.names[row]}: {why}" for row, why in self.reasons.items()], listed)
            lines.append(f"{len(self.reasons)} of {n} images are set aside, with weight 0 in all fits ({named})")
        return lines


def _listed(names: list[str], most: int) -> str:
    return "; ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def image_quality(particles: Particles, progress: bool = False) -> Quality:
    """Compare all images with each other, in one pass at the first call; subsets taken later have the same quality.

    With several processes, all must call this together.

    Parameters
    ----------
    particles : Particles
        Particles with images; fewer than 20 are not compared.
    progress : bool
        Show a progress bar if it takes longer than a few seconds.

    Returns
    -------
    Quality
        Images that fits leave out, hot pixels that are replaced, and scales.

    Raises
    ------
    InputError
        If there are no images, or they cannot be read.

    Examples
    --------
    >>> ct.image_quality(particles).reasons
    {}
    """
    if particles._quality is None:
        particles._quality = _assess(particles, progress)
    return cast(Quality, particles._quality)


def usable(particles: Particles, progress: bool = False) -> Particles:
    """Return the particles without bad images, which a warning names; all fits begin with this.

    Raises
    ------
    InputError
        If more than a fifth of the images are bad.
    """
    kept = _kept(particles, progress)
    return particles if kept.all() else particles[kept]


def bad_rows(particles: Particles, rows: np.ndarray) -> np.ndarray:
    """Return those of the rows (m,) whose images are bad, compared with the others of these rows.

    A warning names them; if more than a fifth of them are bad, `InputError` is raised.
    """
    if particles._quality is None and len(rows) == len(particles):
        image_quality(particles)
    return np.setdiff1d(rows, rows[_kept(particles[rows])]) if len(rows) else rows


def _kept(particles: Particles, progress: bool = False) -> np.ndarray:
    quality = image_quality(particles, progress)
    n, bad = len(particles), quality.reasons
    if len(bad) > _MOST * n:
        kinds = Counter(why.split(" (")[0] for why in bad.values())
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        found = f"{len(bad)} of {n} images unlike the others ({found}; {quality.names[next(iter(bad))]})"
        remedy = "Leave them out with indices=, or normalise the images: an optics group for each scale is enough."
        raise InputError(particles.where, found, f"at most {100 * _MOST:.0f} %", remedy)
    warn_of(particles)
    return quality.kept


def warn_of(particles: Particles, progress: bool = False) -> None:
    """Warn of what was found in the images, once."""
    quality = image_quality(particles, progress)
    for line in [] if quality.warned.is_set() else quality.describe():
        warn_user(f"{particles.where}: {line}.")
    quality.warned.set()


def _assess(particles: Particles, progress: bool) -> Quality:
    n = len(particles)
    if n < LEAST:
        return Quality({}, np.zeros(n, np.int64), np.inf, np.ones(n, np.float32), "", {})
    meter, mine = Meter(particles.box_size), distributed.share(n)
    rows = np.arange(mine.start, mine.stop)
    size = max(1, _PIXELS // particles.box_size**2)
    pieces = np.array_split(rows, -(-len(rows) // size)) if len(rows) else []
    shown = tqdm(pieces, "comparing images", delay=_PATIENCE, disable=not progress or distributed.rank() > 0)
    measures = distributed.assemble(((meter.measure(_stored(particles, piece)),) for piece in shown), n)[0].numpy()
    hot = hot_limit(measures[:, 3])
    hot_pixels = np.zeros(n, np.int64)
    for row in np.flatnonzero(measures[:, 3] > hot).tolist():
        image, hot_pixels[row] = mend(_stored(particles, np.array([row]))[0], hot)
        measures[row] = meter.measure(image[None])[0].numpy()
    level, scale, scaled = _on_one_scale(particles, noise_levels(measures) + np.log(_gain(particles)), measures)
    reasons = judge(level, measures, hot_pixels, particles.box_size)
    odd = sorted({*reasons, *np.flatnonzero(hot_pixels).tolist()})
    return Quality(reasons, hot_pixels, hot, scale, scaled, {row: particles.image_name(row) for row in odd})


def cleaned(particles: Particles, rows: np.ndarray, device: torch.device | None = None, scaled: bool = True) -> Tensor:
    """Read images (m, D, D) float32 as for a fit: before whitening, without hot pixels, and (`scaled`) on one scale."""
    quality = image_quality(particles)
    images = _stored(particles, rows).to(device)
    for position in np.flatnonzero(quality.hot_pixels[rows]).tolist():
        images[position] = mend(images[position], quality.hot)[0]
    if particles.whitening is not None:
        images = particles.whitening.undo(images, rows)
    scale = quality.scale[rows]
    return images if not scaled or (scale == 1).all() else images * torch.as_tensor(scale, device=device)[:, None, None]


def _stored(particles: Particles, rows: np.ndarray) -> Tensor:
    return torch.as_tensor(particles.images(rows))


def _gain(particles: Particles) -> np.ndarray | float:
    """Return the factor (n,) from the level of stored images to that of recorded ones."""
    whitening = particles.whitening
    if whitening is None:
        return 1.0
    amplitude = np.sqrt(np.square(whitening.amplitude).mean(1))
    return amplitude[whitening.row] * whitening.scale


def _on_one_scale(particles: Particles, level: np.ndarray, measures: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return log levels (n,) and factors (n,) of images on the scale of most, and what was scaled.

    Optics groups are tried first. Micrographs are tried if many images still differ from the others.
    """
    scale: np.ndarray = np.zeros(len(level))
    what = ""
    for kind in ("optics groups", "micrographs"):
        if kind == "micrographs" and unlike(level + scale, measures).mean() < _MANY:
            break
        group = particles.optics_group if kind == "optics groups" else _micrographs(particles)
        change, factor = (scale, 0.0) if group is None else equalised(level + scale, group)
        if factor:
            scale = scale + change
            what = f"grey values of {kind} differ by up to a factor of {factor:.2g}; "
            what += "images are multiplied by the factors that give them the same noise level"
    return level + scale, np.exp(scale).astype(np.float32), what


def _micrographs(particles: Particles) -> np.ndarray | None:
    """Return the micrograph (n,) of each particle; None if the particle file does not name it."""
    source = particles.source
    columns: Any = {} if source is None or not source.is_file() else particles.columns
    return next((columns[name].to_numpy(str) for name in _MICROGRAPH if name in columns), None)
