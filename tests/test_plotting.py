"""The renderer on spheres of known size; lengths, units, numbers and order in figures."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nbclient import NotebookClient

from cryotwin_nb import plotting
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Isometry, block_order
from cryotwin_nb.imaging.fourier import grid
from cryotwin_nb.imaging.fsc import FscCurve
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.models.history import History
from cryotwin_nb.particles.formation import ImageFormation
from cryotwin_nb.pathways.ridgeline import pathway_from_knots
from cryotwin_nb.plotting import rendering

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def _settings_untouched_and_figures_closed():
    torch.manual_seed(0)
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def blob(size: int, radius: float, centre=(0.0, 0.0, 0.0), width: float | None = None) -> torch.Tensor:
    """Return a Gaussian (D, D, D) that is 1 on a sphere of the given radius (voxels) about an offset xyz."""
    width = width or radius / 1.5
    squared = (grid(size, 3).float() - torch.tensor(centre)).square().sum(-1)
    return torch.exp((radius**2 - squared) / (2 * width**2))


def both(values: torch.Tensor) -> list:
    """Return the values as a tensor with gradient and as a NumPy array."""
    return [values.clone().requires_grad_(), values.numpy()]


# --- the renderer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48, 72])
@pytest.mark.parametrize("angles", [(0, 0), (37, -21)])
def test_sphere_has_its_silhouette_depth_and_normals(size, angles):
    radius, pixels = 0.27 * size, 160
    hits = rendering.surface_hits(blob(size, radius), 1.0, pixels, rendering.view_from(*angles))
    area = hits.hit.sum() * (size / pixels) ** 2
    assert area == pytest.approx(np.pi * radius**2, rel=0.01)
    x, y, z = hits.position[hits.hit].T
    inner = x.square() + y.square() < (0.9 * radius) ** 2
    exact = (radius**2 - x.square() - y.square())[inner].sqrt()
    torch.testing.assert_close(z[inner], exact, atol=0.03, rtol=0)
    torch.testing.assert_close(hits.normal[hits.hit], hits.position[hits.hit] / radius, atol=0.03, rtol=0)
    assert (hits.normal.norm(dim=-1)[hits.hit] - 1).abs().max() < 1e-5
    assert (hits.position[~hits.hit] == 0).all()


def test_pixels_of_the_picture_lie_where_the_positions_say():
    hits = rendering.surface_hits(blob(32, 5.0, (6.0, 3.0, 0.0)), 1.0, 64)
    rows, columns = np.nonzero(hits.hit.numpy())
    assert (columns.mean() + 0.5) / 2 - 16 == pytest.approx(6, abs=0.05)  # +x is to the right
    assert 16 - (rows.mean() + 0.5) / 2 == pytest.approx(3, abs=0.05)  # +y is up
    assert hits.position[hits.hit][:, :2].mean(0).tolist() == pytest.approx([6, 3], abs=0.05)


@pytest.mark.parametrize(
    ("angles", "nearest"), [((0, 0), (0, 0, 8)), ((90, 0), (8, 0, 0)), ((0, 90), (0, 8, 0)), ((-90, 0), (-8, 0, 0))]
)
def test_the_view_names_the_side_that_faces_the_viewer(angles, nearest):
    view = rendering.view_from(*angles)
    torch.testing.assert_close(view @ view.T, torch.eye(3))
    assert torch.linalg.det(view) == pytest.approx(1)
    hits = rendering.surface_hits(blob(32, 3.0, nearest), 1.0, 48, view)
    assert hits.position[..., 2].max() == pytest.approx(11, abs=0.1)


def test_the_nearer_of_two_bodies_hides_the_other():
    volume = blob(32, 3.0, (0.0, 0.0, 8.0)) + blob(32, 5.0, (0.0, 0.0, -6.0))
    hits = rendering.surface_hits(volume, 1.0, 64)
    assert hits.position[32, 32, 2] == pytest.approx(11, abs=0.1)


def test_refinement_keeps_the_voxels():
    volume = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(0))
    fine, factor = rendering._upsampled(volume)
    assert factor == 9
    torch.testing.assert_close(fine[::9, ::9, ::9], volume, atol=1e-5, rtol=0)


def test_light_comes_from_the_upper_left_and_distance_pales():
    picture = rendering.render_surface(blob(32, 9.0), 1.0, size=64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.float32
    assert picture[24, 24].mean() > picture[40, 40].mean() + 0.2
    near, far = (rendering.render_surface(blob(32, 4.0, (0, 0, z)), 1.0, size=64)[32, 32].mean() for z in (10.0, -10.0))
    assert far > near
    assert (picture[0] == 1).all()


def test_difference_colours_gain_blue_and_loss_orange():
    volume = blob(32, 8.0)
    for sign, more, less in ((1, 2, 0), (-1, 0, 2)):
        pixel = rendering.render_surface(volume, 1.0, size=32, difference=sign * volume)[16, 16]
        assert pixel[more] > pixel[less] + 0.3
    plain = rendering.render_surface(volume, 1.0, size=32)
    np.testing.assert_array_equal(plain, rendering.render_surface(volume, 1.0, size=32, difference=0 * volume))


def test_a_contour_above_the_map_gives_a_white_picture():
    assert (rendering.render_surface(blob(16, 4.0), 1e6, size=16) == 1).all()


def test_contour_level_is_in_standard_deviations_of_all_maps():
    maps = torch.stack([blob(16, 3.0), 2 * blob(16, 4.0)])
    assert rendering.contour_level(maps, 1.5) == pytest.approx(float(maps.mean() + 1.5 * maps.std()), rel=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 10), (9, 9, 9), (1, 8, 8, 8)])
def test_a_map_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match="map to draw: found shape"):
        rendering.render_surface(np.zeros(shape), 1.0)


# --- pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pixel_size", "length"), [(1.0, 10), (1.31, 10), (2.806, 20), (5.0, 50), (10.0, 100)])
def test_scale_bar_is_a_round_length_and_as_long_as_it_says(pixel_size, length):
    ax = plt.subplots()[1]
    ax.imshow(np.zeros((32, 32)))
    bar = plotting.scale_bar(ax, pixel_size)
    assert bar.get_width() * pixel_size == pytest.approx(length)
    assert [text.get_text() for text in ax.texts] == [f"{length} Å"]


@pytest.mark.parametrize("images", both(torch.randn(14, 16, 16, generator=torch.Generator().manual_seed(0))))
def test_gallery_shows_n_images_with_labels_in_one_grey_scale(images):
    figure = plotting.particle_gallery(images, 4.0, labels=[f"state {i}" for i in range(14)], n=8)
    assert isinstance(figure, Figure)
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == [f"state {i}" for i in range(8)]
    assert len({ax.images[0].get_clim() for ax in shown}) == 1
    assert "20 Å" in [text.get_text() for text in shown[0].texts]


@pytest.mark.parametrize("maps", both(torch.stack([blob(16, r) for r in (3.0, 4.0, 5.0)])))
def test_montage_has_one_contour_and_a_scale_bar_of_true_length(maps):
    figure = plotting.map_montage(maps, 10.0, ["a", "b", "c"], level=1.0, size=96)
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c"]
    assert len({ax.images[0].get_array().shape for ax in figure.axes}) == 1
    bar, label = figure.axes[0].patches[0], figure.axes[0].texts[0].get_text()
    assert label == f"{bar.get_width() * 16 / 96 * 10:.0f} Å"  # 96 pixels across 16 voxels of 10 Å
    widths = [(ax.images[0].get_array().min(axis=(0, 2)) < 1).sum() * 16 / 96 for ax in figure.axes]
    assert widths == pytest.approx([6, 8, 10], abs=0.4)
    assert "σ above the mean" in figure.get_supxlabel()


def test_montage_takes_a_list_and_a_reference():
    more = blob(16, 3.0) + blob(16, 2.0, (0.0, 0.0, 5.0))
    maps = [blob(16, 3.0), more, more.clone()]
    for reference, expected in (("first", (0, 1, 1)), ("previous", (0, 1, 0)), (maps[0].numpy(), (0, 1, 1))):
        figure = plotting.map_montage(maps, 5.0, reference=reference, level=1.0, size=48)
        coloured = [np.ptp(ax.images[0].get_array(), axis=2).max() > 0.3 for ax in figure.axes]
        assert coloured == list(map(bool, expected))
        assert "blue: gained" in figure.get_supxlabel()
    with pytest.raises(InputError, match="reference: found 'last'"):
        plotting.map_montage(maps, 5.0, reference="last")


def test_montage_of_nothing_above_the_contour_shows_the_whole_frame():
    figure = plotting.map_montage(blob(16, 3.0), 5.0, level=1e9, size=32)
    assert figure.axes[0].images[0].get_array().shape == (32, 32, 3)


@pytest.mark.parametrize("draw", [plotting.map_montage, plotting.central_slices])
def test_maps_of_another_shape_are_refused(draw):
    with pytest.raises(InputError, match="maps: found shape"):
        draw(np.zeros((2, 8, 8, 4)), 1.0)


def test_central_slices_are_the_three_sections_of_each_map():
    maps = torch.randn(2, 8, 8, 8)
    figure = plotting.central_slices(maps, 2.0)
    shown = [ax.images[0].get_array().data for ax in figure.axes]
    expected = [*maps[:, 4], *maps[:, :, 4], *maps[:, :, :, 4]]
    assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))
    assert figure.axes[0].texts[-1].get_text() == "5 Å"


# --- latents ---------------------------------------------------------------------------------------------------


@pytest.fixture
def prior():
    means = torch.tensor([[0.0, 0, 0], [6, 0, 0], [6, 4, 0]])
    return GaussianMixture(torch.tensor([0.5, 0.2, 0.3]), means, 0.5 * torch.eye(3).expand(3, 3, 3))


@pytest.fixture
def path(prior):
    knots = torch.tensor([[0.0, 0, 0], [3, 0, 0], [6, 0, 0], [6, 2, 0], [6, 4, 0]])
    return pathway_from_knots(prior, knots.double())


def offsets(ax: Axes, label: str) -> np.ndarray:
    (found,) = [c for c in ax.collections if c.get_label().startswith(label)]
    return np.asarray(found.get_offsets())


@pytest.mark.parametrize("as_tensor", [True, False])
def test_scatter_shows_points_means_and_path_in_one_projection(prior, path, as_tensor):
    z = prior.sample(300)
    matrix = torch.eye(3)[:, :2]
    ax = plotting.latent_scatter(z if as_tensor else z.numpy(), prior, path, projection=matrix, n_named=2)
    assert isinstance(ax, Axes)
    centre = z.mean(0)
    np.testing.assert_allclose(offsets(ax, "means"), ((prior.means - centre) @ matrix.double()), atol=1e-5)
    (line,) = [line for line in ax.lines if line.get_label().startswith("path")]
    np.testing.assert_allclose(line.get_xydata(), (path.curve.float() - centre) @ matrix, atol=1e-5)
    (means,) = [c for c in ax.collections if c.get_label().startswith("means")]
    assert np.argsort(means.get_sizes()).tolist() == [1, 2, 0]  # by weight
    texts = [text.get_text() for text in ax.texts]
    assert texts[:2] == ["0", "2"]  # the heaviest two
    assert set(texts[2:]) == {"0", "1", "2", "3", "4"}
    assert ax.get_aspect() == 1


def test_scatter_axes_are_principal_components_with_their_share(prior):
    z = prior.sample(2000)
    share = np.linalg.eigvalsh(np.cov(z.numpy().T))[::-1]
    share = share / share.sum()
    ax = plotting.latent_scatter(z, components=(1, 3))
    assert ax.get_xlabel() == f"PC 1 (latent units; {share[0]:.0%} of the variance)"
    assert ax.get_ylabel() == f"PC 3 (latent units; {share[2]:.0%} of the variance)"
    drawn = np.asarray(ax.collections[0].get_offsets())
    assert drawn.var(axis=0) == pytest.approx(share[[0, 2]] * z.var(0).sum().item(), rel=1e-3)


def test_scatter_takes_an_embedding_function_and_a_bare_path(prior, path):
    ax = plotting.latent_scatter(prior.sample(50), path=path.latents.numpy(), projection=lambda x: x[:, :2] * 10)
    assert ax.get_xlabel() == "embedding 1"
    assert max(line.get_xdata().max() for line in ax.lines) == pytest.approx(60)


def test_scatter_draws_several_paths_in_different_colours(prior, path):
    chain = replace(path, method="ridgeline chain")
    ax = plotting.latent_scatter(prior.sample(50), path=[path, chain, path.latents])
    assert [line.get_label() for line in ax.lines] == ["path", "ridgeline chain", "path"]
    assert len({line.get_color() for line in ax.lines}) == 3


def test_scatter_names_labels_and_colours(prior):
    z, figure = prior.sample(100), plt.figure()
    labels = np.where(z[:, 0] > 3, "open", "closed")
    ax = plotting.latent_scatter(z, labels=labels, ax=figure.add_subplot())
    assert ax.figure is figure
    assert [text.get_text() for text in ax.texts] == ["closed", "open"]
    assert len(np.unique(ax.collections[0].get_facecolors(), axis=0)) == 2
    ax = plotting.latent_scatter(z, colour=z[:, 0], colour_label="opening (Å)", max_points=40)
    assert len(ax.collections[0].get_offsets()) == 40
    assert ax.collections[0].colorbar.ax.get_ylabel() == "opening (Å)"


def test_scatter_refuses_what_it_cannot_project(prior):
    with pytest.raises(InputError, match=r"components \(1, 4\) of 3 dimensions"):
        plotting.latent_scatter(prior.sample(10), components=(1, 4))
    with pytest.raises(InputError, match=r"projection: found shape \(2, 2\)"):
        plotting.latent_scatter(prior.sample(10), projection=np.eye(2))


def test_numbers_are_left_out_where_they_would_overlap():
    points = np.array([[0.0, 0], [1, 0], [1.1, 0], [1.2, 0], [2, 0], [2.05, 0]])
    assert plotting.style.apart(points, 0.15) == [5, 0, 1, 3]


# --- curves ----------------------------------------------------------------------------------------------------


def history(epochs: int, first: float = 850.0) -> History:
    decay = np.exp(-np.arange(epochs) / 3)
    return History(
        distortion=[first, *(800 + 50 * decay[1:])],
        rate=list(20 * (1 - decay)),
        beta=[min(2.0, 0.5 * (e + 1)) for e in range(epochs)],
        radius=[16.0] * epochs,
        seconds=[2.0] * epochs,
        skipped=[0] * epochs,
    )


def test_training_curves_show_both_terms_and_the_warm_up():
    record = history(10)
    distortion, rate = plotting.training_curves(record).axes
    assert distortion.get_ylabel() == "distortion per image"
    assert rate.get_ylabel() == "rate per image (nats)"
    assert distortion.lines[0].get_ydata().tolist() == record.distortion
    assert rate.lines[0].get_ydata().tolist() == record.rate
    ends = [ax.patches[0].get_extents().transformed(ax.transData.inverted()).x1 for ax in (distortion, rate)]
    assert ends == pytest.approx([4, 4])
    assert "2.0 s per epoch, β = 2" in [text.get_text() for text in rate.texts]


def test_a_first_epoch_far_off_is_a_number():
    distortion = plotting.training_curves(history(10, first=5000.0)).axes[0]
    assert distortion.lines[0].get_xdata()[0] == 2
    assert " epoch 1: 5,000" in [text.get_text() for text in distortion.texts]


def test_training_curves_name_what_rises():
    record = history(10)
    assert " β rises" in [text.get_text() for text in plotting.training_curves(record).axes[0].texts]
    record.radius = [8.0, 12.0] + [16.0] * 8
    assert " β and resolution rise" in [text.get_text() for text in plotting.training_curves(record).axes[0].texts]
    record.beta, record.radius = [2.0] * 10, [16.0] * 10
    panel = plotting.training_curves(record).axes[0]
    assert not panel.patches
    assert not panel.texts


def test_training_curves_join_passes_of_equal_radius_only():
    record = history(10)
    record.pass_radius = [16.0, 4.0, 4.0, 4.0, 8.0, 16.0, 16.0]
    record.log_evidence = [float("nan"), -70.0, -64.0, -60.0, -200.0, -450.0, -440.0]
    record.pass_seconds = [2.0] * 7
    passes, distortion, rate = plotting.training_curves(record).axes
    drawn = [
        (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in passes.lines if line.get_marker() == "o"
    ]
    assert drawn == [([2, 3, 4], [0, 6, 10]), ([5], [0]), ([6, 7], [0, 10])]
    labels = [text.get_text() for text in passes.texts]
    assert labels[:3] == ["4", "8", "16"]
    assert "14 s in total" in labels
    assert distortion.get_ylabel() == "distortion per image"
    assert rate.get_ylabel() == "rate per image (nats)"


@pytest.mark.parametrize("passes", [1, 2])
def test_training_curves_of_passes_alone(passes):
    evidence = [float("nan"), -70.0][:passes]
    record = History(log_evidence=evidence, pass_radius=[16.0, 4.0][:passes], pass_seconds=[1.0] * passes)
    assert len(plotting.training_curves(record).axes) == 3


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_training_curves_of_hardly_any_epochs(epochs):
    record = history(epochs) if epochs else History()
    assert len(plotting.training_curves(record).axes) == 2


def test_density_along_path_is_in_nats_against_length(prior, path):
    ax = plotting.density_along_path(path, prior)
    line, dots = ax.lines[:2]
    assert line.get_xdata()[-1] == pytest.approx(10)  # 6 + 4
    np.testing.assert_allclose(line.get_ydata(), prior.log_prob(path.curve), atol=1e-5)
    np.testing.assert_allclose(dots.get_xdata(), [0, 3, 6, 8, 10], atol=1e-5)
    np.testing.assert_allclose(dots.get_ydata(), path.log_prob, atol=1e-5)
    assert ax.get_xlabel().endswith("(latent units)")
    assert ax.get_ylabel().endswith("(nats)")
    assert f"barrier {path.barrier:.1f} nats" in [text.get_text() for text in ax.texts]
    (arrow,) = [text for text in ax.texts if text.arrow_patch is not None]
    assert arrow.xyann[1] == pytest.approx(float(path.log_prob[0]))
    assert arrow.xy[1] == pytest.approx(line.get_ydata().min(), abs=1e-5)
    assert plotting.density_along_path(path).lines[0].get_xdata().tolist() == dots.get_xdata().tolist()


@pytest.mark.parametrize("as_tensor", [True, False])
def test_occupancies_are_listed_in_the_order_of_appearance(as_tensor):
    values = np.array([[0.1, 0.0, 0.9, 0.0], [0.2, 0.4, 0.8, 0.6], [0.6, 0.8, 0.9, 0.3], [1.0, 1.0, 1.0, 0.2]])
    names = ("late", "early", "always", "lost")
    ax = plotting.occupancy_along_path(torch.tensor(values) if as_tensor else values, names)
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries == ["always: step 0.0", "early: step 1.2", "late: step 1.8", "lost: never"]
    assert [entry.split(":")[0] for entry in entries[:3]] == block_order(values, names)
    circles = [line.get_xydata()[0] for line in ax.lines if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(circles, [[0, 0.9], [1.25, 0.5], [1.75, 0.5]])


def test_fsc_ticks_are_resolutions_and_the_legend_gives_the_crossing():
    frequency = np.arange(1, 17) / 320
    falling = FscCurve(frequency, np.linspace(1, -0.1, 16))
    good = FscCurve(frequency, np.full(16, 0.9))
    ax = plotting.fsc_curves([falling, good], ["a", "b"], threshold=0.5)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["∞", "100", "50", "33.3", "25", "20"]
    assert ax.get_xlim()[1] == pytest.approx(1 / 20)
    assert "Å" in ax.get_xlabel()
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries == [f"a: {falling.resolution(0.5):.3g} Å", "b: better than 20 Å"]
    assert isinstance(plotting.fsc_curves(falling), Axes)


def test_isometry_scatter_shows_r_and_the_proportional_line():
    rng = np.random.default_rng(0)
    latent = rng.normal(0, 1e-3, 100)
    result = Isometry(latent, 3 * latent + rng.normal(0, 1e-3, 100))
    ax = plotting.isometry_scatter(result)
    assert ax.get_legend().get_texts()[0].get_text() == f"r = {result.correlation:.3f}"
    (x0, x1), (y0, y1) = ax.lines[0].get_data()
    assert y0 / x0 == pytest.approx(result.scale)
    assert y1 / x1 == pytest.approx(result.scale)


def test_noise_spectrum_has_a_line_for_each_optics_group():
    imaging = ImageFormation(16)
    imaging.noise = torch.rand(3, imaging.noise.shape[1]).double()
    imaging.pixel_size.fill_(5.0)
    ax = plotting.noise_spectrum(imaging)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), imaging.noise[2, :9])
    assert ax.get_xlim()[1] == pytest.approx(1 / 10)


# --- live ------------------------------------------------------------------------------------------------------


def test_live_plot_is_silent_outside_a_notebook(capsys):
    plotting.LivePlot()(history(3), None)
    assert capsys.readouterr() == ("", "")
    assert not plt.get_fignums()


def test_in_a_notebook_each_cell_shows_its_figure_once_and_live_plot_replaces_its_own(tmp_path):
    source = (
        "import cryotwin_nb as ct\n"
        "live, history = ct.plotting.LivePlot(), ct.History()\n"
        "for epoch in range(4):\n"
        "    for name in ('distortion', 'rate', 'beta', 'radius', 'seconds', 'skipped'):\n"
        "        getattr(history, name).append(1.0 + epoch)\n"
        "    live(history, None)\n"
        "import matplotlib.pyplot as plt\n"
        "assert not plt.get_fignums()\n"
    )
    sources = [source, "ct.plotting.training_curves(history);", "ct.plotting.training_curves(history).axes[0];"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        (output,) = cell.outputs
        assert output.output_type == "display_data"
        assert "image/png" in output.data
    assert "widgets" not in notebook.metadata


def test_matplotlib_is_left_as_it_was_by_the_import():
    code = (
        "import matplotlib; before = dict(matplotlib.rcParams); from cryotwin_nb import plotting; import sys;"
        "backend = 'backend'; after = dict(matplotlib.rcParams);"
        "sys.exit(any(before[k] != after[k] for k in before if k != backend))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_spectrum_shows_live_directions_and_the_noise_floor():
    from cryotwin_nb.reconstruction.spectrum import Spectrum

    found = Spectrum((0.2, 0.05, 0.001, 0.0005), (20.0, 3.0, -0.01, -0.01), (0.1, 0.1, 0.001, 0.001), 1000)
    ax = plotting.spectrum(found)
    live, dead, floor = (line.get_ydata() for line in ax.lines)
    assert list(live) == pytest.approx([20, 5]) and list(dead) == pytest.approx([0.1, 0.05])
    assert floor[0] == pytest.approx(0.1) and [t.get_text() for t in ax.texts] == ["20 nats", "3 nats"]
