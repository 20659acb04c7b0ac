"""Buttons, menus and sliders of the explorer, and their layout; other modules define the actions that they trigger."""

from __future__ import annotations

import html
import itertools
import os
from collections.abc import Callable, Collection
from typing import Any

import ipywidgets as widgets

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.job import Stopped
from cryotwin_nb.explorer.request import METHODS, PathRequest
from cryotwin_nb.mixture.gaussian import GaussianMixture

_SIGMAS = (0.5, 15.0)
_FOLDER = "pathway"


def _menu(description: str, options: Any, width: str, **more: Any) -> widgets.Dropdown:
    layout = widgets.Layout(width=width)
    return widgets.Dropdown(
        options=options, description=description, layout=layout, style={"description_width": "initial"}, **more
    )


def _number(kind: type, description: str, value: float, low: float, high: float, tip: str, width: str) -> Any:
    style, layout = {"description_width": "initial"}, widgets.Layout(width=width)
    return kind(value=value, min=low, max=high, description=description, tooltip=tip, style=style, layout=layout)


def _button(text: str, icon: str, tip: str, width: str = "auto", **more: Any) -> widgets.Button:
    layout = widgets.Layout(width=width, padding="0 6px")
    return widgets.Button(description=text, icon=icon, tooltip=tip, layout=layout, **more)


