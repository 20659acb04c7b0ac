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
    n_components : int or None
        Components that the final mixture uses.
    """

    distortion: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    beta: list[float] = field(default_factory=list)
    radius: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    n_components: int | None = None

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.seconds)
