"""Choose two stars, watch the molecule change: paths between means of a mixture, in a notebook.

    ct.PathwayExplorer(model.prior, z, decode=model.volumes, voxel_size=particles.pixel_size)

Its parts: `stars` (where ends are picked), `maps` (nglview), `profile`, `controls`, `job` (work beside the kernel),
`figure` and `still` (the same view without a kernel), `saving`. What is computed is computed by the core.
"""

from cryotwin_nb.explorer.explorer import PathwayExplorer

__all__ = ["PathwayExplorer"]
