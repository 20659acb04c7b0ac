"""Densities for pathways do not depend on dead directions (`mixture.live`)."""

from __future__ import annotations

from torch import Tensor

from cryotwin_nb.mixture.components import Components
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.live import flattened, on_sheet


def without_dead(prior: GaussianMixture) -> GaussianMixture:
    """Return the mixture with one broad Gaussian in dead directions; the same object if it has none."""
    components = _components(prior)
    flat = flattened(components)
    return prior if flat is components else GaussianMixture.unchecked(*flat)


def expected_there(prior: GaussianMixture, z: Tensor) -> Tensor:
    """Return latents (n, d) whose coordinates in dead directions are those expected given the others."""
    return on_sheet(_components(prior), z)


def _components(prior: GaussianMixture) -> Components:
    return Components(prior.weights, prior.means, prior.covariances)
