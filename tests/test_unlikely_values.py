"""Values that are possible but unlikely cause one warning for each kind and file, with the rows."""

from dataclasses import replace

import numpy as np
import pytest
from test_reported_inputs import BOX, N, read, star

import cryotwin_nb as ct
from cryotwin_nb.formats.metadata import make_ctf
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.imaging.optics import CTF, implausible


@pytest.fixture
def stack(tmp_path):
    images = np.random.default_rng(0).normal(size=(N, BOX, BOX)).astype(np.float32)
    write_stack(tmp_path / "s.mrcs", [images], N, BOX, 2.0)
    return tmp_path / "s.mrcs"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"voltage": "30"},
            rf"p\.star: {N} of {N} particles have a voltage below 60 or above 1,000 kV: 1 \(30 kV\), 2 ",
        ),
        ({"voltage": "1200"}, r"1 \(1200 kV\)"),
        ({"defocus": -500}, rf"{N} of {N} particles have a defocus of 0 or below without a phase shift: 1 \(-500 Å\)"),
        (
            {"labels": "_rlnOriginXAngst #9\n_rlnOriginYAngst #10", "values": "30 0"},
            rf"{N} of {N} particles have a shift beyond half the box",
        ),
    ],
)
def test_one_warning_names_the_kind_the_number_and_the_first_rows(stack, options, expected):
    _, notes = read(star(stack.parent, **options), contrast="dark")
    assert len(notes) == 1
    with pytest.warns(UserWarning, match=expected):
        ct.Particles.read(star(stack.parent, **options), contrast="dark")


def test_a_phase_plate_near_focus_is_likely(stack):
    for defocus in (-500, 0, 2000):
        path = star(stack.parent, "_rlnPhaseShift #9", "90", defocus=defocus)
        assert read(path, contrast="dark")[1] == []


def test_only_the_rows_that_are_unlikely_are_counted():
    ctf = ct.simulate.hinge(6, 16, progress=False).ctf
    low = np.where(np.arange(6) == 4, -200, ctf.defocus_v).astype(np.float32)
    assert implausible(ctf, np.zeros((6, 2)), 80) == []
    (text,) = implausible(replace(ctf, defocus_v=low), np.zeros((6, 2)), 80)
    assert text.startswith("1 of 6 particles have a defocus of 0 or below without a phase shift: 5 (-200 Å). ")


def test_arrays_are_checked_when_a_model_is_fitted():
    base = ct.simulate.hinge(20, 16, progress=False)
    far = ct.Particles(
        base.images(slice(None)), base.rotations, base.shifts + 1e3, base.ctf, pixel_size=base.pixel_size
    )
    with pytest.warns(UserWarning, match="20 of 20 particles have a shift beyond half the box"):
        ct.fit(ct.CryoTwin(16, latent_dim=2, n_components=2), far, ct.TrainingConfig(epochs=1), progress=False)


def test_a_defocus_in_micrometres_is_refused_with_its_row():
    values = {field: np.full(4, 1.0) for field in CTF.__dataclass_fields__} | {"voltage": np.full(4, 300.0)}
    values["defocus_v"] = np.array([1, 2.5, 1, 1])
    with pytest.raises(ct.InputError, match=r"all defocus values are below 10 Å, the largest 2\.5 for particle 2"):
        make_ctf("p.star", **values)
