"""What files contain and this package does not use, with the size of each error at the Nyquist frequency.

Phases in radians at the frequency k (1/Å, azimuth φ), for a wavelength λ, spherical aberration Cs and lengths in Å:

- beam tilt b (radians): 2π Cs λ² k² (b·k); cryoSPARC stores `ctf/tilt_A` = Cs b
- `ctf/trefoil_A`: (2π/3) λ² k³ (a₀ cos 3φ + a₁ sin 3φ)
- `ctf/tetra_A`: 2π λ³ k⁴ (a₀ cos 2φ + a₁ sin 2φ) + (π/2) λ³ k⁴ (a₂ cos 4φ + a₃ sin 4φ)
- `ctf/shift_A`: 2π a·k
- `rlnOddZernike`, `rlnEvenZernike`: Σ c R(k) cos mφ, or sin |m|φ for m < 0, where R is the radial polynomial at k in
  1/Å; n = 1, 3, ... or 0, 2, ..., and for each n, m = -n, -n + 2, ..., n. Even terms add to the phase of the CTF.

The magnification matrix M maps a frequency of the image to that of the map, F(M k), so that a point of the map at x is
found in the image at Mᵀx. A B-factor multiplies the CTF by exp(-B k² / 4).

RELION's definitions are those of Zivanov, Nakane and Scheres (2020), IUCrJ 7:253, doi:10.1107/S2052252520000081; all
were compared with RELION 3.1.3. For cryoSPARC, `ctf/tilt_A` is as converted by pyem, and `ctf/anisomag` is M - 1, as
its developers state (discuss.cryosparc.com, topics 11402 and 12204). Assumed: the factors of trefoil and tetrafoil are
those of the wave aberration function of Uhlemann and Haider (1998), Ultramicroscopy 72:109; B-factors are as in RELION.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryotwin_nb.imaging.optics import electron_wavelength

Term = tuple[Callable[[np.ndarray], np.ndarray], int]
"""Radial function of k, and m of the azimuthal one: cos mφ, or sin |m|φ if m is negative."""
_MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
_NEUTRAL = {"rlnMagMat00": 1.0, "rlnMagMat11": 1.0, "rlnCtfScalefactor": 1.0, "ctf/scale": 1.0}
_PARTICLE_RADIUS = 0.4  # in box sizes, as the default of CryoTwin
_LARGE = 45.0  # degrees
_AZIMUTHS = np.deg2rad(np.arange(180.0))


@dataclass(frozen=True)
class _File:
    """Columns of a file of n particles: names, a function that returns values, and pixel sizes (n,) in Å."""

    names: Any
    values: Callable[[str], Any]
    pixel: np.ndarray

    def numbers(self, name: str, missing: float = np.nan) -> np.ndarray:
        """Return a column as (n, q) float64: `missing` if there is none, NaN if its values are not numbers."""
        try:
            column = self.values(name) if name in self.names else np.full(len(self.pixel), missing)
            return np.asarray(column).astype(np.float64).reshape(len(self.pixel), -1)
        except (TypeError, ValueError):
            return np.full((len(self.pixel), 1), np.nan)

    def first(self, *names: str) -> np.ndarray:
        """Return the first column that is present as (n, q) float64, or NaN."""
        return self.numbers(next((name for name in names if name in self.names), names[0]))

    def wavelength(self) -> np.ndarray:
        """Return the electron wavelength (n, 1) in Å."""
        return electron_wavelength(torch.as_tensor(self.first("rlnVoltage", "ctf/accel_kv"))).numpy()


def describe(names: Any, values: Callable[[str], Any], pixel: np.ndarray, path: Path) -> list[str]:
    """Return a note that names what a file contains and this package does not use, with its size, or nothing.

    Parameters
    ----------
    names : container of str
        Columns or fields of the file.
    values : callable
        Returns the values of a column, (n,) or (n, q).
    pixel : (n,) float64
        Pixel sizes in Å.
    path : Path
        The file, for the message.
    """
    file, present = _File(names, values, pixel), []
    with np.errstate(all="ignore"):  # values that are no finite numbers have no size
        for title, (columns, size) in _UNUSED.items():
            if any(name in names and _differs(values(name), _NEUTRAL.get(name, 0.0)) for name in columns):
                stated = size(file)
                present.append(f"{title} ({stated})" if stated else title)
    if not present:
        return []
    listed = ", ".join(present[:-1]) + (" and " if len(present) > 1 else "") + present[-1]
    return [f"{path} contains {listed}, which cryotwin_nb does not use."]


def _differs(values: Any, neutral: float) -> bool:
    """Return whether any value differs from 0 (not set) and from the neutral value; text counts if it has a nonzero."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        digits = set("".join(map(str, array.ravel().tolist()))) & set("123456789")
        return bool(digits)
    return bool(((np.abs(array) > 1e-9) & (np.abs(array - neutral) > 1e-9)).any())


