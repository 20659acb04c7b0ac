"""What lies beside a file of particles and comes back with it: the ground truth, how the images were whitened."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np

from cryotwin_nb.particles.whitening import Whitening
from cryotwin_nb.truth.truth import Truth

_T = TypeVar("_T", Truth, Whitening)
_SUFFIXES = {Truth: ".truth.npz", Whitening: ".whitening.npz"}


def files_beside(path: Path, truth: Truth | None, whitening: Whitening | None) -> dict[Path, Truth | Whitening | None]:
    """The files beside a STAR file, and what is written to each; None where an older one must go."""
    return {path.with_suffix(_SUFFIXES[Truth]): truth, path.with_suffix(_SUFFIXES[Whitening]): whitening}


def read_beside(kind: type[_T], path: Path, total: int, rows: np.ndarray) -> _T | None:
    """The ground truth or the whitening beside a file of `total` particles, of those selected."""
    file = path.with_suffix(_SUFFIXES[kind])
    return kind.load(file, total)[rows] if file.is_file() else None
