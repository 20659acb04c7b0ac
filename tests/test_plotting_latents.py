"""t-SNE maps, confusion tables and the training diagram show the data passed to them."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cryotwin_nb import evaluation, plotting
from cryotwin_nb.mixture.gaussian import GaussianMixture

matplotlib.use("agg")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prior() -> GaussianMixture:
    means = torch.tensor([[0.0, 0.0, 0.0], [12.0, 0.0, 0.0], [0.0, 12.0, 0.0]])
    return GaussianMixture([0.5, 0.3, 0.2], means, torch.eye(3).expand(3, 3, 3))


@pytest.fixture(scope="module")
def embedding(prior):
    return evaluation.embed_tsne(prior.sample(90, seed=1), prior, n_samples=40)


@pytest.fixture(autouse=True)
def _figures_closed():
    yield
    plt.close("all")


def offsets(ax) -> list[np.ndarray]:
    return [np.asarray(c.get_offsets()) for c in ax.collections]


def test_latents_and_stars_lie_where_the_embedding_says(prior, embedding):
    ax = plotting.embedding_scatter(embedding, prior, names={0: "B", 1: "C", 2: "B"})
    latents, stars = offsets(ax)
    assert np.allclose(latents, embedding.latents) and np.allclose(stars, embedding.means)
    places = {text.get_text(): text.xy for text in ax.texts}
    assert set(places) == {"B", "C"} and np.allclose(places["B"], embedding.means[0])


def test_samples_or_other_points_lie_over_grey_latents(embedding):
    for show, expected in (("samples", embedding.samples), (embedding.latents[:5], embedding.latents[:5])):
        ax = plotting.embedding_scatter(embedding, show=show)
        below, above = offsets(ax)
        assert np.allclose(below, embedding.latents) and np.allclose(above, expected)
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["latents", "samples"]


def test_labels_stand_on_the_map(prior, embedding):
    labels = prior.responsibilities(prior.sample(90, seed=1)).argmax(1).numpy().astype(str)
    ax = plotting.embedding_scatter(embedding, labels=labels)
    assert {t.get_text() for t in ax.texts} == set(labels) and ax.get_legend() is None


def test_confusion_table_gives_counts_coloured_by_the_share_of_the_row():
    counts = np.array([[9, 1, 0], [0, 3, 1]])
    ax = plotting.confusion_table(counts, ["B", "C2"], ["B", "C2", "unnamed"])
    assert sorted(int(t.get_text()) for t in ax.texts) == [1, 1, 3, 9]
    assert np.allclose(ax.images[0].get_array(), counts / counts.sum(1, keepdims=True))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["B", "C2"]


def test_the_diagram_names_the_terms_of_the_objective_and_shows_the_pictures():
    image = np.random.default_rng(0).random((16, 16))
    figure = plotting.training_diagram(image, torch.as_tensor(image) / 2)
    words = " ".join(t.get_text() for t in figure.axes[0].texts)
    assert all(word in words for word in ("encoder", "decoder", "prior", "rate", "distortion", "noise", "CTF"))
    shown = [np.asarray(picture.get_array()) for picture in figure.axes[0].images]
    assert np.allclose(shown[0], image) and np.allclose(shown[1], image / 2)
    figure.canvas.draw()
    plotting.training_diagram().canvas.draw()
