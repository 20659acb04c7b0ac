"""A notebook widget: choose two components of a mixture and watch the molecule change between their means.

    ct.PathwayExplorer(model.prior, z, decode=model.volumes, voxel_size=particles.pixel_size)

Its parts: `stars` (where ends are picked), `maps` (nglview), `profile`, `controls`, `job` (work beside the kernel),
`search`, `figure` and `still` (the same view without a kernel), `saving`, `naming` (labels by hand). What is computed,
the core computes.
"""

import lazy_loader

from cryotwin_nb.errors import extras_told

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras_told():
        return _load(name)
