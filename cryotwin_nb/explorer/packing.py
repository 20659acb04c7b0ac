"""Maps for the browser: one byte a voxel, on one scale, binned so that an edge has at most 128 voxels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from cryotwin_nb.errors import InputError
from cryotwin_nb.plotting.rendering import automatic_sigma

MOST_VOXELS = 128  # largest edge length that is sent to the browser
BUDGET = 100_000_000  # bytes of packed maps of stars that are kept
_LOWEST = -2.0  # standard deviations from the mean: lower densities are never contoured, so they are clipped
_ROOM = 1.15  # factor by which other maps can exceed the reference maps before they are clipped


@dataclass(frozen=True)
class Packing:
    """Scale of an explorer's maps, from reference maps: the same for all maps, so that contours can be compared.

    Attributes
    ----------
    size : int
        Edge length of the decoder's maps, voxels.
    mean, std : float
        Mean and standard deviation of the reference maps, in which contour levels are expressed.
    offset, factor : float
        Bytes are (value - offset) * factor.
    sigma : float
        Contour level that separates particle from solvent in the reference maps, standard deviations above the mean.
    """

    size: int
    mean: float
    std: float
    offset: float
    factor: float
    sigma: float

    @classmethod
    def of(cls, maps: Tensor) -> Packing:
        """Create the scale for maps like these (m, D, D, D)."""
        mean, std = float(maps.mean()), max(float(maps.std()), 1e-12)
        low, high = mean + _LOWEST * std, max(mean + _ROOM * (float(maps.max()) - mean), mean + std)
        sigma = round(automatic_sigma(maps), 1)
        return cls(maps.shape[-1], mean, std, (low + high) / 2, 254 / (high - low), sigma)

    @property
    def binning(self) -> int:
        """Number of voxels along an edge that are averaged."""
        return -(-self.size // MOST_VOXELS)

    def level(self, sigma: float | None) -> float:
        """Return a contour level in the unit of the maps; None is the automatic one."""
        return self.mean + (self.sigma if sigma is None else sigma) * self.std

    def pack(self, volume: Tensor) -> bytes:
        """Encode a map (D, D, D) as signed bytes, x fastest."""
        volume = avg_pool3d(volume[None].float(), self.binning, ceil_mode=True)[0] if self.binning > 1 else volume
        return ((volume - self.offset) * self.factor).round().clamp(-127, 127).to(torch.int8).numpy().tobytes()

    def described(self, voxel_size: float | None) -> dict[str, Any]:
        """Return what the browser needs to draw the maps; the voxel size is None if it is not known."""
        edge = -(-self.size // self.binning)
        return {
            "size": edge,
            "full": self.size,
            "voxel": None if voxel_size is None else voxel_size * self.binning,
            "offset": self.offset,
            "factor": self.factor,
            "mean": self.mean,
            "std": self.std,
            "sigma": self.sigma,
        }


def decoded(decode: Callable[[Tensor], Any], z: Tensor, size: int | None = None) -> Tensor:
    """Decode latents (m, d) to maps (m, D, D, D) float32 on the CPU.

    Raises
    ------
    InputError
        If the decoder returns something else than finite maps, of edge length `size` if given.
    """
    maps = torch.as_tensor(decode(z)).detach().float().cpu()
    if maps.ndim != 4 or len(maps) != len(z) or len(set(maps.shape[1:])) != 1:
        found, expected = f"shape {tuple(maps.shape)}", f"({len(z)}, D, D, D), one map for each latent"
        raise InputError("decode", found, expected, "Pass model.volumes.")
    if size is not None and maps.shape[-1] != size:
        found = f"maps of {maps.shape[-1]} voxels"
        raise InputError("decode", found, f"maps of {size} voxels, as before", "Pass a decoder with one box size.")
    if not bool(torch.isfinite(maps).all()):
        raise InputError("decode", "maps with NaN or infinite values", "finite maps", "Check the model.")
    return maps


class Stars:
    """Packed maps at the means of the components, decoded on demand; the least recently used ones are dropped.

    Parameters
    ----------
    decode : callable
        Decoder from latents (m, d) to maps (m, D, D, D).
    means : (C, d) float32
        Means of the components.
    reference : sequence of int
        Components whose maps set the scale.
    """

    def __init__(self, decode: Callable[[Tensor], Any], means: Tensor, reference: list[int]) -> None:
        self.decode, self.means, self._reference = decode, means, reference
        self._packing: Packing | None = None
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def packing(self) -> Packing:
        """Scale of all maps; decodes the reference maps the first time."""
        with self._lock:
            if self._packing is None:
                maps = decoded(self.decode, self.means[self._reference])
                self._packing = Packing.of(maps)
                for component, volume in zip(self._reference, maps):
                    self._keep(component, self._packing.pack(volume))
            return self._packing

    def of(self, component: int) -> bytes:
        """Return the packed map of a component."""
        packing = self.packing
        with self._lock:
            if component not in self._kept:
                self._keep(component, packing.pack(decoded(self.decode, self.means[[component]], packing.size)[0]))
            self._kept.move_to_end(component)
            return self._kept[component]

    def _keep(self, component: int, packed: bytes) -> None:
        self._kept[component] = packed
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > BUDGET:
            self._kept.popitem(last=False)
