"""Predictions of rate-distortion theory for the paper's Eq. 3, checked with the objective on a small linear model."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cryotwin_nb.mixture.moments import MixtureMoments
from cryotwin_nb.training.objective import objective

VARIANCES = torch.tensor([60.0, 25.0, 12.0, 0.3])  # the last is below beta / 2 and must vanish
BETA = 2.0


class LinearModel(nn.Module):
    """x -> z = A x -> B z with one Gaussian as prior: the minimum that `objective` requires of a model."""

    def __init__(self, width: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        d = len(VARIANCES)
        self.noise_width = width
        self.encoder = nn.Parameter(0.5 * width * (torch.eye(d) + 0.2 * torch.randn(d, d)))
        self.decoder = nn.Parameter(self.encoder.detach().inverse())
        self.moments = MixtureMoments(1, d)
        self.networks = SimpleNamespace(terms=self.terms)

    def encode(self, batch):
        z = batch @ self.encoder.T
        return z, z[:, :1] * 0

    def distortion(self, batch, z, n):
        return (batch - z @ self.decoder.T).square().sum(1)

    def terms(self, batch, z, n, some):
        return self.distortion(batch, z, n), 0


def train(width: float) -> tuple[LinearModel, torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(1)
    model = LinearModel(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    steps = 1000
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / steps))
        batch = torch.randn(512, len(VARIANCES), generator=generator) * VARIANCES.sqrt()
        distortion, rate = objective(model, batch, None, generator)[:2]
        optimizer.zero_grad()
        (distortion + BETA * rate).mean().backward()
        optimizer.step()
    batch = torch.randn(20_000, len(VARIANCES), generator=generator) * VARIANCES.sqrt()
    return model, batch, generator


@pytest.fixture(scope="module")
def runs():
    return {width: train(width) for width in (3.0, 0.6)}


@pytest.fixture(params=[3.0, 0.6])
def trained(request, runs):
    return request.param, *runs[request.param]


def test_jacobian_is_isometric_at_the_predicted_scale(trained):
    width, model, _, _ = trained
    eigenvalues = torch.linalg.eigvalsh(model.decoder.T @ model.decoder).detach() * width**2 / (6 * BETA)
    assert eigenvalues[1:].tolist() == pytest.approx([1, 1, 1], rel=0.12)


def test_latent_noise_costs_half_beta_per_active_dimension(trained):
    _, model, batch, generator = trained
    with torch.no_grad():
        noisy = objective(model, batch, None, generator)[0].mean()
        z = model.encode(batch)[0]
        clean = model.distortion(batch, z, None).mean()
    assert float(noisy - clean) == pytest.approx(3 * BETA / 2, rel=0.12)


def test_dimensions_below_half_beta_die(trained):
    _, model, batch, _ = trained
    with torch.no_grad():
        left = (batch - model.encode(batch)[0] @ model.decoder.T).square().mean(0)
    assert left[3] > 0.8 * VARIANCES[3] and (left[:3] < 0.15 * VARIANCES[:3]).all()


def test_noise_width_is_a_gauge(runs):
    """T -> c T scales z and changes neither term of the objective."""
    terms = []
    for width, (model, batch, _) in runs.items():
        with torch.no_grad():
            distortion, rate = objective(model, batch, None, torch.Generator().manual_seed(2))[:2]
        terms.append(float((distortion + BETA * rate).mean()))
        scale = model.encode(batch)[0].std(0).max().detach() / width
        assert float(scale) == pytest.approx(math.sqrt(60 / (6 * BETA)), rel=0.12)
    assert terms[0] == pytest.approx(terms[1], rel=0.01)
