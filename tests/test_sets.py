"""Files of one output change together: all of the former ones are read, or all of the new ones, wherever it stopped."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from outputs_of_calls import an_explorer, cases, make, path_in, pathway, small_pictures
from stopping import after_stops, steps

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.folders import claim_new
from cryotwin_nb.formats import journals
from cryotwin_nb.formats.files import atomic, require_file, require_writable
from cryotwin_nb.formats.journals import JOURNALS
from cryotwin_nb.formats.sets import file_set, remove_file

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("a.txt", "b.txt", "c.txt")


def put(folder: Path, word: str, *names: str) -> None:
    """Write files as one output, and remove those of `NAMES` that it does not have."""
    with file_set(folder):
        for name in names:
            with atomic(folder / name) as partial:
                partial.write_text(f"{word} {name}")
        for name in set(NAMES) - set(names):
            remove_file(folder / name)


def found(folder: Path) -> list[str | None]:
    """Read all files; None for missing ones."""
    return [read(folder / name) for name in NAMES]


def read(path: Path) -> str | None:
    try:
        return require_file(path).read_text()
    except InputError as error:
        if "does not exist" not in f"{error}":
            raise
        return None


@pytest.fixture
def former(tmp_path) -> Path:
    (tmp_path / "former").mkdir()
    put(tmp_path / "former", "old", "a.txt", "b.txt")
    return tmp_path / "former"


@pytest.mark.parametrize("first", NAMES)
def test_after_each_stop_all_files_are_old_or_new(former, tmp_path, first):
    """Whichever file is read first, also one that only one of the outputs has."""

    def state(folder: Path) -> list:
        return [read(folder / first), *found(folder)]

    stops = range(NAMES.index(first), 60, 2 if first == "b.txt" else 6)
    counts = after_stops(lambda f: put(f, "new", "a.txt", "c.txt"), state, former, tmp_path / "work", stops, again=True)
    assert counts["old"] and counts["new"] > 2
    assert not counts["mixed"] and not counts["refused"] and not counts["again"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, one_thread) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make(folder)
    return folder


QUICK = ["prepare", "Particles.write over a stack with a truth", "write_selection, .star", "write_states"]
QUICK += ["write_pathway", "train"]


@pytest.mark.filterwarnings("ignore:.*found relative to")
@pytest.mark.parametrize("call", QUICK)
def test_a_stopped_call_leaves_the_former_output_or_the_new_one(inputs, tmp_path, call):
    """A few stops, most of them while files are renamed; benchmarks/stops.py has all of them, and all calls."""
    case, before = cases(inputs)[call], tmp_path / "former"
    before.mkdir()
    case.former(before)
    last = 2 * steps(case.call, before, tmp_path / "work")
    stops = [last // 3, *range(last - 13, last, 3)]
    counts = after_stops(case.call, case.state, before, tmp_path / "work", stops)
    assert counts["old"] and counts["new"] and counts["old"] + counts["new"] == len(stops)


@pytest.fixture
def stopped(former) -> Path:
    """A folder in which writing stopped when the journal was complete, and nothing was renamed."""
    stop = mock.patch("cryotwin_nb.formats.sets.complete", side_effect=KeyboardInterrupt)
    with stop, pytest.raises(KeyboardInterrupt):
        put(former, "new", "a.txt", "c.txt")
    assert (former / "a.txt").read_text() == "old a.txt" and (former / JOURNALS).is_dir()
    return former


NEW = ["new a.txt", None, "new c.txt"]
OLD = ["old a.txt", "old b.txt", None]


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("settle", [lambda f: require_file(f / "a.txt"), require_writable, lambda f: put(f, "x")])
def test_readers_and_writers_complete_an_output(stopped, settle):
    settle(stopped)
    assert visible(stopped) <= {"a.txt", "c.txt"}  # the last of these removes all files
    assert settle is not require_writable or found(stopped) == NEW


def test_a_list_in_another_folder_gets_the_new_stack(tmp_path):
    """The STAR file is not in the folder in which writing stopped."""
    folder, lists = tmp_path / "stacks", tmp_path / "lists"
    folder.mkdir(), lists.mkdir()
    former, new = (ct.simulate.hinge(20, 16, seed=seed, progress=False) for seed in (0, 1))
    former.write(folder / "p.star", progress=False)
    text = (folder / "p.star").read_text().replace("@p.mrcs", "@../stacks/p.mrcs")
    (lists / "p.star").write_text(re.sub(r"mrc:\w+", "none", text))
    stop = mock.patch("cryotwin_nb.formats.sets.complete", side_effect=KeyboardInterrupt)
    with stop, pytest.raises(KeyboardInterrupt):
        new.write(folder / "p.star", progress=False)
    found = ct.Particles.read(lists / "p.star", contrast="dark").images(slice(None))
    assert np.array_equal(found, new.images(slice(None)))


def test_where_an_output_cannot_be_completed_it_is_refused_in_one_sentence(stopped, monkeypatch):
    """Root can write everywhere, so the file system's answer is replaced."""

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    (stopped / "own.txt").write_text("mine")
    monkeypatch.setattr("os.replace", read_only)
    for name in NAMES:
        with pytest.raises(InputError, match=f"wrote .*{name} was stopped while .*\nRepeat this command as a user who"):
            require_file(stopped / name)
    assert require_file(stopped / "own.txt").read_text() == "mine"
    require_writable(stopped)  # keeps the hidden files
    monkeypatch.undo()
    assert found(stopped) == NEW


