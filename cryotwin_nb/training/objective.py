"""Terms of the loss of a batch of images (rate and distortion: Eq. 3 of the cryoTWIN paper), and bfloat16 support."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from cryotwin_nb.imaging.optics import slice_coordinates
from cryotwin_nb.models.coordinate import CoordinateNetworks
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.particles.formation import ImageBatch
from cryotwin_nb.runtime import distributed

_EACH = 8  # simulated images of a pose


def objective(
    model: CryoTwin,
    batch: Any,
    n: int | None,
    generator: torch.Generator,
    size: int | None = None,
    share: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return distortion (m,), rate (m,), latents and decoded latents (m, d), and prior of the maps (m,) of a batch.

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
    return distortion, rate, z, noisy, prior


def simulated_error(
    networks: CoordinateNetworks, batch: ImageBatch, z: Tensor, n: int, size: int, generator: torch.Generator
) -> Tensor:
    """Return the squared error (m,) of the latents encoded from images that are simulated with the decoder.

    This is the sleep phase of the wake-sleep algorithm (Hinton et al. 1995, Science 268:1158). Structures of other
    images of the batch are imaged at the poses and with the CTFs of every second image, eight at each, with white
    noise. The encoder thus learns from more noise than the images have; no gradient reaches the decoder. The sum over
    the m images is scaled to one structure an image.

    The error is that of the affine function of the encoded latents that predicts the structures best, so only the
    information in the latents counts: their scale is left to rate and distortion, on which the isometry depends.

    Parameters
    ----------
    networks : CoordinateNetworks
        Networks that are not `plain`.
    batch : ImageBatch
        This process's images.
    z : (m, d)
        Their latents.
    n : int
        Number of coefficients at which structures deviate from the average map.
    size : int
        Number of images in the whole batch.
    generator : torch.Generator
        Source of structures and noise.
    """
    imaging, mine = networks.imaging, distributed.share(size)
    latents = distributed.gather(z.detach(), size) if distributed.world() > 1 else z.detach()
    half = torch.arange(mine.start + mine.start % 2, mine.stop, 2)
    structures = torch.randint(size, (size, _EACH), generator=generator)[half].to(z.device)
    noise = torch.randn(size, _EACH, len(imaging.frequencies), 2, generator=generator)[half].to(z.device) / 2**0.5
    target, found = latents[structures], z.new_zeros(0, z.shape[1])
    if len(half):
        poses = batch.take((half - mine.start).to(z.device))
        with torch.no_grad():
            data = networks.average.slices(imaging.frequencies, poses.rotations)[:, None].repeat(1, _EACH, 1)
            data[..., :n] += networks.deviations(slice_coordinates(imaging.frequencies[:n], poses.rotations), target)
            data = data * poses.transfer[:, None] + torch.view_as_complex(noise)
        each = torch.arange(len(half), device=z.device).repeat_interleave(_EACH)
        found, _ = networks.encode(poses.take(each)._replace(data=data.flatten(0, 1)))
    with_one = pad(found, (0, 1), value=1.0)
    known, wanted = with_one.detach().double(), target.flatten(0, 1).double()
    squares, products = known.T @ known, known.T @ wanted
    distributed.all_sum(squares, products)
    ridge = 1e-6 * squares.diagonal().mean() * torch.eye(len(squares), dtype=squares.dtype, device=z.device)
    predicted = with_one @ torch.linalg.solve(squares + ridge, products).to(with_one)
    return (predicted - wanted.to(with_one)).square().sum(1) * (2 / _EACH)


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
