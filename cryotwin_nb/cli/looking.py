"""`look` command: what is wrong with particles, as a page, text, a picture and maps."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryotwin_nb.cli.options import Option, options_of, values_of
from cryotwin_nb.cli.reading import add_json, add_particles, check_outputs, print_result, read_particles
from cryotwin_nb.cli.writing import add_writing, owned
from cryotwin_nb.errors import extras_explained
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.formats.mrc_writing import write_map
from cryotwin_nb.formats.sets import file_set
from cryotwin_nb.imaging.fourier import mirrored

if TYPE_CHECKING:
    from cryotwin_nb.particles.particles import Particles
    from cryotwin_nb.plotting.looks import Section
    from cryotwin_nb.preparation.findings import FirstLook

DONE, PROBLEMS = 0, 1
_LOOK = ("look.html", "look.txt", "look.png", "map.mrc", "half1.mrc", "half2.mrc")
_MOST = 5000  # images judged by a model
_STATES = 12  # states whose class averages are shown


def add_look(parser: argparse.ArgumentParser) -> None:
    """Add the options of `look`."""
    add_particles(parser)
    for option in _looking():
        option.add_to(parser)
    model = "trained model of these particles (.safetensors); the page then shows junk and the class averages of states"
    parser.add_argument("--model", type=Path, help=model)
    files = ", ".join(_LOOK[:-3])
    parser.add_argument("--output", type=Path, help=f"folder for {files}, map.mrc and the two half maps")
    add_writing(parser)
    hand = "write and draw the maps in the other hand, mirrored in the plane z = 0 through their centre"
    parser.add_argument("--flip-hand", action="store_true", help=hand)
    parser.add_argument("--paths", action="store_true", help="only list where each stack of the file was found")
    add_json(parser)


def look(options: argparse.Namespace) -> int:
    """Check particles; return 1 if something must be mended before training."""
    if options.paths:
        return _list_stacks(options)
    if not options.output:
        return _look(options)
    with owned(options, [options.output / name for name in _LOOK], locked=[options.output / _LOOK[0]]):
        return _look(options)


def _look(options: argparse.Namespace) -> int:
    from cryotwin_nb.preparation import first_look

    if options.output:
        with extras_explained():
            import cryotwin_nb.plotting  # noqa: F401
    particles = read_particles(options)
    if options.output:
        check_outputs(options, [options.output / name for name in _LOOK], options.output, particles)
    found = first_look(particles, progress=True, **values_of(options, _looking()))
    sections = [] if options.model is None else _judged(options.model, particles, bool(options.output))
    text = "\n".join([found.summary(), *(line for section in sections for line in section.lines)])
    print_result(options, _numbers(found) | {"by_model": [section.lines for section in sections]}, text)
    if options.output:
        _write(options.output, found, text, sections, f"First look at {options.particles[0].name}", options.flip_hand)
    return PROBLEMS if found.problems else DONE


def _numbers(found: FirstLook) -> dict[str, Any]:
    """Return the results for JSON; None for what could not be estimated."""
    errors, contents, sampling = found.errors, found.contents, found.sampling
    judged = contents is not None and math.isfinite(contents.junk)
    return {
        "verdict": found.verdict,
        "n_images": found.n_images,
        "resolution_angstrom": found.resolution if math.isfinite(found.resolution) else None,
        "gain_nats": found.gain,
        "pose_error_degrees": errors and errors.rotation,
        "pose_error_interval": errors and errors.rotation_interval,
        "shift_error_angstrom": errors and errors.shift,
        "shift_error_interval": errors and errors.shift_interval,
        "contrast_spread": contents.contrast_spread if contents and judged else None,
        "junk_share": contents.junk if contents and judged else None,
        "junk_interval": contents.junk_interval if contents and judged else None,
        "evenness": sampling.evenness,
        "unmeasured_share": sampling.unmeasured,
        "unmeasured_cone_degrees": sampling.cone,
        "point_group": sampling.group,
        "findings": [vars(finding) | {"is_problem": finding.is_problem} for finding in found.findings],
    }


def _judged(path: Path, particles: Particles, drawn: bool) -> list[Section]:
    """Return what a trained model finds among some of the particles: junk, and class averages of its states."""
    import numpy as np

    from cryotwin_nb.evaluation import class_averages, outlier_scores
    from cryotwin_nb.models.cryotwin import CryoTwin
    from cryotwin_nb.pathways.states import assign

    with extras_explained():
        from cryotwin_nb.plotting import class_averages as draw
        from cryotwin_nb.plotting.looks import Section
    model = CryoTwin.load(path)
    some = particles[np.linspace(0, len(particles) - 1, min(len(particles), _MOST)).astype(int)]
    scores = outlier_scores(model, some, progress=True)
    states = list(scores.states)[:_STATES]
    lines = scores.describe()
    if not drawn or not states:
        return [Section("Junk, by the model", lines, None)]
    own = assign(model.prior, scores.states, model.embed(some, progress=True))
    shown = np.flatnonzero((own >= 0) & (own < len(states)))
    averages = class_averages(some[shown], own[shown], imaging=model.imaging, progress=True)
    titles = [states[number].title for number in np.unique(own[shown])]
    return [
        Section("Junk, by the model", lines, None),
        Section("Class averages of the states", [], draw(averages, titles)),
    ]


def _write(folder: Path, found: FirstLook, text: str, sections: Sequence[Section], title: str, flip_hand: bool) -> None:
    """Write the page, its text, the picture, the map and the half maps; the files change together."""
    from cryotwin_nb.plotting import first_look, first_look_page

    maps = {"map": found.map, "half1": found.half_maps[0], "half2": found.half_maps[1]}
    shown = replace(found, map=mirrored(found.map)) if flip_hand else found
    with file_set(folder):
        for name, volume in maps.items():
            write_map(folder / f"{name}.mrc", volume.numpy(), found.voxel_size, flip_hand=flip_hand)
        with atomic(folder / "look.png") as partial:
            first_look(shown).savefig(partial, dpi=120, bbox_inches="tight")
        first_look_page(shown, title, sections).save(folder / "look.html")
        with atomic(folder / "look.txt") as partial:
            partial.write_text(text + "\n", encoding="utf-8")


def _list_stacks(options: argparse.Namespace) -> int:
    """Print where each stack was found, without reading images; return 1 if one is missing."""
    files = read_particles(options, images=False).files
    lines = [f"{name} -> {'not found' if path is None else path}" for name, path in files.items()]
    print_result(options, {name: None if path is None else str(path) for name, path in files.items()}, "\n".join(lines))
    return PROBLEMS if None in files.values() else DONE


def _looking() -> list[Option]:
    from cryotwin_nb.preparation import first_look

    return options_of(first_look, skip=("particles", "progress"))