def test_a_file_that_was_changed_since_is_refused_until_the_output_is_written_again(stopped):
    next(stopped.glob(".c.*")).write_text("other")
    for name in NAMES:
        with pytest.raises(InputError, match=r"c\.txt is missing or was changed since"):
            require_file(stopped / name)
    assert (stopped / "a.txt").read_text() == "old a.txt"  # nothing was renamed
    put(stopped, "newer", "a.txt", "b.txt")
    assert found(stopped) == ["newer a.txt", "newer b.txt", None] and visible(stopped) & {*NAMES} == {"a.txt", "b.txt"}


def test_of_several_processes_that_complete_an_output_none_fails(stopped, monkeypatch):
    def other_first(source, target, plain=os.replace):
        monkeypatch.setattr("os.replace", plain)
        assert found(stopped) == NEW
        plain(source, target)

    monkeypatch.setattr("os.replace", other_first)
    assert found(stopped) == NEW and visible(stopped) == {"a.txt", "c.txt"}


@pytest.mark.parametrize("text", ["", "[", "{}", '{"renamed": [["a", "b"]], "removed": []}', "[" * 10**5, "\xff"])
def test_damaged_journals_do_no_harm(former, text):
    (former / JOURNALS).mkdir()
    (former / JOURNALS / "x.json").write_text(text, encoding="latin-1")
    assert found(former) == OLD
    put(former, "new", "a.txt", "c.txt")
    assert found(former) == NEW


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "..", "", "a\0", "former/../../outside.txt"])
def test_a_journal_reaches_no_other_folder(former, name):
    outside = former.parent / "outside.txt"
    outside.write_text("mine")
    (former / JOURNALS).mkdir()
    mark = journals._mark(outside)
    for plan in ({"renamed": [["a.txt", name, journals._mark(former / "a.txt")]], "removed": []},) * 2 + (
        {"renamed": [], "removed": [[name, mark]]},
    ):
        (former / JOURNALS / "x.json").write_text(json.dumps(plan))
        assert found(former) == OLD and outside.read_text() == "mine"


def test_a_failure_leaves_the_former_files_and_nothing_hidden(former):
    with pytest.raises(RuntimeError), file_set(former):
        put(former, "new", "a.txt", "c.txt")  # belongs to the outer set
        assert (former / "a.txt").read_text() == "old a.txt"
        raise RuntimeError
    assert found(former) == OLD and visible(former) == {"a.txt", "b.txt"}


def test_files_in_other_folders_do_not_belong_to_a_set(former, tmp_path):
    with file_set(former), atomic(tmp_path / "z.txt") as partial:
        partial.write_text("z")
    assert (tmp_path / "z.txt").read_text() == "z" and found(former) == OLD


