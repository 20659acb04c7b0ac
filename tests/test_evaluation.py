import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb import evaluation, molecules
from cryotwin_nb.errors import InputError


def linear_decoder(jacobian: torch.Tensor):
    def decode(z: torch.Tensor) -> torch.Tensor:
        maps = torch.zeros(len(z), 8, 8, 8)
        maps.view(len(z), -1)[:, : len(jacobian)] = z @ jacobian.T
        return maps

    return decode


def test_isometry_of_a_scaled_rotation_is_exact():
    jacobian = 3 * torch.linalg.qr(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))[0]
    result = ct.isometry(linear_decoder(jacobian), torch.randn(100, 4), n_pairs=50)
    assert result.correlation == pytest.approx(1, abs=1e-5) and result.scale == pytest.approx(9, rel=1e-4)


def test_isometry_of_a_stretched_decoder_is_what_it_should_be():
    """Pearson's r for diag(s): sum s_i^2 / sqrt(d sum s_i^4), here for s^2 = (1, 9)."""
    jacobian = torch.diag(torch.tensor([1.0, 3.0]))
    result = ct.isometry(linear_decoder(jacobian), torch.randn(4000, 2), n_pairs=4000)
    assert result.correlation == pytest.approx(10 / np.sqrt(2 * 82), abs=0.03)


def test_active_subspace_ignores_dead_dimensions():
    jacobian = torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    z = torch.randn(500, 3) * torch.tensor([5.0, 4.0, 0.1])
    assert ct.isometry(linear_decoder(jacobian), z, n_active=2).correlation == pytest.approx(1, abs=0.01)
    assert ct.isometry(linear_decoder(jacobian), z).correlation < 0.9


def test_isometry_takes_a_model():
    model = ct.CryoTwin(16, "coordinate", latent_dim=2, n_components=2, width=8, depth=1, n_features=8)
    assert -1 <= ct.isometry(model, torch.randn(20, 2), n_pairs=10).correlation <= 1


def gaussian(mean: float, d: int = 2) -> ct.GaussianMixture:
    return ct.GaussianMixture([1.0], torch.full((1, d), mean), torch.eye(d)[None])


@pytest.mark.parametrize(("offset", "expected"), [(0.0, 0.0), (1.0, 1.0), (1.5, 2.25)])
def test_kl_of_shifted_gaussians(offset, expected):
    """KL(N(m, I) from N(0, I)) = |m|^2 / 2, here in two dimensions."""
    z = gaussian(offset).sample(6000, seed=1)
    assert ct.kl_divergence(z, gaussian(0.0)) == pytest.approx(expected, abs=0.05 + 0.15 * expected)


def test_kl_does_not_depend_on_the_unit_of_z():
    z, prior = gaussian(1.0).sample(2000, seed=1), gaussian(0.0)
    scaled = ct.GaussianMixture(prior.weights, 7 * prior.means, 49 * prior.covariances)
    assert ct.kl_divergence(7 * z, scaled) == pytest.approx(ct.kl_divergence(z, prior), abs=0.01)


def test_kl_of_too_few_latents_is_refused():
    with pytest.raises(InputError, match="at least 20"):
        ct.kl_divergence(torch.zeros(5, 2), gaussian(0.0))


@pytest.fixture(scope="module")
def particles():
    return ct.simulate.assembly(300, 16, progress=False)


def test_r2_of_perfect_and_of_useless_latents(particles):
    truth = particles.truth
    perfect = evaluation.coordinate_r2(torch.as_tensor(truth.coordinates), truth)
    assert list(perfect) == list(molecules.BLOCKS) and min(perfect.values()) > 0.95
    assert max(evaluation.coordinate_r2(torch.randn(300, 3), truth).values()) < 0.3


def test_fsc_to_truth_of_the_truth_is_one(particles):
    truth = particles.truth
    curve = evaluation.fsc_to_truth(
        lambda z: torch.stack([truth.volume_at(c) for c in z.numpy()]), torch.as_tensor(truth.coordinates), truth, 12
    )
    assert curve.shape == (8,) and curve.min() > 0.999


def test_block_occupancies_are_recovered_whatever_the_scale(particles):
    wanted = np.array([[0, 0, 0, 0, 0], [0.5, 1, 0, 0.25, 0], [1, 1, 1, 1, 1]], dtype=np.float32)
    maps = torch.stack([2.5 * particles.truth.volume_at(row) for row in wanted])
    np.testing.assert_allclose(evaluation.block_occupancies(maps, particles.truth), wanted, atol=1e-4)


def test_block_order_is_by_the_last_crossing():
    names = ("a", "b", "c", "d")
    values = np.array([[0, 0.6, 0, 0], [0.2, 0.4, 0.45, 0], [0.7, 0.7, 0.9, 0.1], [1, 1, 1, 0.2]], dtype=float)
    assert evaluation.block_order(values, names) == ["c", "b", "a"]  # b falls back and rises again; d never appears


def test_true_orders_are_those_of_the_routes():
    orders = evaluation.true_block_orders()
    assert orders[0] == ("base", "CP", "L1", "stalk", "H68") and len(set(orders)) == 4
    assert all(sorted(order) == sorted(molecules.BLOCKS) for order in orders)


def test_component_of_a_state_is_the_one_that_holds_it():
    prior = ct.GaussianMixture([0.5, 0.5], torch.tensor([[0.0], [10.0]]), torch.ones(2, 1, 1))
    z, labels = torch.tensor([[0.1], [9.0], [10.0]]), np.array(["B", "E5", "E5"])
    assert evaluation.component_of_state(prior, z, labels, "E5") == 1
    assert evaluation.component_of_state(prior, z, labels, "B") == 0
    with pytest.raises(InputError, match="B, E5"):
        evaluation.component_of_state(prior, z, labels, "X")
