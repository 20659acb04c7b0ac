"""Rate and distortion of a batch of images (Eq. 3), and the arithmetic to compute them in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.runtime import distributed


def objective(
    model: CryoTwin, batch: Any, n: int | None, generator: torch.Generator, size: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The two terms of Eq. 3 for each image, distortion (m,) and rate -log Q (m,), and the latents (m, d) decoded.

    Those are z + noise, the noise uniform in [-T/2, T/2]^d; the first n coefficients are compared. The moving moments
    of the prior take in the batch.

    With `size`, `batch` is this process's share of a batch of that many images. The rate is then (size,): through the
    mixture it depends on all the latents. Each process differentiates it with respect to its own, so the sum of the
    processes' gradients is that of the whole batch.
    """
    width = model.noise_width
    z, w = model.encode(batch)
    whole_z, whole_w = z, w
    noise = torch.rand((size or len(z), z.shape[1]), generator=generator) - 0.5
    if size is not None and distributed.world() > 1:
        mine = distributed.share(size)
        count = mine.stop - mine.start
        batch, noise = batch.take(torch.arange(count, device=z.device)), noise[mine]
        z, w = z[:count], w[:count]
        whole_z, whole_w = distributed.gather(z, size), distributed.gather(w, size)
    rate = -model.moments.update(whole_z, whole_w).log_window_mass(whole_z, width)
    noisy = z + noise.to(z.device) * width
    return model.networks.distortion(batch, noisy, n), rate, noisy


def has_bfloat16(device: str) -> bool:
    """True where products of bfloat16 matrices run on units made for them."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not in every version of PyTorch
    return device == "cpu" and any(getattr(torch.cpu, name, bool)() for name in units)
