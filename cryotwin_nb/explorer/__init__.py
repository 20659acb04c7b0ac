"""Notebook widget: choose two components of a mixture and watch the molecule change between their means.

    ct.PathwayExplorer(model.prior, z, decode=model.volumes, voxel_size=particles.pixel_size)

Modules: `stars` (selection of the two ends), `maps` (nglview), `profile`, `controls`, `job` (background jobs),
`search`, `figure` and `still` (the same view without a kernel), `saving`, `naming` (manual labels). The core
subpackages do all numerical work.
"""

import lazy_loader

from cryotwin_nb.errors import extras_explained

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras_explained():
        return _load(name)
