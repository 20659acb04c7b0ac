"""Selections made on prepared, filtered and re-sorted files: the particles that were selected, or a refusal."""

from __future__ import annotations

import pickle
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib import recfunctions

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.exchange.cryodrgn_run import CryodrgnRun
from cryotwin_nb.formats.cryodrgn import read_indices
from cryotwin_nb.formats.fingerprints import fingerprints
from cryotwin_nb.formats.origins import load, record_of

N, BOX = 60, 16
KEPT = np.sort(np.random.default_rng(5).permutation(N)[:40])
STATE = ["--state", "S1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with original.star, 40 of its 60 particles prepared, and a model and latents of these."""
    folder = tmp_path_factory.mktemp("origins")
    simulated = ct.simulate.hinge(N, BOX, progress=False)
    simulated.write(folder / "original.star", progress=False)
    head, rows, tail = star(folder / "original.star")
    order = np.random.default_rng(1).permutation(N)
    head[-1:] = [head[-1], f"_rlnMicrographName #{len(rows[0].split()) + 1}"]
    rows = [f"{row} mic{order[i] // 7:02d}.mrc" for i, row in enumerate(rows)]
    save(folder / "original.star", head, rows, tail)
    with open(folder / "kept.pkl", "wb") as file:
        pickle.dump(KEPT, file)
    prepared = ["prepare", f"{folder / 'original.star'}", "--indices", f"{folder / 'kept.pkl'}", "--contrast", "dark"]
    assert main([*prepared, "--box-size", "16", "--output", f"{folder / 'prepared/p.star'}"]) == 0
    train = ["train", f"{folder / 'prepared/p.star'}", "--output", f"{folder / 'run'}", "--latent-dim", "2"]
    assert main([*train, "--n-components", "3", "--epochs", "1", "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "moved")


def star(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the lines before, of and after the rows of particles."""
    lines = path.read_text().rstrip("\n").split("\n")
    at = [number for number, line in enumerate(lines) if "@" in line]
    return lines[: at[0]], lines[at[0] : at[-1] + 1], lines[at[-1] + 1 :]


def save(path: Path, head: list[str], rows: list[str], tail: list[str]) -> Path:
    path.write_text("\n".join([*head, *rows, *tail]) + "\n")
    return path


def names(path: Path) -> list[str]:
    return sorted(re.findall(r"\d+@\S+", path.read_text()))


def select(folder: Path, particles: Path, output: Path, *more: str) -> int:
    model, latents = folder / "run/model.safetensors", folder / "run/latents.npy"
    arguments = [
        "select",
        f"{model}",
        f"{particles}",
        "--latents",
        f"{latents}",
        "--output",
        f"{output}",
        "--overwrite",
    ]
    return main([*arguments, *STATE, *more])


def selected(folder: Path) -> list[str]:
    """Return the image names of the selected particles, found without the code under test."""
    model = ct.CryoTwin.load(folder / "run/model.safetensors")
    rows = ct.select_state(np.load(folder / "run/latents.npy"), model.prior, ct.find_states(model.prior)[0])
    original = star(folder / "original.star")[1]
    return sorted(re.search(r"\d+@\S+", original[KEPT[row]])[0] for row in rows)


def micrograph(row: str) -> str:
    return row.split()[-1]


def swapped(rows: list[str]) -> list[str]:
    """Exchange the two particles kept first."""
    first, second = KEPT[:2]
    rows = list(rows)
    rows[first], rows[second] = rows[second], rows[first]
    return rows


def turned(rows: list[str], degrees: float, angle: int = 1) -> list[str]:
    return [
        " ".join([*(w := row.split())[:angle], f"{float(w[angle]) + degrees:.6f}", *w[angle + 1 :]]) for row in rows
    ]


others = sorted(set(range(N)) - set(KEPT.tolist()))
RIGHT = {
    "unchanged": lambda rows: rows,
    "more particles at the end": lambda rows: [*rows, *turned(rows[:7], 30)],
    "symmetry-expanded, copies at the end": lambda rows: [*rows, *turned(rows, 120), *turned(rows, 240)],
    "one more column": lambda rows: [f"{row} 1.5" for row in rows],
    "fewer digits": lambda rows: [re.sub(r"(\.\d{4})\d+", r"\1", row) for row in rows],
    "last particle removed": lambda rows: rows[: KEPT[-1] + 1],
}
WRONG = {
    "sorted by micrograph": lambda rows: sorted(rows, key=micrograph),
    "sorted by defocus": lambda rows: sorted(rows, key=lambda row: float(row.split()[6])),
    "reversed": lambda rows: rows[::-1],
    "shuffled": lambda rows: [rows[i] for i in np.random.default_rng(7).permutation(N)],
    "two rows exchanged": swapped,
    "first particle removed": lambda rows: rows[1:],
    "another filter": lambda rows: rows[::2],
    "another filter of the same length": lambda rows: [rows[i] for i in sorted(others + KEPT[20:].tolist())],
    "filtered and sorted": lambda rows: sorted([rows[i] for i in KEPT], key=micrograph),
    "one image listed instead of another": lambda rows: [
        rows[KEPT[3]] if i == KEPT[4] else r for i, r in enumerate(rows)
    ],
    "symmetry-expanded, copies together": lambda rows: [
        c for r in rows for c in (r, *turned([r], 120), *turned([r], 240))
    ],
    "refined again": lambda rows: turned(rows, 5),
    "symmetry-expanded, one copy of each chosen": lambda rows: turned(rows, 120),
    "joined before another set": lambda rows: [*[r.replace("@original", "@elsewhere") for r in rows], *rows],
}


@pytest.mark.filterwarnings("ignore:.*Copies stay in one half-set")
@pytest.mark.parametrize("suffix", [".star", ".pkl"])
@pytest.mark.parametrize("name", [*RIGHT, *WRONG])
@pytest.mark.parametrize("place", ["elsewhere", "in place"])
def test_another_order_of_the_original_is_refused_and_another_form_is_not(folder, name, suffix, place, capsys):
    head, rows, tail = star(folder / "original.star")
    wanted = selected(folder)
    if name == "one more column":
        head.append("_rlnAutopickFigureOfMerit #99")
    shutil.copy(folder / "original.mrcs", folder / "elsewhere.mrcs")
    changed = save(
        folder / ("other.star" if place == "elsewhere" else "original.star"), head, (RIGHT | WRONG)[name](rows), tail
    )
    given = changed if place == "elsewhere" else folder / "prepared/p.star"
    output = folder / f"selected{suffix}"
    code = select(folder, given, output)
    if name in WRONG:
        assert code != 0 and not output.exists()
        assert re.search("do not belong to the rows of|was sorted, filtered or replaced", capsys.readouterr().err)
        return
    assert code == 0
    listed = (
        names(output) if suffix == ".star" else sorted(star(changed)[1][i].split()[0] for i in read_indices(output))
    )
    assert [name.partition("@")[0] for name in listed] == [name.partition("@")[0] for name in wanted]


def test_the_original_is_found_by_itself_and_indices_are_composed(folder, capsys):
    wanted = selected(folder)
    for particles, *more in (
        [folder / "prepared/p.star"],
        [folder / "original.star"],
        [folder / "original.star", "--indices", f"{folder / 'kept.pkl'}"],
    ):
        assert select(folder, particles, folder / "s.star", *more) == 0
        assert names(folder / "s.star") == wanted
        assert select(folder, particles, folder / "s.pkl", *more) == 0
        assert f"rows of {folder / 'original.star'}" in capsys.readouterr().out
    again = ct.Particles.read(folder / "original.star", indices=folder / "s.pkl", images=False)
    np.testing.assert_array_equal(again.source_rows, read_indices(folder / "s.pkl"))
    composed = ct.Particles.read(folder / "prepared/p.star", indices=folder / "s.pkl", images=False)
    np.testing.assert_array_equal(KEPT[composed.source_rows], again.source_rows)
    assert select(folder, folder / "prepared/p.star", folder / "own.pkl", "--no-original") == 0
    np.testing.assert_array_equal(read_indices(folder / "own.pkl"), composed.source_rows)
    ct.write_selection(folder / "third.pkl", ct.Particles.read(folder / "s.star", images=False), [2])
    np.testing.assert_array_equal(read_indices(folder / "third.pkl"), again.source_rows[[2]])


def test_a_selection_is_not_used_for_rows_of_another_file(folder):
    assert select(folder, folder / "prepared/p.star", folder / "s.pkl") == 0
    head, rows, tail = star(folder / "original.star")
    other = save(folder / "other.star", head, rows[::-1], tail)
    with pytest.raises(InputError, match=r"lists rows of .*original\.star, which are not all in"):
        ct.Particles.read(other, indices=folder / "s.pkl", images=False)
    with open(folder / "s.pkl", "wb") as file:
        pickle.dump(np.array([3, 1]), file)  # another program has written a file of this name
    assert ct.Particles.read(other, indices=folder / "s.pkl", images=False).source_rows.tolist() == [3, 1]


def test_a_prepared_file_that_was_sorted_is_refused(folder):
    head, rows, tail = star(folder / "prepared/p.star")
    save(folder / "prepared/p.star", head, rows[::-1], tail)
    with pytest.raises(InputError, match="was changed since it was written"):  # compared with the stack
        ct.Particles.read(folder / "prepared/p.star", images=False)
    (folder / "prepared/p.truth.npz").unlink()
    particles = ct.Particles.read(folder / "prepared/p.star", images=False)
    with pytest.raises(InputError, match="was changed since it was written"):  # compared with the record
        ct.write_selection(folder / "s.star", particles, [0])


def test_a_missing_original_is_named(tmp_path):
    ct.simulate.hinge(12, BOX, progress=False).write(tmp_path / "original.star", progress=False)
    particles = ct.Particles.read(tmp_path / "original.star", contrast="dark")
    ct.prepare(particles, tmp_path / "p.star", progress=False)
    particles = ct.Particles.read(tmp_path / "p.star", images=False)
    (tmp_path / "original.star").unlink()
    with pytest.raises(InputError, match=r"original\.star does not exist \(expected: original particle file\)"):
        ct.write_selection(tmp_path / "s.star", particles, [0])
    assert names(ct.write_selection(tmp_path / "own.star", particles, [0], original=False)) == ["000001@p.mrcs"]


def test_a_cs_file_in_another_order_is_refused(tmp_path):
    ct.simulate.hinge(12, BOX, progress=False).write(tmp_path / "p.star", progress=False)
    blob = [("uid", "<u8"), ("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4"), ("blob/sign", "<f4")]
    table = np.zeros(12, blob)
    table["uid"], table["blob/path"], table["blob/idx"] = 2**60 + np.arange(12) ** 2, b">p.mrcs", np.arange(12)
    table["blob/psize_A"], table["blob/sign"] = 10, -1
    poses = recfunctions.repack_fields(table[["uid"]])
    with open(tmp_path / "a.cs", "wb") as file:
        np.save(file, table)
    with open(tmp_path / "b.cs", "wb") as file:
        np.save(file, poses[::-1])
    particles = ct.Particles.read([tmp_path / "a.cs", tmp_path / "b.cs"])[[7, 2, 9]]
    ct.prepare(particles, tmp_path / "q.star", whiten=False, progress=False)
    prepared = ct.Particles.read(tmp_path / "q.star")
    subset = np.load(ct.write_selection(tmp_path / "s.cs", prepared, [0, 2]))
    np.testing.assert_array_equal(subset["blob/idx"], [7, 9])
    with open(tmp_path / "a.cs", "wb") as file:
        np.save(file, table[np.argsort(table["uid"] % 7)])
    with pytest.raises(InputError, match="was sorted, filtered or replaced"):
        ct.write_selection(tmp_path / "t.cs", prepared, [0, 2])


def test_rows_of_a_filtered_cryodrgn_run(folder):
    z = np.random.default_rng(0).normal(size=(len(KEPT), 2))
    run = CryodrgnRun(folder, None, ct.GaussianMixture, None, KEPT, BOX)  # type: ignore[arg-type]
    rows = ct.select_near(z, z[3], n=5)
    full = ct.Particles.read(folder / "original.star", images=False)
    original = star(folder / "original.star")[1]
    wanted = sorted(re.search(r"\d+@\S+", original[KEPT[row]])[0] for row in rows)
    assert names(ct.write_selection(folder / "s.star", full, rows, run=run)) == wanted
    kept = ct.Particles.read(folder / "original.star", images=False, indices=KEPT)
    assert names(ct.write_selection(folder / "t.star", kept, rows, run=run)) == wanted
    for misused in (lambda: ct.write_selection(folder / "u.star", full, rows), lambda: full[rows[:2]]):
        with pytest.raises(InputError, match="rows of 40 latents, expected rows of the 60 particles"):
            misused()


def test_latents_without_a_record_are_compared_by_number_aloud(folder, capsys):
    record_of(folder / "run/latents.npy").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert select(folder, folder / "prepared/p.star", folder / "s.star") == 0
    assert "only their number was compared" in capsys.readouterr().err
    assert names(folder / "s.star") == selected(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged", None])
def test_a_damaged_record_is_named(folder, content, capsys):
    record = record_of(folder / "run/latents.npy")
    record.write_bytes(record.read_bytes()[:300] if content is None else content)
    assert select(folder, folder / "prepared/p.star", folder / "s.star") == 2
    assert re.search(r"latents\.npy\.origin\.npz cannot be read", capsys.readouterr().err)


def test_a_record_with_numbers_of_another_type_is_refused(folder, tmp_path):
    record = record_of(folder / "prepared/p.star")
    arrays = dict(np.load(record))
    for name in ("rows_0", "fingerprint_0", "total_1"):
        np.savez(tmp_path / "r.npz", **arrays | {name: np.full(arrays[name].shape, 2.0**63)})
        with pytest.raises(InputError, match=r"r\.npz cannot be read: unexpected"):
            load(tmp_path / "r.npz", tmp_path)


def test_fingerprints_are_the_same_in_all_versions(tmp_path):
    """Records are kept: the hash must not change with pandas or between processes."""
    text = "data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n"
    (tmp_path / "p.star").write_text(f"{text}1@a.mrcs 10.5 20 -30\n2@b.mrcs 0 -0 1e1\n")
    assert fingerprints(tmp_path / "p.star").tolist() == [10844856452380169991, 2516004037361585967]


def test_fingerprints_of_integers_and_of_equal_decimals_are_the_same(tmp_path):
    """For values beyond int64, too, without a warning from NumPy."""
    text = "data_\nloop_\n_rlnImageName\n_rlnAngleRot\n"
    for name, angle in {"whole": "30", "decimal": "30.000", "huge": "9" * 18, "inexact": "9" * 18 + ".0"}.items():
        (tmp_path / f"{name}.star").write_text(f"{text}1@a.mrcs {angle}\n")
    whole, decimal, huge, inexact = (
        fingerprints(tmp_path / f"{name}.star").tolist() for name in ("whole", "decimal", "huge", "inexact")
    )
    assert whole == decimal
    assert huge == inexact != whole


# ------------------------------------------------------------------------------------- labels that came with the file


def test_columns_of_the_file_follow_the_particles(folder):
    particles = ct.Particles.read(folder / "original.star", indices=KEPT, images=False)[[5, 2, 9]]
    original = star(folder / "original.star")[1]
    table = particles.columns
    assert table["rlnMicrographName"].tolist() == [micrograph(original[KEPT[row]]) for row in (5, 2, 9)]
    assert table["rlnVoltage"].tolist() == [300.0] * 3  # of the optics group
    same = particles[table["rlnMicrographName"] == table["rlnMicrographName"][0]]
    assert (same.columns["rlnMicrographName"] == table["rlnMicrographName"][0]).all()
    in_memory = ct.simulate.hinge(4, BOX, progress=False)
    assert in_memory.columns.shape == (4, 0)


def test_fields_of_a_cs_file_are_columns(tmp_path):
    ct.simulate.hinge(6, BOX, progress=False).write(tmp_path / "p.star", progress=False)
    fields = [("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4"), ("alignments_class_0/class", "<u4")]
    table = np.zeros(
        6, [*fields, ("location/center", "<f4", (2,)), ("location/micrograph_path", "S9"), ("duration", "<m8")]
    )
    table["blob/path"], table["blob/idx"], table["blob/psize_A"] = b">p.mrcs", np.arange(6), 10
    table["alignments_class_0/class"], table["location/micrograph_path"] = [0, 1, 2, 0, 1, 2], b"m.mrc"
    table["location/center"] = np.arange(12).reshape(6, 2)
    with open(tmp_path / "p.cs", "wb") as file:
        np.save(file, table)
    columns = ct.Particles.read(tmp_path / "p.cs", images=False, indices=[4, 2]).columns
    assert columns["alignments_class_0/class"].tolist() == [1, 2]
    assert columns["location/center/1"].tolist() == [9, 5]
    assert columns["location/micrograph_path"].tolist() == ["m.mrc", "m.mrc"]
    assert "duration" not in columns  # a time without a unit is no column of a table


def test_states_are_compared_with_the_classes_of_another_program():
    means = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    prior = ct.GaussianMixture([0.5, 0.3, 0.2], means, torch.eye(2).expand(3, 2, 2))
    owner = np.repeat([0, 1, 2], [50, 30, 20])
    z = means[torch.as_tensor(owner)] + 0.1 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    classes = np.array([2, 10, 1])[owner]
    classes[0] = 10
    counts, rows, columns = ct.evaluation.confusion(prior, z, ct.find_states(prior), classes)
    assert (rows, columns) == (["1", "2", "10"], ["S1", "S2", "S3"])
    assert counts.tolist() == [[0, 0, 20], [49, 0, 0], [1, 30, 0]]
    for missing in (np.where(owner == 2, np.nan, classes), np.where(owner == 2, None, "A")):
        with pytest.raises(InputError, match="20 missing labels"):
            ct.evaluation.confusion(prior, z, ct.find_states(prior), missing)