def _phase_error(coefficients: np.ndarray, terms: Callable[[], Iterable[Term]], pixel: np.ndarray) -> str:
    """Describe the largest phase at Nyquist over particles and directions, from coefficients (n, q) and pixel (n,)."""
    rows = _distinct(coefficients, pixel)
    if len(rows) == 0:
        return ""
    worst = max(rows, key=lambda row: _profile(row, terms(), np.ones(1))[0])
    shares = np.linspace(0, 1, 1001)[1:]
    degrees = _profile(worst, terms(), shares)
    if not np.isfinite(degrees).all():
        return ""
    nyquist, largest = 2 * worst[-1], degrees[-1]
    text = f"phase error at Nyquist, {nyquist:.3g} Å: {largest:{',.0f' if 9.5 <= largest < 1e6 else '.2g'}}°"
    large = np.flatnonzero(degrees >= _LARGE)
    if len(large) == 0 or large[0] == len(shares) - 1:
        return text
    if large[0] == 0:
        return f"{text}, and at least {_LARGE:.0f}° from the lowest frequencies on"
    return f"{text}, and {_LARGE:.0f}° at {nyquist / shares[large[0]]:.3g} Å"


def _profile(row: np.ndarray, terms: Iterable[Term], shares: np.ndarray) -> np.ndarray:
    """Return the largest phase over directions, degrees, at shares of Nyquist; row ends with the pixel size."""
    k = shares / (2 * row[-1])
    phase = np.zeros((len(k), len(_AZIMUTHS)))
    for coefficient, (radial, m) in zip(row[:-1], terms, strict=False):
        if coefficient:
            phase += np.outer(coefficient * radial(k), np.cos(m * _AZIMUTHS) if m >= 0 else np.sin(-m * _AZIMUTHS))
    return np.rad2deg(np.abs(phase).max(axis=1))


def _distinct(*columns: np.ndarray) -> np.ndarray:
    """Return the distinct finite rows (g, q) of columns (n,) or (n, q)."""
    rows = np.column_stack(columns)
    rows = rows[np.append(True, (rows[1:] != rows[:-1]).any(axis=1))]  # fast, and most particles are sorted by group
    return np.unique(rows[np.isfinite(rows).all(axis=1)], axis=0)


def _powers(power: int, *orders: int) -> Callable[[], Iterable[Term]]:
    """Return the terms k^power cos mφ and k^power sin mφ for each m."""
    return lambda: [(lambda k: k**power, sign * m) for m in orders for sign in (1, -1)]


def _zernikes(first: int) -> Iterable[Term]:
    """Yield Zernike polynomials in RELION's order, with n from `first` (0 or 1) in steps of 2."""
    from scipy.special import eval_jacobi  # slow to import

    def radial(n: int, m: int) -> Callable[[np.ndarray], np.ndarray]:
        half = (n - m) // 2
        return lambda k: (-1) ** half * k**m * eval_jacobi(half, m, 0, 1 - 2 * k**2)

    for n in count(first, 2):
        for m in range(-n, n + 1, 2):
            yield radial(n, abs(m)), m


def _vectors(file: _File, name: str) -> np.ndarray:
    """Return a column of vectors in RELION's form, '[a,b,...]', as (n, q) padded with 0; NaN if it has another form."""
    texts = [str(value) for value in np.asarray(file.values(name)).ravel().tolist()]
    try:
        parsed = {text: [float(part) for part in text.strip("[]").split(",") if part] for text in set(texts)}
    except ValueError:
        return np.full((len(texts), 1), np.nan)
    longest = max(map(len, parsed.values()))
    padded = {text: vector + [0.0] * (longest - len(vector)) for text, vector in parsed.items()}
    return np.array([padded[text] for text in texts])


def _beam_tilt(file: _File) -> str:
    if "ctf/tilt_A" in file.names:
        tilt = file.numbers("ctf/tilt_A")
    else:
        milliradians = np.column_stack([file.numbers(name, missing=0.0) for name in ("rlnBeamTiltX", "rlnBeamTiltY")])
        tilt = 1e-3 * milliradians * 1e7 * file.numbers("rlnSphericalAberration")  # Cs in mm
    return _phase_error(2 * np.pi * file.wavelength() ** 2 * tilt, _powers(3, 1), file.pixel)


