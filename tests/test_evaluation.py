import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.errors import InputError
from cryotwin_nb.truth import molecules


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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


def test_isometry_comes_with_intervals():
    """For diag(s) the least-squares scale is the mean of s_i^2."""
    jacobian = torch.diag(torch.tensor([1.0, 3.0]))
    result = ct.isometry(linear_decoder(jacobian), normal(500, 2), n_pairs=400)
    assert result.correlation_interval.low < 10 / np.sqrt(2 * 82) < result.correlation_interval.high
    assert result.scale_interval.low < 5 < result.scale_interval.high
    assert result.scale_interval.high - result.scale_interval.low < 2


def test_metric_tensors_of_a_linear_decoder_are_the_product_of_its_jacobian():
    jacobian = normal(20, 4)
    z = 50 + normal(100, 4, seed=1) * torch.tensor([9.0, 1.0, 1.0, 0.1])
    found = evaluation.metric_tensors(linear_decoder(jacobian), z, n_points=7)
    assert found.shape == (7, 4, 4) and found.dtype == torch.float64
    torch.testing.assert_close(found, (jacobian.T @ jacobian).double().expand(7, 4, 4), rtol=0, atol=0.02)


def test_metric_tensors_of_a_bent_decoder_are_those_of_its_points():
    """x^2 and y^2 have the metric diag(4 x^2, 4 y^2): central differences are exact for them."""

    def decode(z: torch.Tensor) -> torch.Tensor:
        return linear_decoder(torch.eye(2))(z**2)

    z = torch.rand(30, 2, generator=torch.Generator().manual_seed(2)) + 0.5
    found = evaluation.metric_tensors(decode, z, n_points=30).diagonal(dim1=1, dim2=2).sqrt() / 2
    for axis in range(2):
        torch.testing.assert_close(found[:, axis].sort()[0], z[:, axis].double().sort()[0], rtol=1e-3, atol=0)
    torch.testing.assert_close(torch.cdist(found, z.double()).amin(1), torch.zeros(30).double(), rtol=0, atol=1e-3)


def test_metric_tensors_take_a_model():
    model = ct.CryoTwin(16, "coordinate", latent_dim=2, n_components=2, width=8, depth=1, n_features=8)
    z = normal(20, 2)
    found, products = evaluation.metric_tensors(model, z, n_points=20), ct.isometry(model, z, n_pairs=20)
    assert found.diagonal(dim1=1, dim2=2).min() > 0
    trace = float(found.mean(0).trace() / 2)
    assert trace / 5 < products.scale < trace * 5


@pytest.mark.parametrize(
    ("eigenvalues", "expected"),
    [([4.0, 4.0, 4.0], 0.0), ([1.0, 9.0], 0.64), ([2.0, 0.0], 1.0), ([1.0, 1.0, 0.0, 0.0], 1.0), ([1, 0, 0, 0], 3.0)],
)
def test_relaxed_distortion_of_known_metrics(eigenvalues, expected):
    """d sum s^2 / (sum s)^2 - 1, regardless of the unit and the orientation of the axes."""
    d = len(eigenvalues)
    turn = torch.linalg.qr(normal(d, d).double())[0]
    metric = turn.T @ torch.diag(torch.tensor(eigenvalues).double()) @ turn
    assert evaluation.relaxed_distortion(7 * metric.expand(5, d, d)) == pytest.approx(expected, abs=1e-9)


def test_relaxed_distortion_is_of_all_points_together():
    """Isometries of two scales, 1 and 3: the variance of the squared scale relative to the square of its mean."""
    metric = torch.eye(2).double() * torch.tensor([1.0, 9.0])[:, None, None]
    assert evaluation.relaxed_distortion(metric) == pytest.approx(16 / 25)


