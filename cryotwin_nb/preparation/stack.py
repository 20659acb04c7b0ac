"""Prepare particles as a small working stack: cropped, whitened, with dark particles, in half precision.

`Particles.read` reads the stack, and training on it gives the same models as training on the original images on the
same grid: the scaling of the grey values is stored beside the stack (`whitening`) and undone by `ImageFormation`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from cryotwin_nb.formats.files import atomic, require_writable
from cryotwin_nb.formats.mrc_writing import set_statistics
from cryotwin_nb.formats.origins import chain_of, written
from cryotwin_nb.formats.partial import PartialStack
from cryotwin_nb.formats.sets import file_set, remove_file
from cryotwin_nb.formats.sidecars import stack_stamp
from cryotwin_nb.formats.star import SIGN, STACK, WHITENED
from cryotwin_nb.formats.star_writing import write_star
from cryotwin_nb.imaging.artefacts import Meter, mend, spikes
from cryotwin_nb.imaging.fourier import crop_images, filter_images
from cryotwin_nb.particles.formation import ImageFormation, evenly
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import image_quality
from cryotwin_nb.particles.whitening import Whitening
from cryotwin_nb.particles.writing import require_outputs, save_beside
from cryotwin_nb.preparation.cropping import cropped
from cryotwin_nb.preparation.grids import read_on_one_grid
from cryotwin_nb.preparation.identity import identity_of
from cryotwin_nb.preparation.relion import choose_format, normalised
from cryotwin_nb.preparation.report import Preparation, report
from cryotwin_nb.runtime.locks import writing

_TYPES = {"float16": np.float16, "float32": np.float32}
_LARGEST = 2.0**15  # largest stored value; the maximum of float16 is 65504
_CHUNK, _SAMPLE, _NEVER = 256, 500, 1e30


def prepare(
    particles: Particles | str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    box_size: int | None = None,
    *,
    dtype: str | None = None,
    whiten: bool | None = None,
    for_relion: bool = False,
    workers: int | None = None,
    resume: bool = True,
    progress: bool = True,
    **reading: Any,
) -> Preparation:
    """Write particles as one compact stack with a STAR file beside it, completely or not at all.

    By default, this is a working stack for cryotwin_nb only. Pass ``for_relion=True`` for a stack that RELION can use.

    Parameters
    ----------
    particles : Particles, path-like or sequence of path-like
        Particles to prepare, or their file, which can contain several pixel or box sizes (see Notes).
    output : path-like
        Path of the .star file. The stack (.mrcs, memory-mappable) of the same name is written beside it. The folder is
        created if needed.
    box_size : int, optional
        New box size, pixels, even. Images are cropped in Fourier space: they keep their extent in Å and lose detail
        finer than two new pixels. By default, the box size is kept.
    dtype : {"float16", "float32"}, optional
        Data type of the stack, MRC mode 12 or 2. By default float16, which RELION 3.1 cannot open, or float32 with
        `for_relion`.
    whiten : bool, optional
        Divide by the amplitude spectrum of the noise (per optics group for groups of at least 1,000 images), the
        default without `for_relion`. If False, float16 images are divided by the standard deviation of the noise, and
        float32 images keep their grey values.
    for_relion : bool
        Write a stack for RELION 3.1 and later: float32, light particles on a dark background, not whitened, each image
        normalised to a background of mean 0 and standard deviation 1, and no columns that RELION does not know. By
        default, the stack is for cryotwin_nb: its particles are dark, and a map by RELION would be negative.
    workers : int, optional
        Number of threads; by default one per available CPU.
    resume : bool
        Resume an interrupted call with the same input and options.
    progress : bool
        Show a progress bar.
    **reading
        Keywords of `Particles.read` for a file, such as `contrast`, `poses`, `indices` or `optics_groups`.

    Returns
    -------
    Preparation
        Report on the stack and on suspicious images.

    Raises
    ------
    InputError
        If an image contains NaN (the message names it), the disk has too little space, an interrupted call had other
        input or options, the output would overwrite the input or is being written by another process, `Particles.read`
        refuses the input, or `for_relion` is combined with float16 or whitening.

    Notes
    -----
    The images are written as dark particles. `Particles.images` returns them as stored. `Particles.unwhitened` and
    everything built on `ImageFormation` restore the original grey values up to a constant offset. With `for_relion`,
    each image has its own scale, and `Particles.read` measures the contrast. Start RELION in the folder of the output.

    Images of several pixel or box sizes are brought to one grid: the largest pixel size, and the largest even box that
    no image has to be padded for. They are resampled by exact trigonometric interpolation about the image centre.
    Poses, shifts (Å), CTF, optics groups, row order and grey values do not change. To keep finer detail, leave out the
    coarse images with `optics_groups`. A pixel size in cryoDRGN's ctf.pkl is then ignored in favour of the file's.

    Examples
    --------
    >>> report = ct.prepare(particles, "prepared.star", box_size=24, progress=False)
    >>> report.box_size
    24
    """
    started = time.perf_counter()
    dtype, whiten = choose_format(dtype, whiten, for_relion)
    particles, grids = read_on_one_grid(particles, reading)
    output = require_outputs(output, particles)
    require_writable(output.parent)
    with writing(output):
        small = cropped(particles, box_size or particles.box_size)
        chain = chain_of(particles.source, particles.source_rows)
        stack = PartialStack(
            output.with_suffix(".mrcs"), len(small), small.box_size, small.pixel_size, _TYPES[dtype], _CHUNK
        )
        identity: dict[str, Any] = {"box size": small.box_size, "type": dtype, "whitening": whiten, "grids": grids}
        identity |= {"input": identity_of(particles, _CHUNK), "images per chunk": _CHUNK, "for RELION": for_relion}
        identity["hot pixels"] = "replaced"
        known = stack.open(identity, resume, lambda: _amplitude(small, whiten, dtype) | _hot(particles))
        amplitude = np.array(known["amplitude"])
        work = partial(_chunk, particles, small, amplitude, known["hot"], dtype, for_relion)
        _fill(stack, work, workers or _processors(), progress)
        kept = stack.kept()
        whitening = Whitening(amplitude, _rows(small, amplitude), kept["scale"]) if len(amplitude) else None
        squares = kept["power"] / kept["scale"] ** 2
        set_statistics(stack.stack, kept["low"].min(), kept["high"].max(), kept["stored"].mean(), squares.mean())
        with file_set(output.parent) as files:
            _publish(stack, small, whitening, output, for_relion)
            written(output, chain)
            stack.finish(files)
        return report(
            output, small, kept, particles.box_size, whitening, dtype, time.perf_counter() - started, for_relion
        )


def _amplitude(particles: Particles, whiten: bool, dtype: str) -> dict[str, list]:
    """Return spectra (G, n_shells); dividing images by them gives noise of unit variance. Empty if unscaled."""
    if not whiten and dtype == "float32":
        return {"amplitude": []}
    power = ImageFormation(particles.box_size, windowed=False).noise_of_groups(particles, scaled=False)
    amplitude = (power * particles.pixel_size**2 * particles.box_size).sqrt().numpy()
    amplitude = np.maximum(amplitude, 1e-3 * amplitude.max())  # limits the amplification
    if not whiten:
        amplitude[:] = amplitude[:1, particles.box_size // 4, None]
    return {"amplitude": amplitude.tolist()}


def _rows(particles: Particles, amplitude: np.ndarray) -> np.ndarray:
    """Return the spectrum row of each particle: that of its optics group, or 0 (all images) if there is only one."""
    return particles.optics_group + 1 if len(amplitude) > 1 else np.zeros(len(particles), np.int64)


def _hot(particles: Particles) -> dict[str, float]:
    """Return the spike of a hot pixel, by a sample of the images."""
    sample = evenly(np.arange(len(particles)), _SAMPLE)
    return {"hot": min(image_quality(particles[sample]).hot, _NEVER)}  # a number that JSON can hold


def _chunk(
    full: Particles, small: Particles, amplitude: np.ndarray, hot: float, dtype: str, for_relion: bool, rows: np.ndarray
) -> tuple[np.ndarray, dict]:
    """Return images as stored, and statistics of each image before and after processing."""
    images = full.unwhitened(rows)  # a stack that was prepared before is not whitened twice
    digests = [hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest() for image in images.numpy()]
    count = torch.zeros(len(rows))
    for position in (spikes(images)[0] > hot).nonzero().flatten().tolist():
        images[position], count[position] = mend(images[position], hot)
    measures = Meter(full.box_size).measure(images).T
    kept = {"mean": images.mean((1, 2)), "hot": count, **dict(zip(("outside", "inside", "slope"), measures[:3]))}
    images = images if small is full else crop_images(images, small.box_size)
    if len(amplitude):
        outside = 1 - ImageFormation(small.box_size).window
        images = images - ((images * outside).sum((1, 2)) / outside.sum())[:, None, None]
        images = filter_images(images, torch.as_tensor(1 / amplitude[_rows(small[rows], amplitude)]))
    images = normalised(images) if for_relion else images
    peak = images.abs().amax((1, 2))
    scale = torch.ones_like(peak)
    if dtype == "float16":
        scale = torch.exp2((peak / _LARGEST).clamp_min(1).log2().ceil())
    kept |= {"power": images.square().mean((1, 2)), "scale": scale}
    stored = images / scale[:, None, None]
    kept |= {"low": stored.amin((1, 2)), "high": stored.amax((1, 2)), "stored": stored.mean((1, 2))}
    return stored.numpy().astype(_TYPES[dtype]), {
        **{name: [float(f"{value:.6g}") for value in values.tolist()] for name, values in kept.items()},
        "scale": scale.tolist(),  # exact
        "digest": digests,
    }


def _fill(stack: PartialStack, work, workers: int, progress: bool) -> None:
    """Process all chunks, with one PyTorch thread per worker: more threads would compete with the workers."""
    threads = torch.get_num_threads()
    finished = sum(len(stack.rows(number)) for number in stack.done)
    try:
        with tqdm(
            total=stack.shape[0], initial=finished, desc="preparing", unit=" images", disable=not progress
        ) as bar:
            for count in stack.fill(work, workers, partial(torch.set_num_threads, 1)):
                bar.update(count)
    finally:
        torch.set_num_threads(threads)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _publish(
    stack: PartialStack, particles: Particles, whitening: Whitening | None, output: Path, for_relion: bool
) -> None:
    """Write the files beside the finished stack."""
    beside = {".truth.npz": particles.truth, ".whitening.npz": whitening}
    stamp = None if for_relion else stack_stamp(stack.stack)  # RELION warns of columns that it does not know
    with atomic(output) as star:
        columns: dict[str, int | str] = {} if stamp is None else {SIGN: -1, STACK: stamp}
        if whitening is not None:
            columns[WHITENED] = 1
        views = (particles.rotations, particles.shifts, particles.ctf)
        grid = (particles.optics_group, particles.pixel_size, particles.box_size)
        write_star(star, stack.target.name, *grid, *views, columns)
        with ExitStack() as files:
            for suffix, part in beside.items():
                if part is not None:
                    save_beside(part, files.enter_context(atomic(output.with_suffix(suffix))), stamp)
    for suffix, part in beside.items():
        if part is None:
            remove_file(output.with_suffix(suffix))
