"""The record of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """What happened in each epoch.

    Attributes
    ----------
    distortion, rate : list of float
        Mean per image of the two terms of Eq. 3; the rate in nats.
    beta : list of float
        Weight of the rate at the epoch's end.
    radius : list of float
        Highest |k| used, grid units.
    seconds : list of float
        Wall-clock time of the epoch.
    skipped : list of int
        Steps left out because a gradient was not finite.
    log_evidence, pass_radius, pass_seconds : list of float
        For each closed-form pass over the images before the epochs (subspace architecture): mean over the
        images, nats, before the pass (NaN for the first); highest |k| used, grid units; time.
    n_components : int or None
        Components that the final mixture uses.
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
    n_components: int | None = None

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.seconds)