def test_relaxed_distortion_in_the_active_subspace():
    turn = torch.linalg.qr(normal(3, 3))[0]
    metric = (turn.T @ torch.diag(torch.tensor([5.0, 5.0, 0.0])) @ turn).expand(4, 3, 3).double()
    assert evaluation.relaxed_distortion(metric, turn[:2]) == pytest.approx(0, abs=1e-6)
    assert evaluation.relaxed_distortion(metric) == pytest.approx(0.5, abs=1e-6)
    z = normal(4000, 3, seed=1) * torch.tensor([5.0, 3.0, 0.1]) @ turn + 100
    spread, axes = evaluation.principal_axes(z)
    torch.testing.assert_close(spread, torch.tensor([5.0, 3.0, 0.1]), rtol=0.05, atol=0)
    torch.testing.assert_close((axes @ turn.T).abs(), torch.eye(3), rtol=0, atol=0.05)
    assert evaluation.relaxed_distortion(metric, axes[:2]) == pytest.approx(0, abs=1e-2)


def gaussian(mean: float, d: int = 2, spread: float = 1.0) -> ct.GaussianMixture:
    return ct.GaussianMixture([1.0], torch.full((1, d), mean), spread**2 * torch.eye(d)[None])


@pytest.mark.parametrize(("offset", "expected"), [(0.0, 0.0), (1.0, 1.0), (1.5, 2.25)])
def test_kl_of_shifted_gaussians(offset, expected):
    """KL(N(m, I) || N(0, I)) = |m|^2 / 2, here in two dimensions."""
    z = gaussian(offset).sample(6000, seed=1)
    assert ct.kl_divergence(z, gaussian(0.0)) == pytest.approx(expected, abs=0.05 + 0.15 * expected)


def test_kl_does_not_depend_on_the_unit_of_z():
    z, prior = gaussian(1.0).sample(2000, seed=1), gaussian(0.0)
    scaled = ct.GaussianMixture(prior.weights, 7 * prior.means, 49 * prior.covariances)
    assert ct.kl_divergence(7 * z, scaled) == pytest.approx(ct.kl_divergence(z, prior), abs=0.01)


def test_kl_of_too_few_latents_is_refused():
    with pytest.raises(InputError, match="at least 20"):
        ct.kl_divergence(torch.zeros(5, 2), gaussian(0.0))


@pytest.mark.parametrize(
    ("d", "offset", "spread"), [(1, 1, 1), (2, 0, 1), (2, 1, 1), (2, 1.5, 1), (2, 0.5, 0.5), (4, 0, 0.5), (8, 0, 0.5)]
)
def test_kl_by_neighbours_of_known_gaussians(d, offset, spread):
    """KL(N(m, s^2 I) || N(0, I)) = (|m|^2 + d (s^2 - 1)) / 2 - d log s."""
    z = gaussian(offset, d, spread).sample(4000, seed=1)
    expected = d * (offset**2 + spread**2 - 1) / 2 - d * np.log(spread)
    assert evaluation.kl_neighbours(z, gaussian(0.0, d)) == pytest.approx(expected, abs=0.05 + 0.18 * expected)


def test_kl_by_neighbours_does_not_depend_on_the_unit_of_any_axis():
    z, prior = gaussian(1.0).sample(1000, seed=1), gaussian(0.0)
    factor = torch.tensor([[7.0, 0.0], [-3.0, 0.1]], dtype=torch.float64)
    changed = ct.GaussianMixture(prior.weights, prior.means, (factor @ factor.T)[None])
    found = evaluation.kl_neighbours(z.double() @ factor.T, changed)
    assert found == pytest.approx(evaluation.kl_neighbours(z, prior), abs=1e-3)


def test_kl_by_neighbours_sees_mass_put_on_points():
    """Held-out latents, and a mixture concentrated on other latents: the divergence is infinite."""
    z = gaussian(0.0).sample(9000, seed=1)
    points = ct.GaussianMixture(torch.ones(150) / 150, z[:150], 1e-10 * torch.eye(2).expand(150, 2, 2))
    assert ct.kl_divergence(z[150:], points, n_samples=1000) < 0.35
    assert evaluation.kl_neighbours(z[150:], points) > 1
    assert abs(evaluation.kl_neighbours(z[150:], gaussian(0.0))) < 0.05


