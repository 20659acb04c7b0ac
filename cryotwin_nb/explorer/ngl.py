"""Maps of a path in nglview, an extra: one surface a step, and a slider that shows one of them."""

from __future__ import annotations

import io
from importlib.metadata import version
from typing import Any

import ipywidgets as widgets
from IPython.utils.capture import capture_output
from torch import Tensor

from cryotwin_nb.errors import InputError, extras_explained
from cryotwin_nb.formats.mrc_writing import map_bytes

NGLVIEW = "4.0"


def maps_in_nglview(maps: Tensor, voxel_size: float | None, level: float, step: int = 0) -> widgets.VBox:
    """Return a widget with the surfaces of maps (m, D, D, D) and a slider.

    Parameters
    ----------
    maps : (m, D, D, D) float
        Maps.
    voxel_size : float or None
        Voxel size, Å; if it is not known, maps are drawn with 1 Å.
    level : float
        Contour level in the unit of the maps.
    step : int
        Map shown first.

    Raises
    ------
    InputError
        If another version of nglview is installed, which would not draw in JupyterLab.
    """
    with extras_explained(), capture_output():  # importing nglview displays a widget
        import nglview
    found = version("nglview")
    if found != NGLVIEW:
        remedy = f"Run `pip install nglview=={NGLVIEW}`, then restart the kernel and JupyterLab."
        raise InputError("nglview", f"version {found}", f"version {NGLVIEW}", remedy)
    view: Any = nglview.NGLWidget(height="320px")
    view.background = "white"
    for k, volume in enumerate(maps):
        file = io.BytesIO(map_bytes(volume.float().numpy(), voxel_size or 1.0))
        component = view.add_component(file, ext="mrc", defaultRepresentation=False)
        component.add_representation("surface", isolevel=level, isolevelType="value", useWorker=False)
        if k != step:
            component.hide()
    slider = widgets.IntSlider(step, 0, len(maps) - 1, description="Step", continuous_update=False)
    slider.observe(lambda change: view.show_only([change["new"]]), "value")
    return widgets.VBox([slider, view])
