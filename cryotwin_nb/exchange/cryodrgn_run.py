"""Analysis of a finished cryoDRGN run: read latents, find a pathway, and decode its maps with cryoDRGN.

    run = ct.read_cryodrgn("run_folder")
    prior = ct.GaussianMixture.fit(run.latents, 60)
    path = ct.ridgeline_chain(prior, start, end)
    print(run.decode_command(path.latents, "pathway", voxel_size))  # run this command where cryoDRGN is installed
    maps, _ = run.read_maps("pathway")

cryoDRGN is a separate program: it is not imported, and its pickle files are read without executing them.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.cryodrgn import read_indices, read_latents, write_latents_table
from cryotwin_nb.formats.files import is_file, make_folder, require_file
from cryotwin_nb.formats.mrc import read_map
from cryotwin_nb.formats.plain_yaml import read_yaml


@dataclass(frozen=True)
class CryodrgnRun:
    """Contents of a run folder of `cryodrgn train_vae`.

    Attributes
    ----------
    folder : Path
        Run folder.
    epoch : int or None
        Epoch of the latents and weights; None for the last one, which cryoDRGN 4 stores without a number.
    latents : (n, d) float32
        Posterior means.
    log_variances : (n, d) float32 or None
        Log variances of the posteriors.
    indices : (n,) int64
        Index in the stack, from 0, of the particle that each latent belongs to.
    box_size : int
        Box size D of the training images, pixels.
    """

    folder: Path
    epoch: int | None
    latents: Tensor
    log_variances: Tensor | None
    indices: np.ndarray
    box_size: int

    def decode_command(
        self, z: Tensor | np.ndarray, output: str | os.PathLike, voxel_size: float, program: str = "cryodrgn"
    ) -> str:
        """Write latents to output/z.txt and return the shell command that decodes them into `output`.

        Parameters
        ----------
        z : (m, d)
            Latents to decode, such as the points of a pathway.
        output : path-like
            Folder for z.txt and the maps.
        voxel_size : float
            Voxel size written to the maps, Å.
        program : str
            Command that starts cryoDRGN.

        Raises
        ------
        InputError
            If `z` is empty or has a different dimension, the weights of this epoch are missing, or the output folder
            already contains maps, which could be mistaken for new ones.
        """
        z = torch.as_tensor(z).detach().cpu().numpy()
        if z.ndim != 2 or z.shape[1] != self.latents.shape[1] or len(z) == 0:
            expected = f"(m, {self.latents.shape[1]}) with m at least 1"
            raise InputError(
                "decode_command", f"latents of shape {z.shape}", expected, "Pass z[None] for a single map."
            )
        name = "weights.pkl" if self.epoch is None else f"weights.{self.epoch}.pkl"
        weights = require_file(self.folder / name, "weights file of this epoch")
        config, folder = require_file(self.folder / "config.yaml"), make_folder(output)
        if any(folder.glob("vol_*.mrc")):
            remedy = "Choose another folder, or delete the maps."
            sentence = f"{folder} already holds maps (vol_*.mrc)."
            raise InputError(folder, "maps (vol_*.mrc)", "a folder without maps", remedy, sentence)
        table = folder / "z.txt"
        write_latents_table(table, z)
        command = [program, "eval_vol", weights, "--config", config, "--zfile", table]
        return shlex.join(map(str, [*command, "-o", folder, "--Apix", f"{voxel_size:.6g}"]))

    def read_maps(self, folder: str | os.PathLike) -> tuple[Tensor, float]:
        """Return the maps (m, D, D, D) written by `eval_vol`, in the order of the latents, and their voxel size (Å).

        Parameters
        ----------
        folder : path-like
            Output folder given to `decode_command`.

        Raises
        ------
        InputError
            If the number of maps differs from the number of latents in the folder's z.txt.
        """
        files = sorted(Path(folder).glob("vol_[0-9]*.mrc"), key=lambda f: int(re.findall(r"\d+", f.stem)[-1]))
        table = require_file(Path(folder) / "z.txt")
        wanted = sum(1 for line in table.read_bytes().splitlines() if line.strip())
        if len(files) != wanted:
            remedy = "Run the command from `decode_command` to completion, with an empty output folder."
            raise InputError(folder, f"{len(files)} maps (vol_*.mrc)", f"{wanted}, one for each latent", remedy)
        maps = [read_map(file) for file in files]
        return torch.stack([torch.as_tensor(volume) for volume, _ in maps]), float(maps[0][1])


def read_cryodrgn(folder: str | os.PathLike, epoch: int | None = None) -> CryodrgnRun:
    """Read a run folder of `cryodrgn train_vae`: z.N.pkl or z.pkl, config.yaml and the particle selection.

    Parameters
    ----------
    folder : path
        Run folder, given to cryoDRGN as -o.
    epoch : int, optional
        Epoch to read; by default, the last one with latents.

    Raises
    ------
    InputError
        If there are no latents, the configuration cannot be read, or the selection does not match the latents.
    """
    folder = Path(folder)
    found: dict[int | None, Path] = {
        int(match[1]): f for f in folder.glob("z.*.pkl") if (match := re.fullmatch(r"z\.(\d+)\.pkl", f.name))
    }
    numbered = sorted(number for number in found if number is not None)
    if is_file(folder / "z.pkl"):
        found[None] = folder / "z.pkl"  # the last epoch
    elif epoch is None and numbered:
        epoch = numbered[-1]
    if epoch not in found:
        what = f"latents of the epochs {numbered}" if found else "no latents"
        expected = "z.N.pkl or z.pkl" if epoch is None else f"z.{epoch}.pkl"
        raise InputError(folder, what, expected, "Pass the output folder (-o) of cryodrgn train_vae.")
    mean, log_variance = read_latents(found[epoch])
    config = _read_config(folder / "config.yaml")
    selection = config["dataset_args"].get("ind")
    indices = np.arange(len(mean)) if selection is None else _read_selection(folder, selection, len(mean))
    variances = None if log_variance is None else torch.as_tensor(log_variance)
    size = int(config["lattice_args"]["D"]) - 1  # cryoDRGN's lattice has one more point than the box, for symmetry
    return CryodrgnRun(folder, epoch, torch.as_tensor(mean), variances, indices, size)


def _read_config(path: Path) -> dict:
    if not path.exists() and path.with_suffix(".pkl").exists():
        remedy = "Train again with a later version of cryoDRGN, which writes config.yaml."
        sentence = f"{path} is missing, and config.pkl, from an old version of cryoDRGN, is not supported."
        raise InputError(path, "config.pkl, from an old version", "config.yaml", remedy, sentence)
    require_file(path, "configuration of a cryoDRGN run")
    config = read_yaml(path, "Pass the folder as cryoDRGN wrote it.")
    parts = config if isinstance(config, dict) else {}
    lattice, dataset = parts.get("lattice_args"), parts.get("dataset_args")
    known = isinstance(lattice, dict) and type(lattice.get("D")) is int and isinstance(dataset, dict)
    if not known or not isinstance(parts["dataset_args"].get("ind"), (str, int, type(None))):
        expected, remedy = "dataset_args, and lattice_args with D", "Pass the folder as cryoDRGN wrote it."
        sentence = f"{path} is not the configuration of a cryoDRGN run: it must contain {expected}."
        raise InputError(path, "another configuration", expected, remedy, sentence)
    return parts


def _read_selection(folder: Path, name: str | int, n: int) -> np.ndarray:
    """Return the indices (n,) of the selected particles: the first n, or those listed in a file.

    The path of the file is relative to the folder in which cryoDRGN was started. A copy in the run folder (cryoDRGN 4
    writes ind.pkl there) takes precedence, because a file of that name in the working folder can belong to another run.
    """
    if isinstance(name, int):
        return np.arange(n)
    candidates = [folder / Path(name).name, folder / name, Path(name)]
    path = next((c for c in candidates if is_file(c)), None)
    if path is None:
        found, remedy = f"no selection {name!r}", "Copy the .pkl given to --ind into the run folder."
        sentence = f"{folder / 'config.yaml'} names the selection {name!r}, which was not found."
        raise InputError(folder / "config.yaml", found, "the file given to --ind", remedy, sentence)
    indices = read_indices(path)
    indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
    if len(indices) != n:
        remedy = "Restore the selection file that the run was started with."
        raise InputError(path, f"{len(indices)} particles", f"{n}, one for each latent", remedy)
    return indices
