"""Checked settings of a model: what its `config` contains."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cryotwin_nb.errors import InputError, choice, positive, whole
from cryotwin_nb.imaging.fourier import require_box_size
from cryotwin_nb.models.coordinate import CoordinateNetworks
from cryotwin_nb.models.networks import AUTO, NetworkOptions
from cryotwin_nb.models.subspace import SubspaceNetworks

ARCHITECTURES: dict[str, Any] = {"subspace": SubspaceNetworks, "coordinate": CoordinateNetworks}
_PAPER = 8  # dimension of the paper's latent space


def checked(
    box_size: int,
    architecture: str,
    latent_dim: int | str,
    n_components: int,
    noise_width: float,
    weighting: str,
    particle_radius: float,
    seed: int,
    options: dict[str, Any],
) -> tuple[dict[str, Any], NetworkOptions]:
    """Return the configuration of a model and the options of its architecture as plain values; see `CryoTwin`.

    Raises
    ------
    InputError
        If a value is invalid, or an option belongs to another architecture.
    """
    require_box_size(box_size)
    kind = ARCHITECTURES[choice("architecture", architecture, list(ARCHITECTURES))]
    dim = _dimension(latent_dim, architecture)
    chosen = kind.Options.of(options, None if dim == AUTO else dim)
    return {
        "box_size": int(box_size),
        "architecture": architecture,
        "latent_dim": dim,
        "n_components": whole("n_components", n_components, "Pass a positive integer; the paper uses 100."),
        "noise_width": positive("noise_width", noise_width, "Pass a positive number; the paper uses 3."),
        "weighting": weighting,
        "particle_radius": _radius(particle_radius),
        "seed": whole("seed", seed, "Pass 0 or a positive integer.", least=0),
        **asdict(chosen),
    }, chosen


def _dimension(given: Any, architecture: str) -> int | str:
    """Return the dimension of the latents; `AUTO` becomes the paper's for networks whose shape needs it beforehand."""
    if isinstance(given, str) and given == AUTO:
        return AUTO if ARCHITECTURES[architecture].makes_records else _PAPER
    given = int(given) if isinstance(given, str) and given.isdecimal() else given  # from the command line
    return whole("latent_dim", given, "Pass 'auto', or a positive integer; the paper uses 8.")


def _radius(radius: float) -> float:
    """Return the radius of a particle, a fraction of the box, as a plain float, or raise `InputError`."""
    remedy = "Pass a fraction of the box: 0.4 leaves a tenth of the box on each side."
    radius = positive("particle_radius", radius, remedy)
    if not radius < 0.5:
        raise InputError("particle_radius", f"{radius}", "a number between 0 and 0.5", remedy)
    return radius
