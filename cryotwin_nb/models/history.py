"""Training history."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryotwin_nb.errors import InputError
from cryotwin_nb.reconstruction.spectrum import Spectrum


@dataclass
class History:
    """Training history, with one entry per epoch.

    Attributes
    ----------
    distortion, rate : list of float
        Means per image of the two terms of the objective (Eq. 3 of the cryoTWIN paper); the rate is in nats.
    beta : list of float
        Weight of the rate at the end of the epoch.
    radius : list of float
        Maximum |k| used, grid units.
    seconds : list of float
        Wall-clock time of the epoch, s.
    skipped : list of int
        Number of steps skipped because of a non-finite gradient.
    log_evidence, pass_radius, pass_seconds : list of float
        One entry per closed-form pass before the epochs (subspace architecture): mean log-evidence of the images before
        the pass, nats (NaN for the first pass); maximum |k| used, grid units; wall-clock time, s.
    variances, gains, gain_errors : list of float
        Spectrum of the subspace architecture (`Spectrum`), one entry per direction.
    n_examined : int
        Number of images from which the spectrum is estimated.
    n_components : int or None
        Number of components in the final mixture.
    junk : list of int
        Components of the states that look like junk, for `find_states`; empty if the images have not been judged.
    """

    distortion: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    beta: list[float] = field(default_factory=list)
    radius: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    log_evidence: list[float] = field(default_factory=list)
    pass_radius: list[float] = field(default_factory=list)
    pass_seconds: list[float] = field(default_factory=list)
    variances: list[float] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    gain_errors: list[float] = field(default_factory=list)
    n_examined: int = 0
    n_components: int | None = None
    junk: list[int] = field(default_factory=list)

    @property
    def spectrum(self) -> Spectrum:
        """Spectrum found in the closed-form passes; `InputError` if there is none."""
        if not self.gains:
            raise InputError("spectrum", "none", "a subspace model trained by this build", "Train the model again.")
        return Spectrum(tuple(self.variances), tuple(self.gains), tuple(self.gain_errors), self.n_examined)

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.seconds)
