"""Prior during training: a Gaussian mixture computed from moving averages of mini-batch moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.components import halves
from cryotwin_nb.mixture.gaussian import GaussianMixture


class StoredMixture(nn.Module):
    """Mixture stored as module buffers: saved, loaded and moved with the module.

    Parameters
    ----------
    latent_dim : int
        Dimension d of the latent space. The initial mixture is the standard normal density.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.weights: Tensor
        self.means: Tensor
        self.covariances: Tensor
        self.register_buffer("weights", torch.ones(1, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(1, latent_dim, dtype=torch.float64))
        self.register_buffer("covariances", torch.eye(latent_dim, dtype=torch.float64)[None])

    @property
    def mixture(self) -> GaussianMixture:
        """Stored mixture, on the device of the module."""
        return GaussianMixture.unchecked(self.weights, self.means, self.covariances)

    def set(self, mixture: GaussianMixture) -> None:
        """Replace the stored mixture by `mixture`, which can have any number of components."""
        device = self.weights.device
        for name in ("weights", "means", "covariances"):
            setattr(self, name, getattr(mixture, name).detach().double().to(device))

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        for name, own in list(self.named_buffers()):
            if prefix + name in state_dict:
                setattr(self, name, own.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class MixtureMoments(nn.Module):
    """Prior during training: moving averages of the mixture's moments over mini-batches.

    Parameters
    ----------
    n_components, latent_dim : int
        Number of components C and dimension d of the latent space.
    decay : float
        Weight of the previous average at each batch, at least 0 and below 1; the average is bias-corrected as in Adam,
        so the first batch has full weight.

    Attributes
    ----------
    mass : (C,), first : (C, d), second : (C, d, d) float64 buffers
        Averages per particle of gamma, gamma z and gamma z z^T, where gamma = softmax(w).

    Notes
    -----
    This follows Sect. 3.1 of the paper and Zong et al. 2018. Gradients reach (z, w) through the current batch only.
    """

    def __init__(self, n_components: int, latent_dim: int, decay: float = 0.9) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise InputError("decay", f"{decay}", "a number in [0, 1)", "Use 0.9 to average over about ten batches.")
        self.decay = decay
        self.mass: Tensor
        self.first: Tensor
        self.second: Tensor
        self.steps: Tensor
        zeros = torch.zeros(n_components, latent_dim, latent_dim, dtype=torch.float64)
        self.register_buffer("mass", zeros[:, 0, 0].clone())
        self.register_buffer("first", zeros[:, 0].clone())
        self.register_buffer("second", zeros)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, z: Tensor, w: Tensor) -> GaussianMixture:
        """Add a batch of latents `z` (b, d) and component logits `w` (b, C); return the mixture for the rate term.

        The mixture carries gradients to `z` and `w`; the stored averages do not.
        """
        z, gamma = z.double(), w.double().softmax(-1)
        weighted = gamma.T / len(z)
        squares = (z[:, :, None] * z[:, None]).flatten(1)
        batch = (weighted.sum(-1), weighted @ z, (weighted @ squares).view_as(self.second))
        step = int(self.steps) + 1
        kept = self.decay * (1 - self.decay ** (step - 1)) / (1 - self.decay**step)
        stored = (self.mass, self.first, self.second)
        mass, first, second = (kept * old + (1 - kept) * new for old, new in zip(stored, batch, strict=True))
        self._store(mass.detach(), first.detach(), second.detach(), steps=step)
        return _mixture_of_moments(mass, first, second)

    def mixture(self) -> GaussianMixture:
        """Return the current mixture, without gradients."""
        return _mixture_of_moments(self.mass.clone(), self.first.clone(), self.second.clone())

    @torch.no_grad()
    def assign(self, mixture: GaussianMixture, steps: int | None = None) -> None:
        """Replace the averages by the moments of a mixture with at most C components; unused components get zero mass.

        `steps` is the number of batches that the averages are taken to represent; by default it does not change.
        """
        count = len(self.mass)
        if mixture.n_components > count or mixture.latent_dim != self.first.shape[1]:
            found = f"{mixture.n_components} components in {mixture.latent_dim} dimensions"
            expected = f"at most {count} in {self.first.shape[1]} dimensions"
            raise InputError("mixture", found, expected, "Create MixtureMoments with the size of this mixture.")
        mass = mixture.weights.detach().to(self.mass)
        mean = mixture.means.detach().to(self.mass)
        second = mass[:, None, None] * (mixture.covariances.detach().to(self.mass) + mean[:, :, None] * mean[:, None])
        moments = (torch.zeros_like(self.mass), torch.zeros_like(self.first), torch.zeros_like(self.second))
        for stored, given in zip(moments, (mass, mass[:, None] * mean, second), strict=True):
            stored[: len(mass)] = given
        self._store(*moments, steps=int(self.steps) if steps is None else steps)

    def starved(self, threshold: float = 0.1) -> list[int]:
        """Return the components whose weight is below `threshold` / C."""
        weights = self.mass / self.mass.sum()
        return (weights < threshold / len(weights)).nonzero().flatten().tolist()

    @torch.no_grad()
    def split(self, source: int, target: int, generator: torch.Generator | None = None) -> None:
        """Replace components `source` and `target` by two equal halves of their sum.

        The means of the halves are 0.3 to 0.7 standard deviations (drawn at random) on either side of the common mean,
        along the longest axis. The variance is reduced so that the total mass, first and second moments do not change.
        """
        pair = [source, target]
        mass, first, second = self.mass[pair].sum(), self.first[pair].sum(0), self.second[pair].sum(0)
        mean = first / mass
        fraction = 0.3 + 0.4 * torch.rand((), dtype=torch.float64, generator=generator).item()
        centres, narrower = halves(mean, second / mass - mean[:, None] * mean, fraction)
        for component, centre in zip((source, target), centres, strict=True):
            self.mass[component] = mass / 2
            self.first[component] = mass / 2 * centre
            self.second[component] = mass / 2 * (narrower + centre[:, None] * centre)

    def _store(self, mass: Tensor, first: Tensor, second: Tensor, steps: int) -> None:
        # Assign new tensors rather than update in place: the graph of the last batch still refers to the old ones.
        self.mass, self.first, self.second = mass, first, second
        self.steps = torch.full_like(self.steps, steps)


def _mixture_of_moments(mass: Tensor, first: Tensor, second: Tensor) -> GaussianMixture:
    """Return the mixture with the given moments; its covariances are always positive definite.

    1e-9 of the overall moments is added to every component (an empty one becomes the overall Gaussian). 1e-6 of
    the mean variance, more than the rounding error of S/n - mu mu^T, is added to the diagonal of every covariance.
    """
    total, dim = mass.sum(), first.shape[-1]
    centre, spread = first.sum(0) / total, second.sum(0) / total
    mass_, first_, second_ = mass + 1e-9, first + 1e-9 * centre, second + 1e-9 * spread
    means = first_ / mass_[:, None]
    covariances = second_ / mass_[:, None, None] - means[:, :, None] * means[:, None]
    power = spread.diagonal().mean()
    variance = power - centre.square().mean()
    jitter = 1e-6 * variance.clamp_min(0) + 1e-12 * power + 1e-30
    identity = torch.eye(dim, dtype=mass.dtype, device=mass.device)
    return GaussianMixture.unchecked(mass / total, means, (covariances + covariances.mT) / 2 + jitter * identity)
