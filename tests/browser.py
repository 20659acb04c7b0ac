"""JupyterLab and headless Chromium for tests, isolated from the user's settings and from the network."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARTEFACTS = Path(__file__).parent.parent / "results" / "browser"
APP = "document.querySelector('.cryotwin-explorer')?.cryotwin"
"""The explorer in the browser (see explorer/front/app.js)."""
_FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@contextlib.contextmanager
def jupyter_lab(folder: Path, home: Path) -> Iterator[str]:
    """Start JupyterLab in `folder` with a separate home directory; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"HOME": "home", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "run"}
    own = {name: str(home / part) for name, part in names.items()} | {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    for path in own.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    own["PYTHONPATH"] = str(Path(__file__).parent.parent)  # kernels import this copy of the package
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    options = [
        "--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
        "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", *options]
    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=os.environ | own, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address + "/api", server, home / "lab.log")
            yield address
        finally:
            server.terminate()
            server.wait(20)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.25)
    raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


class LabPage:
    """A notebook open in JupyterLab.

    Attributes
    ----------
    page : playwright Page
    errors : list of str
        Errors reported by the console.
    outside : list of str
        Requested addresses that are not on this machine.
    """

    def __init__(self, browser: Any, address: str, notebook: str, width: int = 1280, height: int = 800) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda message: self._console(message))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.set_default_timeout(60_000)
        self.page.goto(f"{address}/lab/tree/{notebook}?reset")
        self.wait_for_kernel()

    def wait_for_kernel(self) -> None:
        self.page.wait_for_selector(".jp-CodeCell")
        kernel = "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel"
        self.page.wait_for_function(f"() => {kernel}?.status === 'idle'")

    def command(self, name: str) -> None:
        self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")
        prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent)"
        self.page.wait_for_function(f"() => {prompts}.every(text => /\\[\\d+\\]/.test(text))")

    def screenshot(self, name: str) -> Path:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")
        return ARTEFACTS / f"{name}.png"

    def close(self) -> None:
        """Close the page and stop its kernel."""
        self.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
        self.page.close()

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _requested(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
            self.outside.append(url)


class ExplorerPage(LabPage):
    """The explorer in its notebook."""

    def star(self, component: int) -> None:
        """Click a star with the mouse."""
        self.page.locator(".cryotwin-plane-frame").scroll_into_view_if_needed()
        place = self.page.evaluate(
            f"""(c) => {{ const app = {APP}, [x, y] = app.plane.plane.where(...app.plane.drawn.stars[c]);
            const box = app.p.plane.querySelector('.cryotwin-plane-frame').getBoundingClientRect();
            return [box.x + x + 1, box.y + y + 1]; }}""",
            component,
        )
        self.page.mouse.move(2, 2)
        self.page.mouse.click(*place)

    def press(self, name: str) -> None:
        self.page.locator(".cryotwin-explorer").get_by_role("button", name=name, exact=True).click()

    def field(self, name: str) -> Any:
        return self.page.locator(".cryotwin-explorer").get_by_label(name, exact=True)

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait for a condition of `app`, the explorer."""
        script = f"() => {{ const app = {APP}; try {{ return {condition}; }} catch {{ return false; }} }}"
        self.page.wait_for_function(script, timeout=1000 * seconds)

    def get(self, expression: str) -> Any:
        return self.page.evaluate(f"() => {{ const app = {APP}; return {expression}; }}")

    def opened(self) -> None:
        """Wait until stars, the first molecule and the states are there."""
        self.wait("app.maps.frames > 0 && app.states.length")

    def computed(self, maps: int = 12) -> None:
        """Wait until all maps of a path with the present settings are there."""
        self.wait(f"!app.stale && app.result.profile && app.result.data.filter(Boolean).length === {maps}")

    def drawn(self, step: int) -> None:
        self.wait(f"app.maps.drawn.k === {step}")

    def look(self) -> np.ndarray:
        """Return what the maps' panel shows, (h, w, 3)."""
        file = self.screenshot("canvas")
        self.page.locator(".cryotwin-scene").screenshot(path=file)
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium that draws WebGL in software."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, "--ignore-gpu-blocklist"])
        try:
            yield browser
        finally:
            browser.close()
