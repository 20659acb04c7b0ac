"""Alternatives to the poses, shifts, CTF and pixel size stated in a particle file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.formats.poses import euler_from_rotations, rotations_from_euler
from cryotwin_nb.preparation.hypotheses import Assumption

_UPSIDE_DOWN = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
_QUARTER_TURN = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
Change = Callable[[Assumption], Assumption]
OTHERS = "poses of other particles"  # control: measures the gain from features that all views share


def pose_changes(seed: int) -> dict[str, Change]:
    """Return alternative interpretations of the rotations.

    An in-plane rotation of all images by 180° is not included, because it is equivalent to mirroring the molecule.
    """

    def turned(state: Assumption, matrix: Tensor) -> Assumption:
        return replace(state, rotations=state.rotations @ matrix)

    def transposed(state: Assumption) -> Assumption:
        return replace(state, rotations=state.rotations.mT.contiguous())

    def opposite_psi(state: Assumption) -> Assumption:
        rot, tilt, psi = euler_from_rotations(state.rotations.numpy())
        return replace(state, rotations=torch.as_tensor(rotations_from_euler(rot, tilt, -psi)))

    def exchanged(state: Assumption) -> Assumption:
        order = np.random.default_rng(seed).permutation(len(state.rotations))
        return replace(state, rotations=state.rotations[order])

    return {
        OTHERS: exchanged,
        "rotations transposed": transposed,
        "images upside down": lambda state: turned(state, _UPSIDE_DOWN),
        "images turned by 90°": lambda state: turned(state, _QUARTER_TURN),
        "x and y exchanged": lambda state: turned(state, _UPSIDE_DOWN @ _QUARTER_TURN),
        "rot and psi exchanged": lambda state: turned(transposed(state), _UPSIDE_DOWN),
        "psi of opposite sign": opposite_psi,
    }


def shift_changes(pixel_size: float) -> dict[str, Change]:
    """Return alternative interpretations of the shifts."""

    def scaled(factor: float) -> Change:
        return lambda state: replace(state, shifts=factor * state.shifts)

    return {
        "shifts of opposite sign": scaled(-1.0),
        "shifts left out": scaled(0.0),
        "shifts in pixels taken for Å": scaled(pixel_size),
        "shifts in Å taken for pixels": scaled(1 / pixel_size),
        "x and y of shifts exchanged": lambda state: replace(state, shifts=state.shifts.flip(1)),
    }


def ctf_changes() -> dict[str, Change]:
    """Return alternative ways in which the CTF may have affected the images."""

    def of_kind(kind: int) -> Change:
        return lambda state: replace(state, kind=torch.full_like(state.kind, kind))

    def overfocus(state: Assumption) -> Assumption:
        ctf = state.ctf
        return replace(state, ctf=replace(ctf, defocus_u=-ctf.defocus_u, defocus_v=-ctf.defocus_v))

    return {
        "CTF missing": of_kind(1),
        "phases flipped": of_kind(2),
        "CTF multiplied twice": of_kind(3),
        "defocus of opposite sign": overfocus,
    }


def pixel_changes() -> dict[str, Change]:
    """Return alternative pixel sizes: calibration errors of up to 15 %, and errors from missing or repeated binning."""

    def times(factor: float) -> Change:
        return lambda state: replace(state, pixel=factor)

    factors = (0.5, 0.75, 0.85, 0.9, 0.95, 1.05, 1.1, 1.15, 1.3, 2.0)
    return {pixel_name(f): times(f) for f in factors}


def pixel_name(factor: float) -> str:
    """Return the label of an alternative pixel size: its deviation from the stated pixel size, in percent."""
    return f"pixel size {100 * (factor - 1):+.0f} %"
