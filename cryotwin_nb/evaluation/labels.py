"""Names of mixture components, assigned by hand or from a ground truth, and stored in a .json file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic, require_file, require_suffix
from cryotwin_nb.mixture.gaussian import GaussianMixture

if TYPE_CHECKING:
    from cryotwin_nb.pathways.states import State

Names = Mapping[int, str]


def label_components(prior: GaussianMixture, z: Tensor, labels: np.ndarray, least: float = 0.5) -> dict[int, str]:
    """Name each component after the most frequent label of its latents, and return the names by component.

    Parameters
    ----------
    prior : GaussianMixture
        Mixture whose components are named.
    z : (n, d)
        Latents.
    labels : (n,) str
        Label of each latent: the ground truth, or classes from an earlier analysis.
    least : float
        Minimum share of the label among the latents of a component; components below it are left unnamed.
    """
    labels = _checked(prior, z, labels)
    known, number = np.unique(labels, return_inverse=True)
    shares = torch.zeros(prior.n_components, len(known), dtype=torch.float64)
    shares.index_add_(1, torch.as_tensor(number), prior.responsibilities(torch.as_tensor(z)).double().cpu().T)
    shares /= shares.sum(1, keepdim=True).clamp_min(1e-12)
    return {c: str(known[int(row.argmax())]) for c, row in enumerate(shares) if row.max() >= least}


def components_of_labels(prior: GaussianMixture, names: Names) -> dict[str, int]:
    """Return, for each name, the component with the largest weight.

    Parameters
    ----------
    prior : GaussianMixture
        Mixture whose components are named.
    names : mapping of int to str
        Name of each named component.
    """
    _require_components(prior, names, "names")
    heaviest = sorted(names, key=lambda c: float(prior.weights[c]))
    # of each name, the dict keeps the last component: the one with the largest weight
    return dict(sorted({names[c]: c for c in heaviest}.items()))


def confusion(
    prior: GaussianMixture, z: Tensor, names: Names | Sequence[State], labels: np.ndarray
) -> tuple[np.ndarray, list, list]:
    """Count particles by their label and by the name of their most probable component, or by their state.

    Parameters
    ----------
    prior : GaussianMixture
        Mixture whose components are named.
    z : (n, d)
        Latents.
    names : mapping of int to str, or sequence of State
        Name of each named component; or states, as found by `find_states`.
    labels : (n,) str or int
        Label of each latent, such as the class of a 3-D classification: ``particles.columns["rlnClassNumber"]``.

    Returns
    -------
    counts : (labels, names) int64
        Numbers of particles; the last column counts particles whose component has no name, if any.
    rows, columns : list of str
        Labels and names.
    """
    labels = _checked(prior, z, labels)
    if isinstance(names, Mapping):
        component = prior.responsibilities(torch.as_tensor(z)).argmax(1).tolist()
        given = np.array([names.get(c, "unnamed") for c in component])
    else:
        from cryotwin_nb.pathways.states import assign  # imports SciPy, which the explorer opens without

        given = np.array([state.name for state in names])[assign(prior, list(names), torch.as_tensor(z))]
    rows = sorted(set(labels.tolist()), key=_natural)
    columns = sorted(set(given.tolist()), key=lambda name: (name == "unnamed", *_natural(name)))
    counts = np.array([[np.sum((labels == row) & (given == column)) for column in columns] for row in rows])
    return counts, rows, columns


def write_labels(path: str | os.PathLike, names: Names) -> None:
    """Write the names of components to a .json file, completely or not at all.

    Parameters
    ----------
    path : path-like
        The .json file.
    names : mapping of int to str
        Name of each named component.

    Raises
    ------
    InputError
        If the file has another suffix or cannot be written.
    """
    path = require_suffix(path, ".json")
    if not all(isinstance(name, str) for name in names.values()):
        raise InputError(path, f"the names {list(names.values())!r:.60}", "strings", "Pass a text for each component.")
    with atomic(path) as partial:
        partial.write_text(json.dumps({str(c): name for c, name in sorted(names.items())}, indent=1) + "\n")


def read_labels(path: str | os.PathLike, prior: GaussianMixture | None = None) -> dict[int, str]:
    """Read a file written by `write_labels`.

    Parameters
    ----------
    path : path-like
        File to read.
    prior : GaussianMixture, optional
        Mixture that the names belong to; names of components that the mixture lacks are refused.

    Raises
    ------
    InputError
        If the file is missing, or is not a table of component indices and names.
    """
    path = require_file(path, "labels file (.json)")
    try:
        names = {int(c): str(name) for c, name in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        expected, remedy = 'a table of names such as {"7": "B"}', "Pass a file written by write_labels."
        sentence = f"{path} cannot be read as {expected}: {error}."
        raise InputError(path, f"no table of names ({error})", expected, remedy, sentence) from error
    if prior is not None:
        _require_components(prior, names, path)
    return names


def _require_components(prior: GaussianMixture, names: Names, where: object) -> None:
    unknown = sorted(c for c in names if not 0 <= c < prior.n_components)
    if unknown:
        expected = f"components from 0 to {prior.n_components - 1}"
        raise InputError(where, f"names of components {unknown}", expected, "Pass names written for this mixture.")


def _natural(name: str) -> tuple[str, int, str]:
    """Return a key that sorts S2 before S10, and 2 before 10."""
    word, number = re.fullmatch(r"(.*?)(\d{0,15})", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return word, int(number or 0), name


def _checked(prior: GaussianMixture, z: Tensor, labels: np.ndarray) -> np.ndarray:
    import pandas as pd

    values = np.asarray(labels)
    if values.shape != (len(z),):
        found = f"labels of shape {values.shape} for {len(z)} latents"
        raise InputError("labels", found, "one label per latent", "Pass latents and labels of the same particles.")
    missing = pd.isna(values)
    if missing.any():
        remedy = "Leave these particles out, or give them a label such as 'unknown'."
        raise InputError("labels", f"{missing.sum()} missing labels", "a label for each latent", remedy)
    return values.astype(str)