def test_kl_by_neighbours_takes_some_of_many_latents():
    z = gaussian(1.0).sample(3000, seed=1)
    found = [evaluation.kl_neighbours(z, gaussian(0.0), seed=seed, n_samples=500) for seed in range(3)]
    assert len(set(found)) == 3 and np.mean(found) == pytest.approx(1, abs=0.35)
    with pytest.raises(InputError, match=r"kl_neighbours: found 20 latents, expected more than 20"):
        evaluation.kl_neighbours(z[:20], gaussian(0.0))


WELLS = ct.GaussianMixture(
    [0.5, 0.3, 0.2], torch.tensor([[0.0, 0, 0], [6, 0, 0], [0, 6, 0]]), torch.eye(3).expand(3, 3, 3)
)


def test_held_out_likelihood_ranks_the_number_of_components():
    scores = evaluation.held_out_log_likelihood(WELLS.sample(600, seed=2), (1, 2, 3, 30, 400))
    assert list(scores) == ["C = 1", "C = 2", "C = 3", "C = 30", "selected (C = 3)"]  # 400 exceeds the sample
    means = {name: score for name, (score, _) in scores.items()}
    truth = float(WELLS.log_prob(WELLS.sample(20_000, seed=3).double()).mean())
    assert means["C = 3"] == pytest.approx(truth, abs=0.25) and means["selected (C = 3)"] > means["C = 3"] - 0.05
    assert means["C = 1"] < means["C = 2"] - 0.2 < means["C = 3"] - 0.4
    assert means["C = 30"] < means["C = 3"] - 0.3  # this mixture overfits
    for score, interval in scores.values():
        assert interval.low < score < interval.high < interval.low + 1


@pytest.mark.parametrize(("level", "least", "most"), [(0.95, 0.88, 0.98), (0.5, 0.4, 0.6)])
def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say(level, least, most):
    draws = np.random.default_rng(0).exponential(2.0, (200, 50))
    intervals = [evaluation.interval(np.mean, draw, level=level, n_draws=200) for draw in draws]
    assert least < np.mean([low < 2 < high for low, high in intervals]) < most


def test_bootstrap_interval_of_a_mean_is_that_of_theory():
    sample = np.random.default_rng(1).normal(5, 3, 400)
    low, high = evaluation.interval(np.mean, sample)
    half = 1.96 * sample.std() / 20
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.1 * half)
    assert evaluation.interval(np.mean, sample) == (low, high) != evaluation.interval(np.mean, sample, seed=1)


def test_bootstrap_resamples_rows_together():
    x = np.random.default_rng(2).normal(size=(50, 2))
    low, high = evaluation.interval(lambda a, b: np.abs(2 * a - b).max(), x, 2 * x)
    assert (low, high) == (0, 0)


@pytest.fixture(scope="module")
def embedded():
    z = WELLS.sample(200, seed=4)
    return z, evaluation.embed_tsne(z, WELLS, n_samples=60, seed=5)


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - others, axis=2).argmin(1)


@pytest.mark.usefixtures("one_thread")
def test_latents_samples_and_means_share_one_map(embedded):
    z, embedding = embedded
    assert (embedding.latents.shape, embedding.samples.shape, embedding.means.shape) == ((200, 2), (60, 2), (3, 2))
    well = WELLS.responsibilities(z).argmax(1).numpy()
    centres = np.stack([np.median(embedding.latents[well == c], axis=0) for c in range(3)])
    of_samples = WELLS.responsibilities(WELLS.sample(60, seed=5)).argmax(1).numpy()
    assert (well[nearest(embedding.samples, embedding.latents)] == of_samples).mean() > 0.95
    assert well[nearest(embedding.means, embedding.latents)].tolist() == [0, 1, 2]
    assert (nearest(embedding.latents, centres) == well).mean() > 0.95


