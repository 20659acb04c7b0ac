"""Export of a pathway: maps, latents, scripts for ChimeraX, PyMOL and Mol*, and a summary."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.chimerax import write_session
from cryotwin_nb.formats.files import atomic, make_folder
from cryotwin_nb.formats.molviewspec import write_molviewspec
from cryotwin_nb.formats.mrc_writing import write_map
from cryotwin_nb.formats.pymol import write_pymol
from cryotwin_nb.pathways.ridgeline import Pathway


def write_pathway(
    folder: str | os.PathLike,
    path: Pathway,
    maps: Tensor,
    voxel_size: float,
    sigma: float = 3.0,
    level: float | None = None,
    box_size: int | None = None,
    flip_hand: bool = False,
) -> list[Path]:
    """Write the maps of a pathway, its latents and scripts for viewers, and return the paths of the maps.

    Parameters
    ----------
    folder : path
        Output folder, created if missing. It receives map_000.mrc ..., difference_001.mrc ... (each map minus the
        previous one), pathway.cxc, pathway.pml and pathway.mvsj (show the maps as a series in ChimeraX, PyMOL and
        Mol*), latents.npy (K+1, d), latents.txt (the same latents, in the format of `cryodrgn eval_vol --zfile`) and
        path.json (log density, cost, barrier and hand).
    path : Pathway
        Path to export.
    maps : (K+1, D, D, D)
        Maps decoded at `path.latents`.
    voxel_size : float
        Voxel size of the maps, Å.
    sigma : float
        Contour level in the viewers, as a multiple of the standard deviation of all maps; shared by all maps.
    level : float, optional
        Contour level in the unit of the maps, instead of `sigma`.
    box_size : int, optional
        Box size of the original images in pixels, if the training images were downsampled: the maps are written on the
        grid of these images (see `write_map`).
    flip_hand : bool
        Write the maps in the other hand: mirrored in the plane z = 0 through their centre. Use it if the helices of the
        maps are left-handed. The latents stay the same; path.json and the headers of the maps record the flip.

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1, n_steps=2)
    >>> files = ct.write_pathway("pathway", path, model.volumes(path.latents), particles.pixel_size)
    """
    folder, maps = Path(folder), torch.as_tensor(maps).cpu()
    if len(maps) != len(path.latents):
        found, expected = f"{len(maps)} maps", f"one for each of the {len(path.latents)} points"
        raise InputError(folder, found, expected, "Pass model.volumes(path.latents).")
    make_folder(folder)
    files = [folder / f"map_{step:03d}.mrc" for step in range(len(maps))]
    changes = [folder / f"difference_{step:03d}.mrc" for step in range(1, len(maps))]
    for file, volume in zip([*files, *changes], [*maps, *maps.diff(dim=0)], strict=True):
        write_map(file, volume.numpy(), voxel_size, box_size, flip_hand)
    digits = "[0-9]" * 3
    for former in {*folder.glob(f"map_{digits}.mrc"), *folder.glob(f"difference_{digits}.mrc")} - {*files, *changes}:
        former.unlink()  # from a longer path written here earlier
    level = sigma * float(maps.std()) if level is None else float(level)
    latents = path.latents.cpu().numpy()
    number = 1000 + zlib.crc32(latents.tobytes()) % 9000  # scripts of several pathways can be open together
    write_session(folder / "pathway.cxc", files, level, number=number)
    write_pymol(folder / "pathway.pml", files, level)
    write_molviewspec(folder / "pathway.mvsj", files, level, width=voxel_size * maps.shape[-1])
    with atomic(folder / "latents.npy") as partial, open(partial, "wb") as out:
        np.save(out, latents)
    with atomic(folder / "latents.txt") as partial:
        np.savetxt(partial, latents, fmt="%.9g")
    summary = {
        "method": path.method,
        "start": path.start,
        "end": path.end,
        "log_prob": path.log_prob.tolist(),
        "log_cost": float(path.log_cost),
        "barrier": float(path.barrier),
        "voxel_size": voxel_size * maps.shape[-1] / (box_size or maps.shape[-1]),
        "flipped_hand": flip_hand,
    }
    with atomic(folder / "path.json") as partial:
        partial.write_text(json.dumps(summary, indent=1))
    return files
