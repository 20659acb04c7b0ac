"""Write particles as a RELION 3.1 STAR file with its stack, completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic, require_suffix, require_writable
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.formats.origins import RECORD_SUFFIX, load, record_of
from cryotwin_nb.formats.outputs import refuse_foreign, refuse_inputs, require_room, require_star_name
from cryotwin_nb.formats.seals import seal_file
from cryotwin_nb.formats.sets import file_set, remove_file
from cryotwin_nb.formats.sidecars import stack_stamp
from cryotwin_nb.formats.stacks import ImageSource, NoImages, read_finite
from cryotwin_nb.formats.star import STACK, WHITENED
from cryotwin_nb.formats.star_writing import write_star
from cryotwin_nb.runtime.locks import writing

_CHUNK_BYTES = 64 * 2**20
_TRUTH, _WHITENING, _RECORD = ("labels", "coordinates"), ("amplitude", "row", "scale"), ("rows_0", "fingerprint_0")


def inputs_of(particles: Any) -> list[Path]:
    """Return the files that particles come from: those read, their stacks, those beside them, and their originals."""
    source, found = particles.source, [*particles.inputs, *particles.files.values()]
    if source is not None:
        record = record_of(source)
        found += [source, record, source.with_suffix(".truth.npz"), source.with_suffix(".whitening.npz")]
        with suppress(InputError):  # a record that cannot be read
            found += [link.source for link in load(record, source.parent)] if record.is_file() else []
    return [path for path in found if path is not None]


def refuse_foreign_records(outputs: Iterable[Path]) -> None:
    """Raise `InputError` if a record among the outputs (`origins.record_of`) is a file of the user's own."""
    for path in outputs:
        if path.name.endswith(RECORD_SUFFIX):
            refuse_foreign(path, _RECORD)


def require_outputs(path: str | os.PathLike, particles: Any) -> Path:
    """Return `path` if particles can be written there, as a STAR file with its stack and the files beside it.

    Raises
    ------
    InputError
        If it is not a .star file, a STAR file cannot refer to a stack of this name, an input or a foreign file would be
        overwritten, or the folder is not writable.
    """
    path = require_suffix(path, ".star")
    require_star_name(path)
    own = {path.with_suffix(".truth.npz"): _TRUTH, path.with_suffix(".whitening.npz"): _WHITENING}
    own[record_of(path)] = _RECORD
    refuse_inputs([path, path.with_suffix(".mrcs"), *own], inputs_of(particles))
    for file, arrays in own.items():
        refuse_foreign(file, arrays)
    if path.parent.is_dir():
        require_writable(path.parent)
    return path


def write_star_and_stack(path: str | os.PathLike, particles: Any, source: ImageSource, progress: bool) -> None:
    """Write a STAR file, its stack and the files next to them, completely or not at all.

    Parameters
    ----------
    path : path-like
        The .star file; the stack has the same name with the suffix .mrcs.
    particles : Particles
        Particles to write.
    source : ImageSource
        Their images.
    progress : bool
        Whether to show a progress bar.
    """
    path = require_outputs(path, particles)
    n, box_size, pixel_size = len(source), source.box_size, particles.pixel_size
    columns = {name: getattr(particles, name) for name in ("optics_group", "rotations", "shifts", "ctf")}
    stack = path.with_suffix(".mrcs")
    beside = {path.with_suffix(".truth.npz"): particles.truth, path.with_suffix(".whitening.npz"): particles.whitening}
    with writing(path), file_set(path.parent), ExitStack() as files:
        star_part, stack_part = (files.enter_context(atomic(name)) for name in (path, stack))
        require_room(path.parent, 4 * n * box_size**2, f"{n} images")
        write_stack(stack_part, _chunks(source, progress), n, box_size, pixel_size)
        prepared: dict[str, Any] = {} if particles.whitening is None else {WHITENED: 1}
        for name, part in beside.items():
            if part is not None:
                prepared[STACK] = stack_stamp(stack_part)
                save_beside(part, files.enter_context(atomic(name)), prepared[STACK])
        write_star(star_part, stack.name, pixel_size=pixel_size, box_size=box_size, prepared=prepared, **columns)
        for name, part in (beside | {record_of(path): None}).items():  # left from an earlier file of this name
            if part is None:
                remove_file(name)


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
