"""Write particles as a RELION 3.1 STAR file with its stack, completely or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.formats.origins import record_of
from cryotwin_nb.formats.seals import seal_file
from cryotwin_nb.formats.sidecars import stack_stamp
from cryotwin_nb.formats.stacks import ImageSource, NoImages, read_finite
from cryotwin_nb.formats.star import STACK, WHITENED
from cryotwin_nb.formats.star_writing import write_star

_CHUNK_BYTES = 64 * 2**20


def refuse_overwriting(path: Path, stacks: Iterable[Path | None], source: Path | None) -> None:
    """Raise `InputError` if writing `path` and its stack would overwrite the source of the particles."""
    read_from = [file for file in (*stacks, source) if file is not None]
    if {path.resolve(), path.with_suffix(".mrcs").resolve()} & {file.resolve() for file in read_from}:
        sentence = f"Writing {path} would overwrite the files that these particles are read from."
        raise InputError(path, "the source", "another file", "Choose another name or folder.", sentence)


def write_star_and_stack(path: Path, particles: Any, source: ImageSource, progress: bool) -> None:
    """Write a STAR file, its stack and the files next to them, completely or not at all.

    Parameters
    ----------
    path : Path
        The .star file; the stack has the same name with the suffix .mrcs.
    particles : Particles
        Particles to write.
    source : ImageSource
        Their images.
    progress : bool
        Whether to show a progress bar.
    """
    n, box_size, pixel_size = len(source), source.box_size, particles.pixel_size
    columns = {name: getattr(particles, name) for name in ("optics_group", "rotations", "shifts", "ctf")}
    stack = path.with_suffix(".mrcs")
    beside = {path.with_suffix(".truth.npz"): particles.truth, path.with_suffix(".whitening.npz"): particles.whitening}
    with ExitStack() as files:
        star_part, stack_part = (files.enter_context(atomic(name)) for name in (path, stack))
        write_stack(stack_part, _chunks(source, progress), n, box_size, pixel_size)
        prepared: dict[str, Any] = {} if particles.whitening is None else {WHITENED: 1}
        for name, part in beside.items():
            if part is not None:
                prepared[STACK] = stack_stamp(stack_part)
                save_beside(part, files.enter_context(atomic(name)), prepared[STACK])
        write_star(star_part, stack.name, pixel_size=pixel_size, box_size=box_size, prepared=prepared, **columns)
    for name, part in (beside | {record_of(path): None}).items():  # left from an earlier file of this name
        if part is None:
            name.unlink(missing_ok=True)


def save_beside(part: Any, file: Path, stamp: str | None) -> None:
    """Write ground truth or a whitening to a file, sealed for the stack with this stamp (`sidecars.stack_stamp`)."""
    part.save(file)
    if stamp is not None:
        seal_file(file, stamp)


def _chunks(source: ImageSource, progress: bool) -> Iterator[np.ndarray]:
    """Yield all images (m, D, D) float32 in chunks of moderate size, with a progress bar."""
    n, step = len(source), max(1, _CHUNK_BYTES // (4 * source.box_size**2))
    with tqdm(total=n, desc="writing", unit=" images", disable=not progress) as bar:
        for start in range(0, n, step):
            images = read_finite(source, np.arange(start, min(start + step, n)))
            yield images
            bar.update(len(images))


def described(particles: Any, source: ImageSource) -> str:
    """Describe the number, box, pixel size, defocus, contrast and available data in a few lines."""
    box = source.stated_box_size or "unknown" if isinstance(source, NoImages) else source.box_size
    ctf, groups = particles.ctf, len(np.unique(particles.optics_group))
    pixel_size, contrast = f"{particles.pixel_size:.4g} Å/px", f"{particles.contrast} contrast"
    lines = [f"{len(particles):,} particles, box {box} px at {pixel_size}, {contrast}", "CTF: none"]
    if ctf is not None:
        defocus = np.concatenate([ctf.defocus_u, ctf.defocus_v])
        lines[1] = f"CTF: defocus {defocus.min():,.0f} to {defocus.max():,.0f} Å, {ctf.voltage.mean():.0f} kV"
    lines.append(f"poses: {'none' if particles.rotations is None else 'yes'}; optics groups: {groups}")
    lines += ["images: none (metadata only)"] if isinstance(source, NoImages) else []
    return "\n".join([*lines, "simulated: with ground truth"] if particles.truth is not None else lines)