def _image_shift(file: _File) -> str:
    return _phase_error(2 * np.pi * file.numbers("ctf/shift_A"), _powers(1, 1), file.pixel)


def _trefoil(file: _File) -> str:
    coefficients = 2 * np.pi / 3 * file.wavelength() ** 2 * file.numbers("ctf/trefoil_A")
    return _phase_error(coefficients, _powers(3, 3), file.pixel)


def _tetrafoil(file: _File) -> str:
    coefficients = 2 * np.pi * file.wavelength() ** 3 * file.numbers("ctf/tetra_A")
    coefficients[:, 2:] /= 4
    return _phase_error(coefficients, _powers(4, 2, 4), file.pixel)


def _odd(file: _File) -> str:
    return _phase_error(_vectors(file, "rlnOddZernike"), lambda: _zernikes(1), file.pixel)


def _even(file: _File) -> str:
    return _phase_error(_vectors(file, "rlnEvenZernike"), lambda: _zernikes(0), file.pixel)


def _magnification(file: _File) -> str:
    """Describe the largest displacement as a fraction of the radius, at the edge of the box, and its phase error."""
    identity = np.array([1.0, 0.0, 0.0, 1.0])
    columns = [file.numbers(name, missing=one) for name, one in zip(_MAGNIFICATION, identity, strict=True)]
    matrix = file.numbers("ctf/anisomag") if "ctf/anisomag" in file.names else np.column_stack(columns)
    if matrix.shape[1] != 4:
        return ""
    # cryoSPARC, and STAR files converted by pyem, contain the matrix without the identity
    offset = matrix - (matrix[:, :1] + matrix[:, 3:] > 1) * identity
    rows = _distinct(offset, file.pixel, np.nan_to_num(file.first("rlnImageSize", "blob/shape")[:, 0]))
    if len(rows) == 0:
        return ""
    share = np.linalg.norm(rows[:, :4].reshape(-1, 2, 2), ord=2, axis=(1, 2))
    pixel, box = rows[:, 4], rows[:, 5]
    text = f"{100 * share.max():.3g} %"
    if not box.any():
        return text
    edge = f"{(share * box / 2).max():.2g} pixels at the edge of the box"
    particle = _phase_error(2 * np.pi * share * _PARTICLE_RADIUS * box * pixel, _powers(1, 0), pixel)
    return f"{text}, {edge}; at {_PARTICLE_RADIUS:g} box sizes from the centre, {particle}"


def _b_factor(file: _File) -> str:
    rows = _distinct(file.first("rlnCtfBfactor", "ctf/bfactor"), file.pixel)
    if len(rows) == 0:
        return ""
    decay = rows[:, 0] / (16 * rows[:, 1] ** 2)
    worst = np.abs(decay).argmax()
    return f"amplitude factor at Nyquist, {2 * rows[worst, 1]:.3g} Å: {np.exp(-decay[worst]):.2g}"


def _scale(file: _File) -> str:
    values = _distinct(file.first("rlnCtfScalefactor", "ctf/scale"))
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (values.min(), values.max()))) if len(values) else ""


_UNUSED: dict[str, tuple[tuple[str, ...], Callable[[_File], str]]] = {
    "beam tilt": (("rlnBeamTiltX", "rlnBeamTiltY", "ctf/tilt_A"), _beam_tilt),
    "image shift": (("ctf/shift_A",), _image_shift),
    "odd aberrations": (("rlnOddZernike",), _odd),
    "even aberrations": (("rlnEvenZernike",), _even),
    "trefoil": (("ctf/trefoil_A",), _trefoil),
    "tetrafoil": (("ctf/tetra_A",), _tetrafoil),
    "anisotropic magnification": ((*_MAGNIFICATION, "ctf/anisomag"), _magnification),
    "B-factors of the CTF": (("rlnCtfBfactor", "ctf/bfactor"), _b_factor),
    "scale factors of the CTF": (("rlnCtfScalefactor", "ctf/scale"), _scale),
    "stage tilt": (("rlnTomoNominalStageTiltAngle", "wrpTiltAngle"), lambda file: ""),
}
"""Columns of a STAR file and fields of a .cs file that change images and are not used; a function states their size."""