class Controls:
    """All controls of the explorer, as attributes."""

    def __init__(
        self,
        prior: GaussianMixture,
        names: dict[int, str],
        planes: list[str],
        columns: list[str],
        with_support: bool = False,
        junk: Collection[int] = (),
    ) -> None:
        weights = prior.weights.tolist()
        heaviest = sorted(range(len(weights)), key=lambda c: -weights[c])
        stars = [(" ".join(filter(None, (str(c), names.get(c), f"({weights[c]:.1%})"))), c) for c in heaviest]
        ends = [c for c in heaviest if c not in junk] or heaviest
        last = next((c for c in ends[1:] if names.get(c) != names.get(ends[0])), ends[-1])
        self.start = _menu("Start", stars, "190px", value=ends[0])
        self.end = _menu("End", stars, "190px", value=last)
        self.swap = _button("", "exchange", "Swap start and end", "36px")
        self.method = _menu("Method", METHODS, "180px")
        self.n_steps = _number(widgets.BoundedIntText, "K", 11, 2, 60, "Number of steps: K + 1 maps", "80px")
        tip = "Parameter of Algorithm 1: larger values make the path less continuous"
        self.omega = _number(widgets.BoundedFloatText, "ω", 2.0, 1.01, 100, tip, "80px")
        self.seed = _number(widgets.BoundedIntText, "Seed", 0, 0, 2**31 - 1, "Seed of the random samples", "100px")
        self.compute = _button("Compute", "play-circle", "Compute the path and its maps", button_style="primary")
        self.stop = _button("Stop", "stop", "Stop computing", disabled=True)
        self.bar = widgets.FloatProgress(min=0, max=1, layout=widgets.Layout(width="90px", display="none"))
        self.doing = widgets.Label(layout=widgets.Layout(width="120px", display="none"))
        self.routes = _menu("Path", [], "auto")
        self.routes.layout.flex = "1 1 260px"
        self._owned = False  # whether the default folder was created for this explorer
        self._offering = False  # True while the list is being filled, so that this does not count as a choice
        self.plane = _menu("Plane", planes, "170px")
        self.colour = _menu("Colour", columns, "230px")
        self.play = widgets.Play(min=0, max=0, interval=400, show_repeat=True)
        slider = {"continuous_update": True, "style": {"description_width": "initial"}}
        wide = widgets.Layout(flex="1 1 120px", min_width="120px")
        self.step = widgets.IntSlider(0, 0, 0, description="Step", layout=wide, **slider)
        low, high = _SIGMAS
        self.sigma = widgets.FloatSlider(
            2.0, min=low, max=high, step=0.1, description="Contour (σ)", readout_format=".1f", layout=wide,
            continuous_update=False, style={"description_width": "initial"},
        )  # fmt: skip
        toggle = widgets.Layout(width="auto", padding="0 6px")
        self.ghost = widgets.ToggleButton(
            False, description="Start map", icon="clone", layout=toggle, tooltip="Overlay the map at the start"
        )
        self.change = widgets.ToggleButton(
            False, description="Gain/loss", icon="adjust", layout=toggle,
            tooltip="Density gained (blue) and lost (orange) since the start, at half the contour level",
        )  # fmt: skip
        self.reset = _button("Reset", "home", "Show the whole map from the front")
        self.snapshot = _button("Snapshot", "camera", "Save the current view as a PNG in the folder below")
        self.profile = widgets.HTML(layout=widgets.Layout(margin="0"))
        tip = "Resolution of half maps reconstructed only from the images near each step"
        self.support = _button("Support by images", "check-circle", tip)
        self.support.layout.display = "" if with_support else "none"
        self.folder = widgets.Text(_FOLDER, description="Folder", layout=widgets.Layout(width="260px"))
        tip = "Write maps, differences, latents, ChimeraX script, movie, figure, and explorer.json to restore this view"
        self.export = _button("Export", "download", tip)
        self.message = widgets.HTML(layout=widgets.Layout(flex="1 1 300px"))
        widgets.jslink((self.play, "value"), (self.step, "value"))
        self.swap.on_click(lambda _: self._swap())
        self.method.observe(lambda _: self._method_chosen(), "value")
        self._method_chosen()

    def arranged(self, stars: widgets.Widget, maps: widgets.Widget) -> list[widgets.Widget]:
        """Return the rows of the explorer, with the star picker on the left and the maps on the right."""
        row = widgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
        halves = widgets.Layout(flex_flow="row wrap", align_items="flex-start", width="100%")
        half = widgets.Layout(flex="1 1 380px", min_width="340px", padding="0 4px 0 4px", overflow="hidden")
        ends = [self.start, self.swap, self.end, self.method, self.n_steps, self.omega, self.seed]
        left = [widgets.Box([self.plane, self.colour], layout=row), stars]
        movie = widgets.Box([self.play, self.step], layout=row)
        looks = widgets.Box([self.ghost, self.change, self.reset, self.snapshot], layout=row)
        right = [movie, maps, widgets.Box([self.sigma], layout=row), looks]
        return [
            widgets.Box([*ends, self.compute, self.stop, self.routes, self.bar, self.doing], layout=row),
            widgets.Box([widgets.VBox(left, layout=half), widgets.VBox(right, layout=half)], layout=halves),
            self.profile,
            widgets.Box([self.support, self.folder, self.export, self.message], layout=row),
        ]

    @property
    def output(self) -> str:
        """Output folder."""
        return self.folder.value.strip() or _FOLDER

    def own_folder(self) -> str:
        """Return the output folder to write to; the default one is created, with a number if another has this name."""
        if self.output == _FOLDER and not self._owned:
            for number in itertools.count(1):
                name = _FOLDER if number == 1 else f"{_FOLDER}_{number}"
                try:
                    os.mkdir(name)
                except FileExistsError:  # of another explorer
                    continue
                except OSError:  # reported when the files are written
                    break
                self.folder.value, self._owned = name, True
                break
        return self.output

    @property
    def request(self) -> PathRequest:
        """Settings of the path search."""
        ends = self.start.value, self.end.value
        return PathRequest(*ends, self.method.value, self.n_steps.value, self.omega.value, self.seed.value)

    @request.setter
    def request(self, request: PathRequest) -> None:
        for name, value in request.as_dict().items():
            getattr(self, name).value = value

    @property
    def shown(self) -> dict[str, Any]:
        """Settings of the view."""
        return {name: getattr(self, name).value for name in ("step", "sigma", "plane", "colour", "ghost", "change")}

    def set_shown(self, shown: dict[str, Any]) -> None:
        """Apply settings of the view; skip planes and colours that are not available here."""
        for name in ("plane", "colour"):
            if shown.get(name) in getattr(self, name).options:
                getattr(self, name).value = shown[name]
        for name in ("step", "sigma"):
            if isinstance(shown.get(name), (int, float)):
                getattr(self, name).value = shown[name]
        for name in ("ghost", "change"):
            getattr(self, name).value = bool(shown.get(name))

    def progress(self, share: float | None, text: str) -> None:
        """Show the progress of a job; the bar pulses if the completed share is unknown (None)."""
        self._busy(True)
        self.bar.layout.display = self.doing.layout.display = ""
        self.bar.value, self.doing.value = 1.0 if share is None else share, text
        (self.bar.add_class if share is None else self.bar.remove_class)("cryotwin-pulse")

    def idle(self) -> None:
        """Hide the progress and enable the buttons again."""
        self._busy(False)
        self.bar.layout.display = self.doing.layout.display = "none"

    def on_route(self, chosen: Callable[[int], None]) -> None:
        """Register a callback that receives the index of the path that the user selects."""

        def changed(change: dict) -> None:
            if not self._offering and change["new"] is not None:
                chosen(change["new"])

        self.routes.observe(changed, "value")

    def offer(self, titles: list[str], chosen: int, n_maps: int) -> None:
        """List the paths to select from, and set the steps of the selected one."""
        self._offering = True
        self.routes.options = [(title, i) for i, title in enumerate(titles)]
        self.routes.value = chosen
        self._offering = False
        self.play.max = self.step.max = n_maps - 1
        self.step.value = min(self.step.value, n_maps - 1)

    def show_message(self, message: str) -> None:
        """Show an HTML message."""
        self.message.value = message

    def show_error(self, error: BaseException) -> None:
        """Show an error as a message."""
        if isinstance(error, Stopped):
            self.show_message("Stopped.")
        elif isinstance(error, InputError):
            self.show_message(f"<b>Not possible.</b> {html.escape(str(error))}")
        else:
            self.show_message(f"<b>Failed.</b> {type(error).__name__}: {html.escape(str(error))}")

    def _busy(self, busy: bool) -> None:
        for one in (self.compute, self.routes, self.support, self.export):
            one.disabled = busy
        self.stop.disabled = not busy

    def _swap(self) -> None:
        start, end = self.start.value, self.end.value
        self.start.value, self.end.value = end, start

    def _method_chosen(self) -> None:
        self.omega.disabled = self.method.value != "Algorithm 1"
