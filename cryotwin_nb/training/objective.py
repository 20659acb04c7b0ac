"""Rate and distortion of a batch of images (Eq. 3 of the cryoTWIN paper), and a test for bfloat16 support."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.runtime import distributed


def objective(
    model: CryoTwin,
    batch: Any,
    n: int | None,
    generator: torch.Generator,
    size: int | None = None,
    share: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return distortion (m,), rate (m,), decoded latents (m, d) and prior of the maps (m,) of a batch.

    Distortion and the rate -log Q are those of Eq. 3 of the cryoTWIN paper; the prior is that of `Networks.terms`.

    The decoded latents are z + noise, where the noise is uniform in [-T/2, T/2]^d. The moving moments of the prior are
    updated with the batch.

    Parameters
    ----------
    model : CryoTwin
        Model to evaluate.
    batch : ImageBatch or Records
        Images prepared by the architecture.
    n : int, optional
        Number of coefficients compared; all by default.
    generator : torch.Generator
        Source of the noise.
    size : int, optional
        Number of images in the whole batch, if `batch` is this process's share of it. The rate then has shape (size,),
        because it depends on all the latents through the mixture. Each process differentiates the rate with respect to
        its own latents, so the gradients of the processes add up to the gradient of the whole batch.
    share : float
        Share of the n coefficients that are decoded, drawn at random; the distortion is then an unbiased estimate.
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
    some = None if share >= 1 or n is None else drawn(n, share, generator).to(z.device)
    distortion, prior = model.networks.terms(batch, noisy, n, some)
    return distortion, rate, noisy, prior


def drawn(n: int, share: float, generator: torch.Generator) -> Tensor:
    """Return the indices, in ascending order, of a share of n coefficients, one from each of equal intervals.

    The coefficients are sorted by |k|, so every resolution is represented, and each is drawn equally often.
    """
    count = max(1, round(share * n))
    places = torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)
    return (places * (n / count)).long().clamp_max(n - 1)


def has_bfloat16(device: str) -> bool:
    """Return whether a device has dedicated units for bfloat16 matrix products.

    Parameters
    ----------
    device : str
        Device type, "cuda" or "cpu"; others return False.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not in every version of PyTorch
    return device == "cpu" and any(getattr(torch.cpu, name, bool)() for name in units)
