"""The naming widget without a browser: filling in fields and clicking the button."""

from __future__ import annotations

import base64
import io

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib.image import imread

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.errors import InputError

WEIGHTS = [0.3, 0.1, 0.25, 0.05, 0.2, 0.1]
NAMES = {0: "B", 3: "B", 2: "C", 4: "D"}
"""Names of components, heaviest first: B is 0 and 3, C is 2, D is 4; 1 and 5 have no name."""


@pytest.fixture
def prior() -> ct.GaussianMixture:
    """Six components far apart on the diagonal of the plane, except for 0 and 3, and for 1 and 5."""
    means = 10.0 * torch.tensor([0.0, 3.0, 1.0, 0.15, 2.0, 3.15])[:, None].expand(6, 2)
    return ct.GaussianMixture(torch.tensor(WEIGHTS), means, torch.eye(2).expand(6, 2, 2))


def decode(z: torch.Tensor) -> torch.Tensor:
    """Return cuboids that grow with the first coordinate of the latent."""
    maps = torch.zeros(len(z), 8, 8, 8)
    for volume, height in zip(maps, z[:, 0]):
        volume[2:6, 3 : 4 + round(float(height) / 10), 2:6] = 1
    return maps


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.labels.json"


def test_components_of_one_name_are_one_picture_at_the_heaviest(prior, path):
    asked = []

    def noted(z):
        asked.append(z)
        return decode(z)

    naming = ct.name_components(prior, noted, path, NAMES)
    assert naming.groups == [(0, 3), (2,), (4,), (1,), (5,)]
    assert [field.value for field in naming.fields] == ["B", "C", "D", "", ""]
    assert torch.equal(torch.cat(asked), prior.means[[0, 2, 4, 1, 5]].float())
    assert naming.names == NAMES and not path.exists()


def test_pictures_stand_under_index_and_share_and_show_the_maps(prior, path):
    gallery, _ = ct.name_components(prior, decode, path, NAMES).children
    labels, images, fields = zip(*(cell.children for cell in gallery.children))
    assert [label.value for label in labels] == ["0: 35.0%", "2: 25.0%", "4: 20.0%", "1: 10.0%", "5: 10.0%"]
    dark = [(imread(io.BytesIO(image.value))[..., :3].max(2) < 0.95).sum() for image in images]
    assert 0 < dark[0] < dark[1] < dark[2] < dark[3] == dark[4]
    assert all(isinstance(field, ipywidgets.Text) for field in fields)


def test_names_typed_are_saved_for_all_components_of_the_picture(prior, path):
    naming = ct.name_components(prior, decode, path, NAMES)
    naming.fields[0].value, naming.fields[3].value = " core ", "E"
    naming.button.click()
    expected = {0: "core", 3: "core", 2: "C", 4: "D", 1: "E"}
    assert naming.names == expected and evaluation.read_labels(path, prior) == expected
    assert naming.message.value == f"4 names of 5 components saved to {path}."


def test_without_a_change_the_names_given_are_saved(prior, path):
    ct.name_components(prior, decode, path, NAMES).button.click()
    assert evaluation.read_labels(path) == NAMES


def test_an_empty_field_takes_the_name_away_and_one_name_may_stand_twice(prior, path):
    naming = ct.name_components(prior, decode, path, NAMES)
    naming.fields[0].value, naming.fields[1].value = "  ", "D"
    naming.button.click()
    assert evaluation.read_labels(path) == {2: "D", 4: "D"}
    assert ct.name_components(prior, decode, path, naming.names).groups[0] == (2, 4)


def test_components_that_are_not_shown_keep_their_names(prior, path):
    naming = ct.name_components(prior, decode, path, NAMES, n_shown=2)
    assert naming.groups == [(0, 3), (2,)]
    naming.fields[1].value = ""
    naming.button.click()
    assert evaluation.read_labels(path) == {0: "B", 3: "B", 4: "D"}


def test_what_cannot_be_saved_is_said_in_words_and_can_be_tried_again(prior, tmp_path):
    folder = tmp_path / "<later>"
    naming = ct.name_components(prior, decode, folder / "names.json", NAMES)
    naming.fields[0].value = "core"
    naming.button.click()
    message = naming.message.value
    assert message.startswith("<b>Not saved.</b>") and "&lt;later&gt;" in message and "Create" in message
    assert naming.names == NAMES and naming.fields[0].value == "core"
    folder.mkdir()
    naming.button.click()
    assert naming.names[3] == "core" and "saved to" in naming.message.value


def test_names_are_those_of_the_states_by_default(prior, path):
    naming = ct.name_components(prior, decode, path)
    assert naming.groups == [(0, 3), (2,), (4,), (1, 5)]
    assert naming.names == {c: s.name for s in ct.find_states(prior) for c in s.components}
    assert [field.value for field in naming.fields][:2] == ["S1", "S2"]


def test_names_of_another_mixture_are_refused(prior, path):
    with pytest.raises(InputError, match=r"names of components \[6\], expected components from 0 to 5"):
        ct.name_components(prior, decode, path, {6: "B"})


def test_a_stored_notebook_has_a_picture_of_the_widget(prior, path):
    naming = ct.name_components(prior, decode, path, NAMES)
    bundle = naming._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    first = imread(io.BytesIO(base64.b64decode(bundle["image/png"])))
    naming.fields[0].value = "core"
    naming.button.click()
    again = imread(io.BytesIO(base64.b64decode(naming._repr_mimebundle_()["image/png"])))
    changed = np.argwhere(np.abs(first - again).max(-1) > 0.2)  # each picture has a separate palette
    assert first.shape == again.shape and len(changed)
    assert changed[:, 0].max() < 20 and changed[:, 1].max() < first.shape[1] / 5  # the first picture's title


def test_many_pictures_stand_in_rows(path):
    prior = ct.GaussianMixture(torch.full((9,), 1 / 9), torch.zeros(9, 2), torch.eye(2).expand(9, 2, 2))
    naming = ct.name_components(prior, decode, path, {}, n_shown=8)
    height, width = imread(io.BytesIO(naming._still())).shape[:2]
    one = imread(io.BytesIO(naming.children[0].children[0].children[1].value)).shape
    assert len(naming.fields) == 8 and (height, width) == (2 * (one[0] + 20), 7 * one[1])


def test_maps_without_density_are_pictures_too(prior, path):
    naming = ct.name_components(prior, lambda z: torch.zeros(len(z), 8, 8, 8), path, NAMES)
    naming.button.click()
    assert naming._still() and evaluation.read_labels(path) == NAMES
