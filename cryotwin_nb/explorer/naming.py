"""Notebook widget to name the components of a mixture from pictures of their maps.

naming = ct.name_components(model.prior, model.volumes, "run/model.labels.json")
naming         # at the end of a cell: pictures, each with a text field, and a button
naming.names   # {component: name}
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Decode, components_of_labels, write_labels
from cryotwin_nb.evaluation.labels import Names
from cryotwin_nb.formats.files import require_suffix
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import find_states
from cryotwin_nb.plotting.rendering import contour_level, render_surface

_COLUMNS = 7


class NamingWidget(widgets.VBox):
    """Widget of pictures, each with a text field, and a button that saves the names to a file.

    Parameters
    ----------
    groups : sequence of tuple of int
        For each picture, the components that are named together; the picture shows the first of them.
    shares : sequence of float
        Total weight of each group.
    pictures : (m, h, w, 3) float
        Picture of each group, RGB from 0 to 1.
    names : mapping of int to str
        Initial names of the components.
    path : path
        File to save the names to (.json).

    Attributes
    ----------
    groups : list of tuple of int
        Components of each picture.
    names : dict of int to str
        Names by component: the initial names, or the names last saved.
    fields : list of Text
        Text field of each picture.
    button : Button
        Button that saves the names.
    message : HTML
        Confirmation that the names were saved, or an error message.
    """

    def __init__(
        self,
        groups: Sequence[tuple[int, ...]],
        shares: Sequence[float],
        pictures: np.ndarray,
        names: Names,
        path: str | os.PathLike,
    ) -> None:
        self.groups, self.names, self._path, self._pictures = list(groups), dict(names), path, pictures
        self._titles = [f"{group[0]}: {share:.1%}" for group, share in zip(groups, shares)]
        narrow = widgets.Layout(width=f"{pictures.shape[2]}px")
        given = [str(names.get(group[0], "")) for group in groups]
        self.fields = [widgets.Text(name, placeholder="name", layout=narrow) for name in given]
        self.button = widgets.Button(description="Save names", icon="save", button_style="primary")
        self.button.on_click(lambda _: self._save())
        self.message = widgets.HTML()
        images = [widgets.Image(value=_png(picture), format="png", layout=narrow) for picture in pictures]
        cells = [widgets.VBox([widgets.Label(t), i, f]) for t, i, f in zip(self._titles, images, self.fields)]
        gallery = widgets.Box(cells, layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([gallery, widgets.HBox([self.button, self.message])])

    def _save(self) -> None:
        """Save the names in the fields; components that are not shown keep their names."""
        names = dict(self.names)
        for group, field in zip(self.groups, self.fields):
            for component in group:
                names[component] = field.value.strip()
        names = {component: name for component, name in names.items() if name}
        try:
            write_labels(self._path, names)
        except InputError as error:
            self.message.value = f"<b>Not saved.</b> {html.escape(str(error))}"
            return
        self.names = names
        different = len(set(names.values()))
        self.message.value = html.escape(f"{different} names of {len(names)} components saved to {self._path}.")

    def _repr_mimebundle_(self, **kwargs: object) -> dict:
        """Return the widget, and a picture of it for saved notebooks, which have no kernel."""
        return super()._repr_mimebundle_(**kwargs) | {"image/png": base64.b64encode(self._still()).decode()}

    def _still(self) -> bytes:
        """Return all pictures with their names as one PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        from cryotwin_nb.plotting.style import PLAIN, plain

        rows, columns, dpi = -(-len(self.groups) // _COLUMNS), min(_COLUMNS, len(self.groups)), 80
        height, width = self._pictures.shape[1:3]
        figure = Figure(figsize=(columns * width / dpi, rows * (height + 20) / dpi), dpi=dpi)
        for i, picture in enumerate(self._pictures):
            left, top = i % _COLUMNS * width, (i // _COLUMNS + 1) * (height + 20)
            figure.figimage(np.flipud(picture), left, rows * (height + 20) - top, origin="lower")
            name = self.names.get(self.groups[i][0], "unnamed")
            x, y = (left + width / 2) / (columns * width), 1 - (top - height - 17) / (rows * (height + 20))
            figure.text(x, y, plain(f"{self._titles[i]} {name}"), ha="center", va="top", size=8, **PLAIN)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return _png(np.asarray(canvas.buffer_rgba())[..., :3])


def name_components(
    prior: GaussianMixture,
    decode: Decode,
    path: str | os.PathLike,
    names: Names | None = None,
    n_shown: int = 14,
    size: int = 150,
) -> NamingWidget:
    """Create a widget that shows the components of a mixture as maps and saves the names you enter to a file.

    Components with the same name share one picture and are renamed together; the picture shows the map at the mean of
    the component with the largest weight. Each component without a name has a separate picture.

    Parameters
    ----------
    prior : GaussianMixture
        Mixture whose components are named.
    decode : callable
        Decoder from latents (m, d) to maps (m, D, D, D), such as `model.volumes`.
    path : path
        File to save the names to (.json); read it with `evaluation.read_labels`.
    names : mapping of int to str, optional
        Initial names of the components. By default "S1", "S2", ...: the states from `find_states`.
    n_shown : int
        Maximum number of pictures, in order of decreasing weight. Components that are not shown keep their names.
    size : int
        Edge length of the pictures before cropping, pixels.

    Raises
    ------
    InputError
        If `names` contains components that the mixture does not have.
    """
    require_suffix(path, ".json")
    if names is None:
        names = {c: state.name for state in find_states(prior) for c in state.components}
    components_of_labels(prior, names)  # raises InputError for components that the mixture does not have
    weights: list[float] = prior.weights.tolist()
    groups: dict[str | int, list[int]] = {}
    for component in sorted(range(prior.n_components), key=lambda c: -weights[c]):
        groups.setdefault(names.get(component, component), []).append(component)
    shares = {key: sum(weights[c] for c in group) for key, group in groups.items()}
    shown = sorted(groups, key=lambda key: -shares[key])[:n_shown]
    maps = torch.as_tensor(decode(prior.means[[groups[key][0] for key in shown]].float()))
    level = contour_level(maps, 2.0)
    pictures = _cut(np.stack([render_surface(volume, level, size=size) for volume in maps]))
    return NamingWidget([tuple(groups[key]) for key in shown], [shares[key] for key in shown], pictures, names, path)


def _cut(pictures: np.ndarray) -> np.ndarray:
    """Crop pictures (m, H, H, 3) to the rows and columns in which any of them is not white, plus a margin."""
    used = pictures.min(axis=(0, 3)) < 1
    if not used.any():
        return pictures
    rows, columns = (np.flatnonzero(used.any(axis)) for axis in (1, 0))
    margin = pictures.shape[1] // 30
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return pictures[:, top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin]


def _png(picture: np.ndarray) -> bytes:
    """Encode a grey picture (H, W, 3) as a small PNG."""
    from PIL import Image  # comes with matplotlib

    pixels = picture if picture.dtype == np.uint8 else np.rint(255 * picture).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).quantize(32).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
