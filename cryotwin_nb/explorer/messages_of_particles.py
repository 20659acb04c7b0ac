"""Messages about selected particles, and about files to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.messaging import Messages, png_of, text_of
from cryotwin_nb.explorer.packing import Packing
from cryotwin_nb.explorer.selection import composition, mean_maps, require_rows


class ParticleMessages(Messages):
    """Serve messages about particles and files."""

    def _do_selection(self, message: dict, buffers: list[bytes]) -> None:
        rows = self._rows(buffers)
        name, values = self._column(message.get("colour"))
        parts = composition(values, rows)
        self._send(kind="selection", turn=message.get("turn"), n=len(rows), colour=name, parts=parts)

    def _do_write(self, message: dict, buffers: list[bytes]) -> None:
        rows, file, particles = self._rows(buffers), text_of(message.get("file")), self._require_particles()

        def work(report: Report) -> str:
            from cryotwin_nb.exchange import write_selection

            report(None, "writing")
            return f"{len(rows):,} particles written to {write_selection(file, particles, rows)}."

        self._jobs.start("write", message.get("turn"), work, lambda sentence: sentence)

    def _do_mean(self, message: dict, buffers: list[bytes]) -> None:
        turn, particles = message.get("turn"), self._require_particles()
        if "step" in message:
            answer, _ = self._shown(message)
            step = message["step"]
            if type(step) is not int or not 0 <= step < len(answer.path.latents):
                raise InputError("step", f"{step!r:.40}", f"0 to {len(answer.path.latents) - 1}", "Choose a step.")
            rows, of = require_rows(answer.profile.particles[step], len(particles)), f"step {step}"
        else:
            rows, of = self._rows(buffers), "the selection"

        def work(report: Report) -> tuple[torch.Tensor, float]:
            return mean_maps(particles, rows, report, show)

        def show(n: int, volume: torch.Tensor) -> None:
            title = f"mean map of {of} from {n:,} images"
            self._send_single(turn, title, volume, Packing.of(volume[None]), particles.pixel_size)

        self._jobs.start(
            "mean", turn, work, lambda found: f"Mean map of {len(rows):,} images: half maps agree to {found[1]:.1f} Å."
        )

    def _require_particles(self) -> Any:
        if self._explorer.particles is None:
            sentence = "The explorer was opened without images."
            remedy = "Open it with particles=."
            raise InputError("particles", "none", "particles with images", remedy, sentence)
        return self._explorer.particles

    def _rows(self, buffers: list[bytes]) -> np.ndarray:
        if len(buffers) != 1 or len(buffers[0]) % 4:
            raise InputError("selection", "no rows", "rows of particles", "Select the particles again.")
        shown = require_rows(np.frombuffer(buffers[0], "<u4"), len(self._explorer.rows))
        return self._explorer.rows[shown]

    def _do_export(self, message: dict, buffers: list[bytes]) -> None:
        answer, _ = self._shown(message)
        look = self._session.look.changed(message.get("look"), *self._explorer.offered)
        folder, movie = text_of(message.get("folder"), ""), message.get("movie") is True
        voxel_size, explorer = self._explorer.require_voxel_size(), self._explorer

        def work(report: Report) -> str:
            files, place = explorer.write(answer, look, folder or None, movie, voxel_size, report)
            self._send(kind="folder", folder=str(place))
            return f"{len(files)} files written to {place}."

        self._jobs.start("export", message.get("turn"), work, lambda sentence: sentence)

    def _do_snapshot(self, message: dict, buffers: list[bytes]) -> None:
        png, step = png_of(buffers), message.get("step")
        folder = text_of(message.get("folder"), "")
        if type(step) is not int or not 0 <= step < 10_000:
            raise InputError("step", f"{step!r:.40}", "a step of the path", "Reload the page.")
        file = self._explorer.write_snapshot(folder or None, step, png)
        self._send(kind="folder", folder=str(file.parent))
        self._send(kind="done", of="snapshot", turn=message.get("turn"), text=f"Snapshot written to {file}.")

    def _do_picture(self, message: dict, buffers: list[bytes]) -> None:
        self._explorer.picture.replace(png_of(buffers))
