"""Least-squares maps from images: the normal equations of every voxel of a Fourier lattice, summed over slices.

The same equations serve the M-step of `eigenvolumes`, where several maps share the images, and `reconstruct`, where
each image has a weight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import shell_mean
from cryotwin_nb.imaging.lattice import half_ball
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.runtime import distributed

_CLEAR = 3.0  # standard errors of a shell's power from which it is its own estimate
_POOLED = 4  # a shell without is pooled with others within this part of its radius
_INSERTING = 1.25  # padding factor for insertion; it can be small: artefacts of a coarse lattice fall outside the mask
MARGIN = 1.0  # grid units beyond Nyquist up to which slices are used: the last shell extends half a unit beyond Nyquist


class Agreement(NamedTuple):
    """Agreement between images and a map, per shell.

    Predicting the images X as A M reduces their misfit |X|^2 by 2 `cross` - `power`. The reduction is largest if the
    map M is scaled by `cross` / `power`.

    Attributes
    ----------
    cross : (n_shells,) float64
        Re sum <A M, X>, counting each pair of conjugate coefficients once.
    power : (n_shells,) float64
        sum |A M|^2. The variance of `cross` is half of `power` if M is independent of the noise in these images.
    """

    cross: Tensor
    power: Tensor


class NormalEquations:
    """Right-hand sides and matrices of every voxel, summed over the images.

    Parameters
    ----------
    imaging : ImageFormation
        Image formation of the data set.
    radius : float
        Coefficients with |k| < radius (grid units) are used.
    n_maps : int
        Q, number of maps that share the images.
    padding : float
        Padding factor of the lattice relative to the maps.
    """

    def __init__(self, imaging: ImageFormation, radius: float, n_maps: int, padding: float = _INSERTING) -> None:
        self.imaging, self.n_maps = imaging, n_maps
        self.ball = half_ball(imaging.plane.box_size, radius, padding)
        self.n_frequencies = int((imaging.frequencies.norm(dim=1) < radius).sum())
        columns = 2 * n_maps + n_maps * (n_maps + 1) // 2
        self.sums = torch.zeros(len(self.ball), columns, device=imaging.window.device)
        self.count = 0
        self._closed = False

    def add(self, batch: ImageBatch, residuals: Tensor, second: Tensor) -> None:
        """Add images, given E[(X - A c~) c~] (m, 2P, Q) and E[c~ c~^T] (m, Q, Q)."""
        n, (row, column) = self.n_frequencies, torch.tril_indices(self.n_maps, self.n_maps)
        transfer, multiplicity = batch.transfer[:, :n], self.imaging.multiplicity[:n]
        values = residuals.view(len(residuals), n, -1) * (transfer * multiplicity.sqrt() / 2)[..., None]
        powers = transfer.square() * multiplicity / 2  # counts each pair of conjugates once
        frequencies = self.imaging.frequencies[:n]
        self.ball.insert(self.sums, frequencies, batch.rotations, values, powers, second[:, row, column])
        self.count += len(second)

    def add_images(self, batch: ImageBatch, weights: Tensor) -> None:
        """Add images with weights (m,), for a single map that starts at zero."""
        root = self.imaging.multiplicity[: self.n_frequencies].sqrt()
        data = torch.view_as_real(batch.data[:, : self.n_frequencies] * root * weights[:, None]).flatten(1)
        self.add(batch, data[..., None], weights[:, None, None])

    def join(self) -> None:
        """Sum the equations over all processes."""
        distributed.all_sum(self.sums)
        self.count = round(distributed.total(self.count))

    def merge(self, other: NormalEquations) -> None:
        """Add the sums and image count of `other`, which must not be used afterwards."""
        for equations in (self, other):
            equations.close()
        self.sums += other.sums
        self.count += other.count

    def close(self) -> None:
        """Combine the two halves of the plane x = 0; no images can be added afterwards."""
        if not self._closed:
            self.ball.close(self.sums, self.n_maps)
            self._closed = True

    def oversampling(self, mask: Tensor) -> float:
        """Return the number of lattice voxels per independent coefficient of a map confined to `mask` (D, D, D)."""
        return self.ball.scale**3 * mask.numel() / float(mask.square().sum())

    def solve(self, maps: Tensor | None, power: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return new maps (Q, D, D, D) and the mean posterior covariance (n_shells, Q, Q) of their coefficients.

        Parameters
        ----------
        maps : (Q, D, D, D), optional
            Maps from which the residuals were computed; zero by default. If given, the sums are modified, so
            `solve` can be called only once.
        power : (n_shells, Q)
            Variances of the zero-mean priors.
        mask : (D, D, D)
            Soft support of the maps.

        Notes
        -----
        This is one Newton step with the diagonal blocks of the Hessian. The residuals are exact, and iterations
        converge when they are orthogonal to the slices, so a coarse lattice affects only the rate of convergence.

        A map confined to a mask has fewer independent Fourier coefficients than the padded lattice has voxels, by the
        factor `oversampling`. The prior precision per voxel is smaller by this factor, and so is the posterior variance
        once the mask has averaged neighbouring voxels.
        """
        ball, oversampling = self.ball, self.oversampling(mask)
        self.close()
        precision = 1 / (oversampling * power)
        present: Tensor | float = 0.0
        if maps is not None:
            present = ball.from_volumes(maps * ball.gridding.to(maps) ** 2)  # as local averages
            pull = precision[ball.shell.to(precision.device)].float()
            self.sums[:, : 2 * self.n_maps] -= pull.repeat(1, 2) * present
        change, covariance = ball.solve(self.sums, precision)
        solution = present + change
        solution[ball.positions.float().norm(dim=1).to(solution.device) > (ball.radius - MARGIN / 2) * ball.scale] = 0
        return ball.to_volumes(solution) * mask, covariance / oversampling

    def agreement(self, volume: Tensor) -> Agreement:
        """Return the agreement of a map (D, D, D) with the images in these equations, which must have a single map."""
        self.close()
        gridding = self.ball.gridding.to(volume)
        lattice = self.ball.from_volumes(torch.stack([volume, volume * gridding]))  # one for slicing, one unmodified
        shell = self.ball.shell.to(lattice.device)
        once = torch.where(self.ball.positions[:, 0] == 0, 0.5, 1.0).to(lattice)  # plane x = 0 is stored in full
        cross = (lattice[:, ::2] * self.sums[:, :2]).sum(1)
        parts = (cross * once, lattice[:, 1::2].square().sum(1) * self.sums[:, 2] * once)
        total = torch.zeros(len(self.imaging.ctf_power), dtype=torch.float64, device=lattice.device)
        return Agreement(*(total.index_add(0, shell, part.double()) for part in parts))

    def misfit(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transform of a map (D, D, D), as local averages, and its misfit A^T (X - A M), both (V, 2)."""
        self.close()
        present = self.ball.from_volumes(volume[None] * self.ball.gridding.to(volume) ** 2)
        return present, self.sums[:, :2] - present * self.sums[:, 2:]

    def local_agreement(self, volume: Tensor, mask: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Return the share of a map (D, D, D) supported by the images around each voxel, and its standard error.

        The map M and the misfit A^T (X - A M) are filtered such that the noise of the misfit is white, then compared
        locally: the share is 1 + <g M, misfit> / <g M, M> where g is a Gaussian window of `width` voxels. It is NaN
        where the window holds less than 2 % of the maximum power.
        """
        from scipy.ndimage import gaussian_filter  # slow to import, not needed to load a model

        present, misfit = self.misfit(volume)
        ball, shells = self.ball, len(self.imaging.ctf_power)
        shell = ball.shell.to(self.sums.device)
        root = shell_mean(self.sums[:, 2], shell, shells)[shell].clamp_min(1e-30).sqrt().float()[:, None]
        parts = torch.stack([present * root, misfit / root], dim=2).flatten(1)  # real parts, then imaginary parts
        seen, missing = (ball.to_volumes(parts) * mask).cpu().numpy()
        change, scale = (gaussian_filter(seen * part, width, mode="constant") for part in (missing, seen))
        # The squared window is a narrower Gaussian; sums over voxels are 2 / scale^3 times sums over the lattice.
        narrow = gaussian_filter(seen**2, width / 2**0.5, mode="constant") / (4 * np.pi * width**2) ** 1.5
        judged = scale > 0.02 * scale.max()
        support, error = np.full((2, *scale.shape), np.nan, dtype=np.float32)
        support[judged] = 1 + change[judged] / scale[judged]
        error[judged] = (narrow[judged] / ball.scale**3) ** 0.5 / scale[judged]
        return torch.as_tensor(support), torch.as_tensor(error)


class SignalPower:
    """Power of the density in each shell: power of the images minus power of the noise, divided by the mean CTF^2."""

    def __init__(self, imaging: ImageFormation) -> None:
        self.imaging = imaging
        self.signal = torch.zeros_like(imaging.ctf_power)
        self.seen = torch.zeros_like(self.signal)
        self.count = 0

    def add(self, batch: ImageBatch) -> None:
        """Add images."""
        shell, shells = self.imaging.shell, len(self.signal)
        self.signal += shell_mean((batch.data.abs().square() - 1).sum(0), shell, shells)
        self.seen += shell_mean(batch.transfer.square().sum(0), shell, shells)
        self.count += len(batch.data)

    def join(self) -> None:
        """Sum the statistics over all processes."""
        distributed.all_sum(self.signal, self.seen)

    @property
    def spectrum(self) -> Tensor:
        """Expected power (n_shells,) float64 of a Fourier coefficient, for use as a prior.

        A shell whose power is not significant is pooled with its neighbours: its own estimate may well be negative, and
        a prior of no power would remove what the shell contains.
        """
        n = self._coefficients.double()
        shells = torch.arange(len(n), device=n.device)
        apart, widest = (shells[:, None] - shells).abs(), 1 + shells // _POOLED
        sums = torch.stack([n * self.signal, n * self.seen, n * self.count], dim=1)
        signal, seen, variance = sums.clone().unbind(1)
        for width in range(1, int(widest[-1]) + 1):
            wider = (signal < _CLEAR * variance.sqrt()) & (width <= widest)
            pooled = (apart[wider] <= width).to(sums) @ sums
            signal[wider], seen[wider], variance[wider] = pooled.unbind(1)
        return smooth_spectrum(torch.maximum(signal, variance.sqrt()) / n, seen / n)

    @property
    def bound(self) -> Tensor:
        """Spectrum, raised to at least its standard error, because a few images cannot show that a shell is empty."""
        return smooth_spectrum(torch.maximum(self.signal, (self.count / self._coefficients).sqrt()), self.seen)

    @property
    def _coefficients(self) -> Tensor:
        """Number of coefficients of an image in each shell."""
        return torch.bincount(self.imaging.shell, minlength=len(self.signal)).clamp_min(1)


def smooth_spectrum(signal: Tensor, seen: Tensor) -> Tensor:
    """Return the density's power (n_shells,) from sums of signal and CTF^2; constant beyond the last sampled shell."""
    if not bool((seen > 0).any()):
        remedy = "Check defocus, spherical aberration, amplitude contrast and phase shift."
        raise InputError("CTF", "0 at all frequencies", "a CTF that transfers contrast", remedy)
    power = signal.clamp_min(1e-4 * signal[1:].max() * seen / seen.max()) / seen
    last = int(seen.nonzero().max()) - 2  # shells beyond are only partly sampled
    power[last + 1 :] = power[last]
    return power
