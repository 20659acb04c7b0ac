"""From single-particle cryo-EM images to an isometric latent space, a density on it, and conformational pathways.

    import cryotwin_nb as ct

The names in `__all__` are the public ones. They load on first use, so that importing the package stays quick and needs
neither matplotlib nor a browser.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# `ridgeline` is a function and the module that holds it. Python sets the attribute to the module when that is first
# imported, by whomever; importing it here, once, leaves the function.
from cryotwin_nb.pathways.ridgeline import Pathway, ridgeline

if TYPE_CHECKING:
    from cryotwin_nb import data, evaluation, plotting, simulate, training
    from cryotwin_nb.errors import InputError
    from cryotwin_nb.evaluation import embed_tsne, isometry, kl_divergence
    from cryotwin_nb.evaluation.outliers import outlier_scores
    from cryotwin_nb.evaluation.support import PathwaySupport, pathway_support
    from cryotwin_nb.exchange.cryodrgn_run import CryodrgnRun, read_cryodrgn
    from cryotwin_nb.exchange.export import write_pathway
    from cryotwin_nb.exchange.selection import select_near, select_state, write_selection
    from cryotwin_nb.explorer import PathwayExplorer
    from cryotwin_nb.explorer.naming import name_components
    from cryotwin_nb.formats.mrc import read_map, write_map
    from cryotwin_nb.imaging.fourier import FscCurve, fsc
    from cryotwin_nb.imaging.optics import CTF
    from cryotwin_nb.mixture.gaussian import GaussianMixture
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.models.history import History
    from cryotwin_nb.particles.particles import Particles
    from cryotwin_nb.pathways import bootstrap_path, find_routes, find_states, max_flux, ridgeline_chain
    from cryotwin_nb.preparation import Finding, FirstLook, Preparation, first_look, prepare
    from cryotwin_nb.reconstruction.homogeneous import Reconstruction, reconstruct
    from cryotwin_nb.training import TrainingConfig, fit
    from cryotwin_nb.training.warm_start import warm_start

__version__ = "0.1.0"

_MODULES = ("data", "evaluation", "plotting", "simulate", "training")
_NAMES = {
    "CTF": "imaging.optics",
    "CryoTwin": "models.cryotwin",
    "CryodrgnRun": "exchange.cryodrgn_run",
    "Finding": "preparation",
    "FirstLook": "preparation",
    "FscCurve": "imaging.fourier",
    "GaussianMixture": "mixture.gaussian",
    "History": "models.history",
    "InputError": "errors",
    "Particles": "particles.particles",
    "PathwayExplorer": "explorer",
    "PathwaySupport": "evaluation.support",
    "Preparation": "preparation",
    "Reconstruction": "reconstruction.homogeneous",
    "TrainingConfig": "training.fitting",
    "bootstrap_path": "pathways",
    "embed_tsne": "evaluation",
    "find_routes": "pathways",
    "find_states": "pathways",
    "first_look": "preparation",
    "fit": "training.fitting",
    "fsc": "imaging.fourier",
    "isometry": "evaluation",
    "kl_divergence": "evaluation",
    "max_flux": "pathways",
    "name_components": "explorer.naming",
    "outlier_scores": "evaluation.outliers",
    "pathway_support": "evaluation.support",
    "prepare": "preparation",
    "read_cryodrgn": "exchange.cryodrgn_run",
    "read_map": "formats.mrc",
    "reconstruct": "reconstruction.homogeneous",
    "ridgeline_chain": "pathways",
    "select_near": "exchange.selection",
    "select_state": "exchange.selection",
    "warm_start": "training.warm_start",
    "write_map": "formats.mrc",
    "write_pathway": "exchange.export",
    "write_selection": "exchange.selection",
}

__all__ = [
    "CTF",
    "CryoTwin",
    "CryodrgnRun",
    "Finding",
    "FirstLook",
    "FscCurve",
    "GaussianMixture",
    "History",
    "InputError",
    "Particles",
    "Pathway",
    "PathwayExplorer",
    "PathwaySupport",
    "Preparation",
    "Reconstruction",
    "TrainingConfig",
    "__version__",
    "bootstrap_path",
    "data",
    "embed_tsne",
    "evaluation",
    "find_routes",
    "find_states",
    "first_look",
    "fit",
    "fsc",
    "isometry",
    "kl_divergence",
    "max_flux",
    "name_components",
    "outlier_scores",
    "pathway_support",
    "plotting",
    "prepare",
    "read_cryodrgn",
    "read_map",
    "reconstruct",
    "ridgeline",
    "ridgeline_chain",
    "select_near",
    "select_state",
    "simulate",
    "training",
    "warm_start",
    "write_map",
    "write_pathway",
    "write_selection",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
