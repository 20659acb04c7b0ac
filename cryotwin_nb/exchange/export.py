"""Export of a pathway: maps, latents, scripts for ChimeraX, PyMOL and Mol*, and a summary."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from cryotwin_nb.errors import POSITIVE, InputError, guarded
from cryotwin_nb.formats.chimerax import write_session
from cryotwin_nb.formats.files import atomic, require_writable
from cryotwin_nb.formats.molviewspec import write_molviewspec
from cryotwin_nb.formats.mrc_writing import write_map
from cryotwin_nb.formats.outputs import digest_of, refuse_unlisted, remove_listed, require_room, summary_of
from cryotwin_nb.formats.pymol import write_pymol
from cryotwin_nb.formats.sets import file_set, written_path
from cryotwin_nb.mixture.points import as_numbers
from cryotwin_nb.pathways.counting import MeasuredBarrier
from cryotwin_nb.pathways.ridgeline import Pathway
from cryotwin_nb.runtime.locks import writing

_LIST = "path.json"
_OTHERS = ("pathway.cxc", "pathway.pml", "pathway.mvsj", "latents.npy", "latents.txt", _LIST)
_MAPS = r"(map|difference)_\d{3,}\.mrc"


@guarded(voxel_size=POSITIVE)
def write_pathway(
    folder: str | os.PathLike,
    path: Pathway,
    maps: Tensor,
    voxel_size: float,
    sigma: float = 3.0,
    level: float | None = None,
    box_size: int | None = None,
    flip_hand: bool = False,
    barrier: MeasuredBarrier | None = None,
) -> list[Path]:
    """Write the maps of a pathway, its latents and scripts for viewers, and return the paths of the maps.

    The files change together: if writing is interrupted, the folder holds the former pathway or the new one, whole.

    Parameters
    ----------
    folder : path
        Output folder, created if missing. It receives map_000.mrc ..., difference_001.mrc ... (each map minus the
        previous one), pathway.cxc, pathway.pml and pathway.mvsj (show the maps as a series in ChimeraX, PyMOL and
        Mol*), latents.npy (K+1, d), latents.txt (the same latents, in the format of `cryodrgn eval_vol --zfile`) and
        path.json (log density, cost, barrier, hand, and the names and checksums of these files). Files that a former
        path.json lists are replaced or deleted; all other files are kept.
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
    barrier : MeasuredBarrier, optional
        Barrier from `measure_barrier`, which path.json records as `measured_barrier`.

    Raises
    ------
    InputError
        If the maps do not match the path, a file would be replaced that path.json does not list, the disk has too
        little space, the folder cannot be written to, or another process is writing to it.

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1, n_steps=2)
    >>> files = ct.write_pathway("pathway", path, model.volumes(path.latents), particles.pixel_size)
    """
    folder, maps = Path(folder), as_numbers(maps, "maps", "Pass model.volumes(path.latents).").cpu()
    if len(maps) != len(path.latents):
        found, expected = f"{len(maps)} maps", f"one for each of the {len(path.latents)} points"
        raise InputError(folder, found, expected, "Pass model.volumes(path.latents).")
    require_room_for_maps(folder, len(maps), box_size or maps.shape[-1])
    with writing(folder / "path.json"), file_set(folder):
        return _write(folder, path, maps, voxel_size, sigma, level, box_size, flip_hand, barrier)


def _write(
    folder: Path,
    path: Pathway,
    maps: Tensor,
    voxel_size: float,
    sigma: float,
    level: float | None,
    box_size: int | None,
    flip_hand: bool,
    barrier: MeasuredBarrier | None,
) -> list[Path]:
    former = _former(folder)
    names = _map_names(len(maps))
    for name, volume in zip(names, [*maps, *maps.diff(dim=0)], strict=True):
        write_map(folder / name, volume.numpy(), voxel_size, box_size, flip_hand)
    files = [folder / name for name in names[: len(maps)]]
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
        **({} if barrier is None else {"measured_barrier": barrier.summary()}),
        "voxel_size": voxel_size * maps.shape[-1] / (box_size or maps.shape[-1]),
        "flipped_hand": flip_hand,
        "files": [*names, *_OTHERS],
        "sha256": {name: digest_of(written_path(folder / name)) for name in (*names, *_OTHERS[:-1])},
    }
    remove_listed(folder, former, names, _MAPS)
    with atomic(folder / _LIST) as partial:
        partial.write_text(json.dumps(summary, indent=1))
    return files


def written_earlier(folder: Path) -> list[Path]:
    """Return the files in a folder that `write_pathway` might replace or remove."""
    patterns = ("map_*.mrc", "difference_*.mrc", *_OTHERS)
    return [file for pattern in patterns for file in folder.glob(pattern)]


def require_room_for_maps(folder: Path, n_maps: int, box_size: int) -> None:
    """Raise `InputError` unless the maps of a path, and their differences, can be written beside the former ones."""
    require_writable(folder)
    refuse_unlisted(folder, [*_map_names(n_maps), *_OTHERS], _former(folder), _LIST)
    require_room(folder, 4 * box_size**3 * (2 * n_maps - 1), f"{n_maps} maps and their differences")


def require_listed(file: Path) -> None:
    """Raise `InputError` if a file of a pathway has other contents than path.json beside it lists."""
    digests = summary_of(file.with_name(_LIST)).get("sha256")
    expected = digests.get(file.name) if isinstance(digests, dict) else None
    if expected is not None and file.is_file() and digest_of(file) != expected:
        sentence = f"{file} is damaged, or does not belong to the pathway in {file.with_name(_LIST)}."
        remedy = f"Write the pathway again. If the file was changed on purpose, move it to a folder without {_LIST}."
        raise InputError(file, "contents with another checksum", f"those that {_LIST} lists", remedy, sentence)


def _former(folder: Path) -> list[str]:
    """Return the files in a folder that a former call wrote: those that its path.json lists.

    Earlier builds wrote no list, but the density at each map.
    """
    summary = summary_of(folder / _LIST)
    names, density = summary.get("files"), summary.get("log_prob")
    if names is None and isinstance(density, list):
        names = [*_map_names(len(density)), *_OTHERS]
    return names if isinstance(names, list) else []


def _map_names(n: int) -> list[str]:
    """Return the names of n maps and of the differences of neighbours."""
    return [*(f"map_{step:03d}.mrc" for step in range(n)), *(f"difference_{step:03d}.mrc" for step in range(1, n))]
