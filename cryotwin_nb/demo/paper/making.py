"""All figures of the paper by one call: what is missing is drawn, each as SVG and PNG, with one file of captions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cryotwin_nb.demo.paper.latent_space as latent_space
import cryotwin_nb.demo.paper.paths as paths
import cryotwin_nb.demo.paper.structures as structures
from cryotwin_nb import data
from cryotwin_nb.demo.paper.published import NAME, Plan, Published
from cryotwin_nb.demo.paper.sources import SUBSPACE, Sources, gather, recipe
from cryotwin_nb.demo.paper.training import obtain
from cryotwin_nb.errors import InputError, choice
from cryotwin_nb.formats.files import atomic, make_folder, require_writable
from cryotwin_nb.models.cryotwin import CryoTwin

Drawing = Callable[[Sources, latent_space.TsneMaps], "tuple | None"]

FIGURES: dict[str, Drawing] = {
    "1": latent_space.training_step,
    "2a": latent_space.latents_and_means,
    "2b": latent_space.latents_and_samples,
    "2c": structures.structures,
    "2d": structures.label_fsc,
    "3": paths.short_paths,
    "4": latent_space.isometry,
    "5": latent_space.fixed_prior,
    "6": paths.joined_paths,
}
"""Functions that draw the paper's figures and return them with their captions, by number."""
_DPI = 200
_RECORD = "figures.json"


def make_figures(
    output: str | Path,
    dataset: str = "assembly-small",
    only: Sequence[str] = (),
    models: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    empiar_10076: str | Path | None = None,
    box_size: int = 128,
    dry_run: bool = False,
) -> list[Path]:
    """Draw the figures of the cryoTWIN paper and return their files.

    Parameters
    ----------
    output : path
        Folder for `fig<number>.svg` and `.png` (200 dpi), captions.md and figures.json, and for models trained here.
    dataset : str
        Data set of data_manifest.yaml.
    only : sequence of str
        Numbers of the figures to draw; all by default.
    models : path, optional
        Folder with stored models and results of cryoDRGN; by default that of the notebooks beside the package, if
        there is one. Missing models are trained first.
    seed : int
        Seed of models that are trained here, of t-SNE maps and of paths.
    overwrite : bool
        Draw figures again that are there already. By default, only those are drawn that are missing, or that were
        drawn from other models.
    empiar_10076 : path, optional
        Folder with the files of EMPIAR-10076 as in cryoDRGN's tutorial (stack, poses.pkl, ctf.pkl, filtered.ind.pkl;
        optionally published_labels.txt and a cryoDRGN run), to draw the figures from the paper's own images.
    box_size : int
        Box size to which these images are cropped, pixels (paper: 128).
    dry_run : bool
        For these images, only state space, memory, time on this machine and what is missing.

    Returns
    -------
    list of Path
        The SVG files.

    Raises
    ------
    InputError
        If a number is unknown, stored results belong to other particles, the folder is not writable, or the disk or
        the memory is too small for EMPIAR-10076.

    Notes
    -----
    The columns are the coordinate networks (the paper's architecture), cryoDRGN from its stored run, and the subspace
    architecture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from cryotwin_nb.plotting.style import STYLE

    wanted = [choice("figure", number, list(FIGURES)) for number in only] or list(FIGURES)
    if dry_run and empiar_10076 is None:
        remedy = "Pass the folder of EMPIAR-10076, or draw the figures: with stored models this takes minutes."
        raise InputError("dry_run", "no recorded images", "--empiar-10076 FOLDER", remedy)
    plan = None if empiar_10076 is None else Plan.of(Published.find(Path(empiar_10076)), Path(output), box_size)
    if plan is not None:
        print(plan, flush=True)
        if dry_run:
            return []
    output = make_folder(output)
    require_writable(output)
    stored = Path(models) if models is not None else Path(data.__file__).parents[2] / "notebooks" / "models"
    if plan is None:
        particles, labels, cryodrgn = data.fetch(dataset), None, stored / f"cryodrgn-{dataset}.npz"
        there = cryodrgn if cryodrgn.exists() else None
        print("cryoDRGN: " + (recipe(there) if there else f"no {cryodrgn.name} in {stored}; its column is left out"))
    else:
        particles, dataset, there = plan.prepared(), NAME, plan.published.cryodrgn
        labels = plan.published.labels_of(len(particles))
    sources = _in_order(obtain(particles, stored, output, dataset, seed))
    gathered = gather(particles, sources, there, labels)
    for name in sources.keys() - gathered.methods.keys():
        print(f"{name}: no variation is found in these images; its column is left out")
    if not gathered.methods:
        raise InputError(dataset, "no variation in the images", "images of several structures", "Use more images.")
    record, maps, files = _read(output / _RECORD), latent_space.TsneMaps(gathered, seed), []
    version = f"{gathered.digest} {seed}"
    for place, number in enumerate(wanted, 1):
        file = output / f"fig{number}.svg"
        known = record.get(number, {})
        if known.get("version") == version and file.exists() and not overwrite:
            print(f"Fig. {number}: already there")
            files.append(file)
            continue
        print(f"Fig. {number} ({place} of {len(wanted)})", flush=True)
        with plt.rc_context(STYLE):
            drawn = FIGURES[number](gathered, maps)
        if drawn is None:
            print(f"Fig. {number} is left out: it needs results that are not there")
            continue
        figure, caption = drawn
        with plt.rc_context({"svg.hashsalt": "cryotwin"}):
            for suffix in ("svg", "png"):
                with atomic(file.with_suffix(f".{suffix}")) as partial:
                    figure.savefig(partial, format=suffix, dpi=_DPI, bbox_inches="tight")
        plt.close(figure)
        record[number] = {"version": version, "caption": caption}
        _write(output, record, dataset)
        files.append(file)
    return files


def _in_order(models: dict[str, CryoTwin]) -> dict[str, CryoTwin]:
    """Return the models, the subspace first: others are compared with it."""
    return {SUBSPACE: models[SUBSPACE], **models}


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Return what is recorded of figures drawn before; nothing if the record is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {number: entry for number, entry in known if number in FIGURES and isinstance(entry, dict)}


def _write(folder: Path, record: dict[str, dict[str, str]], dataset: str) -> None:
    with atomic(folder / _RECORD) as partial:
        partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    lines = [f"# Figures of the cryoTWIN paper, from the data set {dataset}", ""]
    for number in FIGURES:
        if number in record:
            lines += [f"**Fig. {number}** {record[number].get('caption', '')}", ""]
    with atomic(folder / "captions.md") as partial:
        partial.write_text("\n".join(lines), encoding="utf-8")