@pytest.mark.usefixtures("one_thread")
def test_what_is_placed_later_lies_where_it_would_have(embedded):
    z, embedding = embedded
    before = embedding.latents.copy()
    away = np.linalg.norm(embedding.transform(z) - embedding.latents, axis=1)
    assert np.quantile(away, 0.95) < 0.05 * embedding.latents.std(0).max()
    np.testing.assert_allclose(embedding.transform(z[:3].numpy().astype(np.float64)), embedding.latents[:3], atol=1)
    np.testing.assert_array_equal(embedding.latents, before)


@pytest.mark.usefixtures("one_thread")
def test_a_map_follows_from_its_seed_and_needs_few_latents(caplog):
    z = WELLS.sample(30, seed=6).requires_grad_()
    first, again, other = (ct.embed_tsne(z, WELLS, seed=seed) for seed in (0, 0, 1))
    assert first.samples.shape == (30, 2) and np.isfinite(first.latents).all()
    np.testing.assert_array_equal(first.latents, again.latents)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert not np.allclose(first.samples, other.samples)
    assert not caplog.records  # openTSNE is not asked for more neighbours than exist
    with pytest.raises(InputError, match=r"\(29, \d\), expected \(n, \d\) with n at least 30"):
        ct.embed_tsne(z[:29], WELLS)


LINE = ct.GaussianMixture([0.4, 0.3, 0.2, 0.1], torch.tensor([[0.0], [10.0], [20.0], [30.0]]), torch.ones(4, 1, 1))


def test_components_are_named_by_most_of_their_particles():
    z = torch.tensor([[0.0], [0.1], [-0.2], [10.0], [10.3], [20.0], [20.1], [20.2]])
    labels = np.array(["B", "B", "C1", "D", "D", "C1", "D", "E"])
    assert evaluation.label_components(LINE, z, labels) == {0: "B", 1: "D"}  # 2: a third each; 3: no particle
    assert evaluation.label_components(LINE, z, labels, least=0.7) == {1: "D"}
    assert evaluation.label_components(LINE, z, labels, least=0.3) == {0: "B", 1: "D", 2: "C1"}
    assert evaluation.label_components(LINE, torch.tensor([[1.0], [11.0]]), np.array([7, 8])) == {0: "7", 1: "8"}


def test_particles_between_components_count_for_both():
    """At 5 the shares are 4/7 and 3/7: three such "x" count 12/7 in the first component, which has two "y"."""
    z, labels = torch.tensor([[5.0]] * 3 + [[0.0]] * 2), np.array(["x", "x", "x", "y", "y"])
    assert evaluation.label_components(LINE, z, labels) == {0: "y", 1: "x"}
    assert evaluation.label_components(LINE, z, labels, least=0.55) == {1: "x"}  # 14/26 of the first are "y"


def test_the_heaviest_component_stands_for_its_name():
    assert evaluation.components_of_labels(LINE, {0: "B", 2: "B", 3: "A", 1: "A"}) == {"A": 1, "B": 0}
    rising = ct.GaussianMixture(LINE.weights.flip(0), LINE.means, LINE.covariances)
    found = evaluation.components_of_labels(rising, {0: "B", 2: "B", 3: "A", 1: "A"})
    assert found == {"A": 3, "B": 2} and list(found) == ["A", "B"]
    with pytest.raises(InputError, match=r"names of components \[4, 9\], expected components from 0 to 3"):
        evaluation.components_of_labels(LINE, {0: "B", 9: "C", 4: "D"})


