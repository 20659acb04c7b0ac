"""Outlier scores for junk among the particles, alone or recurring, and the images that remain.

Images unlike anything are recognised one by one: those without the particle's signal, those with signal that the model
does not explain (contaminants, overlapping particles, carbon), and those that fit a different pose better. Recurring
junk, such as another molecule, is well explained by the model but forms states of its own (`junk_states`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.image_fit import ImageFit, searched_poses
from cryotwin_nb.evaluation.junk_states import judged
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import image_quality
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.pathways.states import State, assign, find_states

CUT = 4.0
"""Score above which an image is junk by default; few good images are, and few of a true state that the model misses."""
_KINDS = ("lack of signal", "unexplained signal", "better fit at another pose", "in a state that looks like junk")


@dataclass(frozen=True)
class OutlierScores:
    """Measures of how poorly each image is explained by the structure decoded at its latent, and what is junk.

    Attributes
    ----------
    score : (n,) float32
        Outlier score in standard deviations of the usual images: the largest of the four in `parts`. Junk is above
        `CUT`.
    residual : (n,) float32
        chi^2 per degree of freedom of the image minus the structure: 1 for noise alone.
    correlation : (n,) float32
        Normalised correlation of the whitened image with the prediction.
    contrast : (n,) float32
        Scale factor that best fits the prediction to the image; negative factors count as 0 in `residual`.
    parts : (4, n) float32
        Scores for the lack of signal, unexplained signal, a better fit at another pose, and the membership of a state
        that looks like junk.
    states : list of State
        States of the model; `junk` is set for those that look like junk.
    state_reasons : list of str
        For each state, why it looks like junk; empty if it does not.
    set_aside : dict of int to str
        Images that fits leave out, by row, and why (`image_quality`).
    """

    score: np.ndarray
    residual: np.ndarray
    correlation: np.ndarray
    contrast: np.ndarray
    parts: np.ndarray
    states: list[State]
    state_reasons: list[str]
    set_aside: dict[int, str]

    @property
    def reasons(self) -> np.ndarray:
        """Reason (n,) why each image is junk; empty for images that are kept."""
        reasons = np.where(self.score > CUT, np.array(_KINDS)[self.parts.argmax(0)], "").astype("U64")
        for row, why in self.set_aside.items():
            reasons[row] = why
        return reasons

    @property
    def kept(self) -> np.ndarray:
        """Rows (k,) int64 of the images that are not junk: train again with `fit(model, particles[scores.kept])`."""
        return np.flatnonzero(self.reasons == "")

    @property
    def junk_components(self) -> list[int]:
        """Components of the states that look like junk."""
        return sorted(c for state in self.states if state.junk for c in state.components)

    def describe(self) -> list[str]:
        """Return the number of images kept, the number of each kind of junk, and the states that look like junk."""
        reasons = self.reasons
        kinds, counts = np.unique([why.split(" (")[0] for why in reasons if why], return_counts=True)
        lines = [f"{len(self.kept)} of {len(reasons)} images are kept"]
        lines += [f"{count} left out: {kind}" for kind, count in zip(kinds, counts, strict=True)]
        judged_states = zip(self.states, self.state_reasons, strict=True)
        return lines + [f"state {s.name} ({s.mass:.1%}) looks like junk: {why}" for s, why in judged_states if why]


@torch.no_grad()
def outlier_scores(
    model: CryoTwin, particles: Particles, batch_size: int = 256, progress: bool = False
) -> OutlierScores:
    """Score particles by how poorly the model explains their images, and find states that look like junk.

    Parameters
    ----------
    model : CryoTwin
        Trained model of either architecture.
    particles : Particles
        At least two particles, on the model's grid.
    batch_size : int
        Number of images processed at once.
    progress : bool
        Show a progress bar.

    Returns
    -------
    OutlierScores
        Scores, reasons, and the images to keep.

    Raises
    ------
    InputError
        For the reasons listed in `CryoTwin.embed`, or if there is only one particle.

    Notes
    -----
    Four scores share one scale, so that the largest decides. The lack of signal is the difference between the expected
    and the measured projection of the image on the prediction, relative to its standard error; unexplained signal is
    the score test of the hypothesis that the residual contains signal with the particle's power spectrum. Both are
    divided by their spread over the images. For the other two, a log-likelihood ratio of t nats counts as
    sqrt(2 |t|), with its sign: that of the best of m poses, less log m (the probability that m likelihood ratios of an
    image at its true pose exceed e^t is at most m e^-t), and that of the states that look like junk.

    A state looks like junk if no part of its reconstructed map is found in the other states; its images then are junk
    too. It is also marked if it has hardly any image that is not junk alone. Nothing is removed: `describe` lists what
    is left out, and why.

    Examples
    --------
    >>> scores = ct.outlier_scores(model, particles)
    >>> good = particles[scores.kept]
    >>> print(*scores.describe(), sep="\\n")  # doctest: +SKIP
    """
    if len(particles) < 2:
        raise InputError("outlier_scores", "one particle", "at least 2 particles", "Score the whole data set.")
    images = batches(model.imaging, particles, batch_size, "latents" if progress else None)
    z = torch.cat([model.encode(batch)[0].cpu() for batch in images])
    fit = ImageFit(model, z.median(0).values[None])
    images = batches(model.imaging, particles, batch_size, "outlier scores" if progress else None)
    measures = torch.cat([fit.measure(batch).cpu() for batch in images], dim=1).numpy()
    residual, correlation, contrast, lack, extra, ratio, gain = measures
    extra = standardised(extra)
    extra = np.where(ratio > 0, extra, extra.clip(max=CUT))
    alone = np.stack([standardised(lack), extra, signed_root(gain - np.log(len(searched_poses())))])
    aside = image_quality(particles).reasons
    good = alone.max(0) <= CUT
    good[list(aside)] = False
    states, reasons, member = _judged_states(model, particles, z, good)
    parts = np.concatenate([alone, member[None]]).astype(np.float32)
    return OutlierScores(parts.max(0), residual, correlation, contrast, parts, states, reasons, aside)


def _judged_states(
    model: CryoTwin, particles: Particles, z: torch.Tensor, good: np.ndarray
) -> tuple[list[State], list[str], np.ndarray]:
    """Return the judged states, the reasons, and the score (n,) of each image for a state that looks like junk."""
    prior, points = model.prior, z.double()
    states = find_states(prior, latents=points)
    states, reasons, foreign = judged(model, particles, states, assign(prior, states, points), good)
    junk = [c for i in foreign for c in states[i].components]
    share = prior.responsibilities(points)[:, junk].sum(1).clamp(1e-12, 1 - 1e-12).detach()
    return states, reasons, signed_root(share.logit().numpy())


def signed_root(nats: np.ndarray) -> np.ndarray:
    """Return log-likelihood ratios as standard deviations of a normal distribution, sqrt(2 |t|) with the sign of t."""
    return np.sign(nats) * np.sqrt(2 * np.abs(nats))


def standardised(values: np.ndarray) -> np.ndarray:
    """Return values (n,) minus their median, in units of 1.4826 median absolute deviations, float64."""
    away = np.asarray(values, dtype=np.float64) - np.median(values)
    return away / max(1.4826 * float(np.median(np.abs(away))), 1e-12)
