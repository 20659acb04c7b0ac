"""Output of the `look` command: the page, its text, the picture and maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cryotwin_nb.formats.files import atomic
from cryotwin_nb.formats.mrc_writing import write_map
from cryotwin_nb.formats.sets import file_set
from cryotwin_nb.imaging.fourier import mirrored

if TYPE_CHECKING:
    from cryotwin_nb.preparation.findings import FirstLook


def write_look(folder: Path, found: FirstLook, title: str, flip_hand: bool) -> None:
    """Write the page, its text, the picture, the map and the half maps; the files change together."""
    from cryotwin_nb.plotting import first_look, first_look_page

    maps = {"map": found.map, "half1": found.half_maps[0], "half2": found.half_maps[1]}
    shown = replace(found, map=mirrored(found.map)) if flip_hand else found
    with file_set(folder):
        for name, volume in maps.items():
            write_map(folder / f"{name}.mrc", volume.numpy(), found.voxel_size, flip_hand=flip_hand)
        with atomic(folder / "look.png") as partial:
            first_look(shown).savefig(partial, dpi=120, bbox_inches="tight")
        first_look_page(shown, title).save(folder / "look.html")
        with atomic(folder / "look.txt") as partial:
            partial.write_text(found.summary() + "\n", encoding="utf-8")
