"""Write particles as a RELION 3.1 STAR file with its stack, completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.formats.origins import record_of
from cryotwin_nb.formats.star_writing import write_star
from cryotwin_nb.imaging.optics import CTF

_CHUNK_BYTES = 64 * 2**20


def refuse_overwriting(path: Path, stacks: Iterable[Path | None], source: Path | None) -> None:
    """Raise `InputError` if writing `path` and its stack would overwrite the source of the particles."""
    read_from = [file for file in (*stacks, source) if file is not None]
    if {path.resolve(), path.with_suffix(".mrcs").resolve()} & {file.resolve() for file in read_from}:
        sentence = f"Writing {path} would overwrite the files that these particles are read from."
        raise InputError(path, "the source", "another file", "Choose another name or folder.", sentence)


def write_star_and_stack(
    path: Path, images: Iterable[np.ndarray], shape: tuple[int, int], pixel_size: float, columns: dict, beside: dict
) -> None:
    """Write a STAR file, its stack and the files next to them, completely or not at all.

    Parameters
    ----------
    path : Path
        The .star file; the stack has the same name with the suffix .mrcs.
    images : iterable of (m, D, D) float32
        Images, in order.
    shape : (2,) int
        Number of images n and box size D, pixels.
    pixel_size : float
        Pixel size, Å.
    columns : dict
        Other arguments of `write_star`.
    beside : dict
        Result of `files_beside`.
    """
    stack = path.with_suffix(".mrcs")
    with ExitStack() as files:
        star_part, stack_part = (files.enter_context(atomic(name)) for name in (path, stack))
        write_stack(stack_part, images, *shape, pixel_size)
        for name, part in beside.items():
            if part is not None:
                part.save(files.enter_context(atomic(name)))
        write_star(star_part, stack.name, pixel_size=pixel_size, box_size=shape[1], **columns)
    for name, part in (beside | {record_of(path): None}).items():  # left from an earlier file of this name
        if part is None:
            name.unlink(missing_ok=True)


def in_chunks(read: Callable[[np.ndarray], np.ndarray], n: int, box_size: int, progress: bool) -> Iterator[np.ndarray]:
    """Yield all n images in chunks of moderate size, with a progress bar."""
    step = max(1, _CHUNK_BYTES // (4 * box_size**2))
    with tqdm(total=n, desc="writing", unit=" images", disable=not progress) as bar:
        for start in range(0, n, step):
            images = read(np.arange(start, min(start + step, n)))
            yield images
            bar.update(len(images))


def files_beside(path: Path, truth: Any, whitening: Any) -> dict[Path, Any]:
    """Return the files next to a STAR file and the object to write to each; None if an older file is to be removed."""
    return {path.with_suffix(".truth.npz"): truth, path.with_suffix(".whitening.npz"): whitening}


def described(
    n: int,
    box_size: int | None,
    pixel_size: float,
    contrast: str,
    ctf: CTF | None,
    optics_group: np.ndarray,
    known: set[str],
) -> str:
    """Describe the number, box, pixel size, defocus, contrast and available data in a few lines."""
    box = "unknown" if box_size is None else box_size
    lines = [f"{n:,} particles, box {box} px at {pixel_size:.4g} Å/px, {contrast} contrast"]
    if ctf is None:
        lines.append("CTF: none")
    else:
        defocus = np.concatenate([ctf.defocus_u, ctf.defocus_v])
        lines.append(f"CTF: defocus {defocus.min():,.0f} to {defocus.max():,.0f} Å, {ctf.voltage.mean():.0f} kV")
    lines.append(f"poses: {'yes' if 'rotations' in known else 'none'}; optics groups: {len(np.unique(optics_group))}")
    lines += [] if "images" in known else ["images: none (metadata only)"]
    return "\n".join([*lines, "simulated: with ground truth"] if "truth" in known else lines)