def test_confusion_counts_particles_by_label_and_name():
    z = torch.tensor([[0.0], [1.0], [10.0], [20.0], [30.0], [9.0]])
    labels = np.array(["B", "B", "D", "D", "E", "B"])
    counts, rows, columns = evaluation.confusion(LINE, z, {0: "B", 1: "z", 2: "D"}, labels)
    assert (rows, columns) == (["B", "D", "E"], ["B", "D", "z", "unnamed"])
    assert counts.tolist() == [[2, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert evaluation.confusion(LINE, z[:2], {0: "B"}, labels[:2])[2] == ["B"]


@pytest.mark.parametrize("function", ["label_components", "confusion"])
def test_labels_of_other_particles_are_refused(function):
    arguments = [{}] if function == "confusion" else []
    with pytest.raises(InputError, match=r"labels of shape \(2,\) for 3 latents"):
        getattr(evaluation, function)(LINE, torch.zeros(3, 1), *arguments, np.array(["a", "b"]))


@settings(max_examples=50, deadline=None)
@given(names=st.dictionaries(st.integers(0, 10**6), st.text(), max_size=5))
def test_names_come_back_from_their_file(names, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "names.json"
    evaluation.write_labels(path, names)
    assert evaluation.read_labels(path) == names
    assert [file.name for file in path.parent.iterdir()] == ["names.json"]


def test_names_of_numpy_are_plain_in_the_file(tmp_path):
    names = evaluation.label_components(LINE, torch.tensor([[0.0]]), np.array(["B"]))
    evaluation.write_labels(tmp_path / "names.json", {np.int64(2): np.str_("D"), **names})
    assert (tmp_path / "names.json").read_text() == '{\n "0": "B",\n "2": "D"\n}\n'
    assert evaluation.read_labels(tmp_path / "names.json", LINE) == {0: "B", 2: "D"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"0": "B", "4": "C"}', r"names of components \[4\], expected components from 0 to 3"),
        ('{"-1": "B"}', r"names of components \[-1\]"),
        ('{"B": 0}', "cannot be read as a table of names"),
        ('["B"]', "cannot be read as a table of names"),
        ('{"0": "B"', "cannot be read as a table of names"),
        ("", "cannot be read as a table of names"),
    ],
)
def test_other_files_of_names_are_refused(tmp_path, text, message):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(InputError, match=rf"(?s)names\.json.*{message}"):
        evaluation.read_labels(tmp_path / "names.json", LINE)


def test_names_are_read_from_and_written_to_places_that_exist(tmp_path):
    with pytest.raises(InputError, match=r"(?s)names\.json does not exist"):
        evaluation.read_labels(tmp_path / "names.json")
    with pytest.raises(InputError, match=r"the folder .* does not exist"):
        evaluation.write_labels(tmp_path / "none" / "names.json", {0: "B"})


@pytest.fixture(scope="module")
def particles():
    return ct.simulate.assembly(300, 16, progress=False)


def test_r2_of_perfect_and_of_useless_latents(particles):
    truth = particles.truth
    perfect = evaluation.coordinate_r2(torch.as_tensor(truth.coordinates), truth)
    assert list(perfect) == list(molecules.BLOCKS) and min(perfect.values()) > 0.95
    assert max(evaluation.coordinate_r2(torch.randn(300, 3), truth).values()) < 0.3


def test_r2_comes_with_intervals(particles):
    z = torch.as_tensor(particles.truth.coordinates) + 0.3 * normal(300, 5)
    values, intervals = evaluation.coordinate_r2(z, particles.truth), evaluation.r2_interval(z, particles.truth)
    assert list(intervals) == list(molecules.BLOCKS)
    assert all(intervals[name].low < values[name] < intervals[name].high for name in values)
    assert all(0.02 < high - low < 0.5 for low, high in intervals.values())


def test_fsc_to_truth_of_the_truth_is_one(particles):
    truth = particles.truth
    curve = evaluation.fsc_to_truth(
        lambda z: torch.stack([truth.volume_at(c) for c in z.numpy()]), torch.as_tensor(truth.coordinates), truth, 12
    )
    assert curve.shape == (8,) and curve.min() > 0.999


def test_fsc_of_images_is_that_of_each_image_with_its_own_map(particles):
    """The map of the first image for all images: right only for those that show the same structure."""
    truth, z = particles.truth, torch.arange(300)[:, None]
    curves = evaluation.fsc_of_images(lambda z: truth.volume(0).expand(len(z), -1, -1, -1), z, truth, 25)
    rows = np.linspace(0, 299, 25).astype(int)
    expected = [ct.fsc(truth.volume(0), truth.volume(row), truth.pixel_size).correlation for row in rows]
    np.testing.assert_allclose(curves, expected)


def test_block_occupancies_are_recovered_whatever_the_scale(particles):
    wanted = np.array([[0, 0, 0, 0, 0], [0.5, 1, 0, 0.25, 0], [1, 1, 1, 1, 1]], dtype=np.float32)
    maps = torch.stack([2.5 * particles.truth.volume_at(row) for row in wanted])
    np.testing.assert_allclose(evaluation.block_occupancies(maps, particles.truth), wanted, atol=1e-4)


def test_block_order_is_by_the_last_crossing():
    names = ("a", "b", "c", "d")
    values = np.array([[0, 0.6, 0, 0], [0.2, 0.4, 0.45, 0], [0.7, 0.7, 0.9, 0.1], [1, 1, 1, 0.2]], dtype=float)
    assert evaluation.block_order(values, names) == ["c", "b", "a"]  # b drops and rises again; d never appears


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


def test_kl_lower_bound_is_the_divergence_where_a_mixture_can_describe_the_latents():
    """KL(N(m, I) || N(0, I)) = |m|^2 / 2; and 8 dimensions of twice the width, which density ratios hardly detect."""
    assert evaluation.kl_lower_bound(gaussian(1.5).sample(4000, seed=1), gaussian(0.0)) == pytest.approx(2.25, abs=0.15)
    wide = 2 * gaussian(0.0, d=8).sample(4000, seed=1)
    assert evaluation.kl_lower_bound(wide, gaussian(0.0, d=8)) == pytest.approx(12 - 8 * np.log(2), abs=0.4)
    z = gaussian(0.5).sample(3000, seed=2)
    assert evaluation.kl_lower_bound(z, ct.GaussianMixture.fit(z, 5)) < 0.02


def test_the_divergence_is_that_of_latents_which_the_kernels_have_not_seen():
    """On the latents used for fitting, small samples of the prior would seem to diverge from it."""
    prior = ct.GaussianMixture([1.0], [[0.0] * 4], [np.eye(4)])
    found = [ct.kl_divergence(prior.sample(60, seed=seed), prior, seed=seed) for seed in range(8)]
    assert np.mean(found) < 0.02


def test_what_is_drawn_follows_the_seed_and_the_default_is_zero(monkeypatch):
    prior = ct.GaussianMixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    z = prior.sample(400, seed=5)
    for estimate in (ct.kl_divergence, evaluation.kl_neighbours, evaluation.kl_lower_bound):
        assert estimate(z, prior) == estimate(z, prior, seed=0)
    drawn, fitted = [], []
    sample, fit = ct.GaussianMixture.sample, ct.GaussianMixture.fit.__func__
    monkeypatch.setattr(ct.GaussianMixture, "sample", lambda *a, seed=0: drawn.append(seed) or sample(*a, seed=seed))
    monkeypatch.setattr(
        ct.GaussianMixture,
        "fit",
        classmethod(lambda *a, seed=0, **kw: fitted.append((a[2], seed)) or fit(*a, seed=seed, **kw)),
    )
    ct.kl_divergence(z, prior, seed=3)
    evaluation.kl_neighbours(z, prior, seed=3)
    evaluation.kl_lower_bound(z, prior, seed=3)
    assert drawn == [3, 3] and fitted == [(100, 3)]