@pytest.mark.parametrize("name", ["map_000.mrc", "difference_001.mrc", "latents.npy", "path.json", "pathway.cxc"])
def test_a_file_of_the_users_own_is_not_replaced_by_a_pathway(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} would be replaced, but path.json does not list it"):
        pathway(tmp_path, 2, 0.0)
    assert visible(tmp_path) == {name} and (tmp_path / name).read_text() == "mine"


@pytest.mark.filterwarnings("ignore:.*no record of the particles", "ignore:.*found relative to")
def test_latents_of_another_pathway_are_refused(inputs, tmp_path, capsys):
    for name, shift in (("one", 0.0), ("other", 1.0)):
        pathway(tmp_path / name, 2, shift)
    shutil.copy(tmp_path / "other/latents.npy", tmp_path / "one/latents.npy")
    selected = ["select", f"{inputs / 'model.safetensors'}", f"{inputs / 'raw.star'}", "--contrast", "dark"]
    np.save(inputs / "z.npy", torch.zeros(100, 2))
    selected += ["--latents", f"{inputs / 'z.npy'}", "--n", "5", "--output", f"{tmp_path / 's.star'}", "--near"]
    assert main([*selected, f"{tmp_path / 'one/latents.npy'}"]) == 2
    assert "does not belong to the pathway in" in capsys.readouterr().err
    with pytest.raises(InputError, match="does not belong to the pathway in"):
        path_in(tmp_path / "one")
    assert main([*selected, f"{tmp_path / 'other/latents.npy'}"]) == 0


def test_no_second_stack_remains(tmp_path):
    for seed in (0, 1):
        ct.prepare(ct.simulate.hinge(20, 16, seed=seed, progress=False), tmp_path / "p.star", progress=False)
    assert visible(tmp_path) == {"p.star", "p.mrcs", "p.whitening.npz", "p.truth.npz"}


@pytest.mark.parametrize("name", ["pathway.gif", "pathway.png", "explorer.json", "map_001.mrc"])
def test_a_file_of_the_users_own_is_not_replaced_by_an_export(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} would be replaced, but .* does not list it"):
        an_explorer(2).export(tmp_path, movie=True)
    assert visible(tmp_path) == {name} and (tmp_path / name).read_text() == "mine"


def test_each_explorer_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, other = an_explorer(2), an_explorer(3)
    with small_pictures():
        for explorer, name in ((first, "pathway"), (other, "pathway_2"), (first, "pathway")):
            message = {"do": "export", "version": explorer.session.version, "look": {}, "folder": ""}
            explorer._handle_custom_msg(message, [])
            explorer.jobs.wait()
            assert claim_new(explorer) == Path(name)
    assert [len(list(Path(name).glob("map_*"))) for name in ("pathway", "pathway_2")] == [3, 4]
    with pytest.raises(InputError, match="Another explorer of this session writes to pathway"):
        other.export("pathway")
    assert visible(tmp_path) == {"pathway", "pathway_2"}


@pytest.mark.filterwarnings("ignore:.*found relative to")
def test_of_states_only_files_that_are_listed_are_replaced_or_deleted(inputs, tmp_path):
    case = cases(inputs)["write_states"]
    (tmp_path / "S2.star").write_text("mine")
    with pytest.raises(InputError, match=r"S2\.star would be replaced, but states\.json does not list it"):
        case.former(tmp_path)
    assert visible(tmp_path) == {"S2.star"}
    (tmp_path / "S2.star").rename(tmp_path / "S9.star")
    case.former(tmp_path)
    ct.write_selection(tmp_path / "own.star", ct.Particles.read(inputs / "raw.star", contrast="dark"), [3])
    case.call(tmp_path)
    ours = {f"{name}.star{end}" for name in ("S1", "states", "own") for end in ("", ".origin.npz")}
    assert visible(tmp_path) == {*ours, "states.json", "S9.star"}
    (tmp_path / "states.json").unlink()  # as in earlier builds, which wrote no list
    case.former(tmp_path)
    assert visible(tmp_path) == {*ours, "S2.star", "S2.star.origin.npz", "states.json", "S9.star"}
    assert (tmp_path / "S9.star").read_text() == "mine"
