"""Named data sets, against a local web server that supports ranges, drops connections and sends wrong data."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import cryotwin_nb as ct
from cryotwin_nb import data
from cryotwin_nb.data import transfer
from cryotwin_nb.errors import InputError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every path; `ranges` turns range support off, `cut` is the number of bytes before a drop."""

    ranges = True
    cut: int | None = None
    endless = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    def handle_error(self, request, client_address):
        """Ignore errors: clients that disconnect are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.path == "/missing":
            return self.send_error(404)
        if self.server.endless:
            self.send_response(200)
            self.end_headers()
            for _ in range(200):  # 51 MB, unless the client disconnects
                self.wfile.write(CONTENT)
            return None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def manifest(server, tmp_path):
    """Return a function that writes a manifest of one downloaded data set, ``toy``, and returns its path."""

    def write(**changes) -> Path:
        address = f"http://127.0.0.1:{server.server_port}/stack.mrcs"
        file = {"name": "stack.mrcs", "url": address, "sha256": SHA256, "size": len(CONTENT)} | changes
        entry = {"description": "A toy.", "licence": "CC0-1.0", "files": [file], "reader": {"path": "stack.mrcs"}}
        path = tmp_path / "manifest.yaml"
        path.write_text(yaml.safe_dump({"datasets": {"toy": entry}}))
        return path

    return write


def download(manifest: Path, tmp_path: Path) -> Path:
    return data.download("toy", tmp_path / "cache", progress=False, manifest=manifest)["stack.mrcs"]


def test_download_gives_the_file_and_asks_only_once(manifest, server, tmp_path):
    path = download(manifest(), tmp_path)
    assert path.read_bytes() == CONTENT
    assert download(manifest(), tmp_path) == path
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["stack.mrcs"]


def test_what_is_missing_is_told_until_it_is_there(manifest, tmp_path):
    path = manifest()
    files, folder = data.missing("toy", tmp_path / "data", path)
    assert [file.name for file in files] == ["stack.mrcs"] and folder == tmp_path / "data"
    assert not folder.exists()  # asking creates nothing
    data.download("toy", folder, progress=False, manifest=path)
    assert data.missing("toy", folder, path) == ((), folder)
    assert data.missing("assembly")[0] == ()


def test_wrong_checksum_is_refused_and_nothing_is_left(manifest, tmp_path):
    with pytest.raises(InputError, match=rf"stack\.mrcs: found sha256 {SHA256}, expected sha256 {'0' * 64}"):
        download(manifest(sha256="0" * 64), tmp_path)
    assert not list((tmp_path / "cache").iterdir())


def test_wrong_size_is_refused(manifest, tmp_path):
    with pytest.raises(InputError, match=r"found 256000 bytes, expected 7 bytes"):
        download(manifest(size=7), tmp_path)


def test_a_file_that_was_there_is_never_replaced(manifest, server, tmp_path):
    mine = tmp_path / "cache" / "stack.mrcs"
    mine.parent.mkdir()
    mine.write_bytes(b"mine" * 64000)
    with pytest.raises(InputError, match="left untouched"):
        download(manifest(), tmp_path)
    assert mine.read_bytes() == b"mine" * 64000
    assert server.asked == []


def test_unverified_file_warns_once_with_what_was_found(manifest, tmp_path):
    with pytest.warns(UserWarning, match=SHA256):
        download(manifest(sha256="unverified", size=None), tmp_path)
    download(manifest(sha256="unverified", size=None), tmp_path)  # warnings are errors here


def test_interrupted_download_is_continued(manifest, server, tmp_path):
    server.cut = 100_000
    with pytest.raises(InputError, match="call again"):
        download(manifest(), tmp_path)
    part = tmp_path / "cache" / "stack.mrcs.part"
    assert [p.name for p in part.parent.iterdir()] == [part.name]
    size = part.stat().st_size
    assert 0 < size <= 100_000
    assert part.read_bytes() == CONTENT[:size]

    server.cut = None
    assert download(manifest(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={size}-"]
    assert not part.exists()


@pytest.mark.parametrize(
    ("there", "ranges"),
    [
        pytest.param(CONTENT[:5000], False, id="server without ranges sends all of it"),
        pytest.param(CONTENT, True, id="everything had arrived, only the name was missing"),
    ],
)
def test_what_had_arrived_is_not_written_twice(manifest, server, tmp_path, there, ranges):
    server.ranges = ranges
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "stack.mrcs.part").write_bytes(there)
    assert download(manifest(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(there)}-"]


def test_a_part_of_another_file_does_not_block_the_next_attempt(manifest, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "stack.mrcs.part").write_bytes(CONTENT + b"more")
    with pytest.raises(InputError, match="416"):
        download(manifest(), tmp_path)
    assert download(manifest(), tmp_path).read_bytes() == CONTENT


def test_missing_on_the_server_and_offline(manifest, server, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for url, found in {
        f"http://127.0.0.1:{server.server_port}/missing": "404",
        f"http://127.0.0.1:{port}/stack.mrcs": "Connection",
    }.items():
        with pytest.raises(
            InputError, match=f"(?s){re.escape(url)} could not be downloaded completely: .*{found}(.|\n)*by other means"
        ):
            download(manifest(url=url), tmp_path)
    assert not list((tmp_path / "cache").iterdir())


def test_folder_that_cannot_be_made(manifest, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cache cannot be created"):
        download(manifest(), tmp_path)


def test_progress_bar_goes_to_standard_error(manifest, tmp_path, capsys):
    data.download("toy", tmp_path / "cache", manifest=manifest())
    captured = capsys.readouterr()
    assert "256k" in captured.err
    assert captured.out == ""


def test_files_go_to_the_folder_of_the_environment_variable(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOTWIN_DATA", str(tmp_path / "shared"))
    path = data.download("toy", progress=False, manifest=manifest())["stack.mrcs"]
    assert path == tmp_path / "shared" / "toy" / "stack.mrcs"


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="found 'asembly', expected one of assembly, "):
        data.fetch("asembly")


def test_fetch_reads_downloaded_files_with_the_arguments_of_the_manifest(manifest, tmp_path, monkeypatch):
    @functools.wraps(ct.Particles.read)
    def read(**arguments):
        return arguments

    monkeypatch.setattr(ct.Particles, "read", read)
    path = manifest()
    content = yaml.safe_load(path.read_text())
    content["datasets"]["toy"]["reader"] |= {"datadir": ".", "contrast": "auto"}
    path.write_text(yaml.safe_dump(content))
    folder = tmp_path / "cache"
    arguments = data.fetch("toy", folder, progress=False, manifest=path)
    assert arguments == {"path": folder / "stack.mrcs", "datadir": folder, "contrast": "auto"}


def test_fetch_makes_embedded_sets_with_the_arguments_of_the_manifest(monkeypatch):
    simulate = pytest.importorskip("cryotwin_nb.simulate", exc_type=ImportError)
    truth = SimpleNamespace(labels=["B"], coordinates=np.zeros((1, 5)))
    monkeypatch.setattr(simulate, "assembly", lambda **given: SimpleNamespace(given=given, truth=truth))
    monkeypatch.setattr("cryotwin_nb.data.fetching.datasets", lambda _: {"toy": toy})
    toy = data.Dataset("toy", "A toy.", "CC0-1.0", generator="assembly", arguments={"seed": 3})
    assert data.fetch("toy", progress=False).given == {"seed": 3, "progress": False}
    toy = data.Dataset("toy", "A toy.", "CC0-1.0", generator="assembly", truth_sha256="0" * 64)
    with pytest.warns(UserWarning, match="ground truth is not the one"):
        data.fetch("toy")


def test_fetch_of_a_set_without_particles_points_to_its_page():
    with pytest.raises(InputError, match=r"zenodo\.4355284"):
        data.fetch("cryodrgn-models")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("datasets: {a: !!python/object/apply:os.system [exit]}", "python/object"),
        ("datasets: [", "expected the node content"),
        ("- a", "no data sets"),
        ("datasets: {a: 3}", "keys"),
        ("datasets: {a: {description: d}}", "keys"),
        ("datasets: {a: {description: d, licence: l, extra: 1}}", "extra"),
        ("datasets: {a: {description: d, licence: l, files: 3}}", "files 3"),
        ("datasets: {a: {description: d, licence: l, files: [3]}}", "keys"),
        ("datasets: {a: {description: d, licence: l, reader: x}}", "'x'"),
        ("datasets: {a: {description: d, licence: l, generator: random_rotations}}", "random_rotations"),
        ("datasets: {a: {description: d, licence: l, files: [{name: ../b, url: http://c, sha256: unverified}]}}", "b"),
        ("datasets: {a: {description: d, licence: l, files: [{name: b, url: file:///c, sha256: unverified}]}}", "file"),
        ("datasets: {a: {description: d, licence: l, files: [{name: b, url: http://c, sha256: 12}]}}", "sha256 12"),
        ("datasets: {a: {description: d, licence: l, files: [{name: b, url: http://c, sha256: '', size: 1}]}}", "''"),
        ("datasets: {a: {description: d, licence: l, files: [{name: b, url: http://c}]}}", "keys ['name', 'url']"),
    ],
)
def test_malformed_manifest_is_refused(tmp_path, text, found):
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"(?s)manifest\.yaml.*{re.escape(found)}.*Correct the manifest"):
        data.datasets(path)


def test_missing_manifest_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        data.datasets(tmp_path / "manifest.yaml")


def test_the_projects_manifest():
    known = data.datasets()
    assert {"assembly", "assembly-small", "hinge", "hinge-small", "empiar-10076", "cryodrgn-models"} <= set(known)
    empiar = known["empiar-10076"]
    names = {file.name for file in empiar.files}
    assert {empiar.reader[key] for key in ("path", "poses", "ctf", "indices")} <= names
    assert empiar.doi == "10.6019/EMPIAR-10076"
    (selection,) = (file for file in empiar.files if file.name == empiar.reader["indices"])
    assert (selection.size, selection.sha256[:8]) == (698_777, "d4a70f79")


def test_truth_hash_sees_labels_and_coordinates_and_no_rounding_noise():
    truth = SimpleNamespace(labels=np.array(["B", "E5"]), coordinates=np.array([[0.0, 0.5], [1.0, 1.0]], np.float32))
    expected = data.truth_hash(truth)
    assert expected == "350ed6e248a6b8c5af1a27ee794364af589d09e54078a6513e1906353be9c917"
    assert data.truth_hash(SimpleNamespace(labels=["B", "E5"], coordinates=truth.coordinates - 1e-7)) == expected
    assert data.truth_hash(SimpleNamespace(labels=["B", "E4"], coordinates=truth.coordinates)) != expected
    assert data.truth_hash(SimpleNamespace(labels=truth.labels, coordinates=truth.coordinates + 1e-3)) != expected
    assert data.truth_hash(SimpleNamespace(labels=truth.labels, coordinates=truth.coordinates.T)) != expected


@pytest.mark.parametrize("name", [name for name, entry in data.datasets().items() if entry.generator])
def test_embedded_set_is_the_one_of_the_manifest(name):
    entry = data.datasets()[name]
    truth = getattr(ct.simulate, entry.generator)(**entry.arguments, images=False).truth
    assert data.truth_hash(truth) == entry.truth_sha256


# ------------------------------------------------------------------------------------- servers and manifests that lie


@pytest.mark.parametrize("stated", [100_000, 255_999, 0])
@pytest.mark.parametrize("declared", [True, False])
def test_a_download_ends_at_the_stated_size(manifest, server, tmp_path, stated, declared, monkeypatch):
    """An endless answer would fill the disk; the size is compared while it arrives."""
    server.endless, sizes, write = not declared, [], transfer._Bounded.write
    monkeypatch.setattr(transfer._Bounded, "write", lambda *a: sizes.append(write(*a)) or sizes[-1])
    with pytest.raises(InputError, match=rf"found (at least )?\d+ bytes, expected {stated} bytes"):
        download(manifest(size=stated), tmp_path)
    assert not list((tmp_path / "cache").iterdir())
    assert sum(sizes) <= (0 if declared else stated)


def test_a_download_of_the_stated_size_is_whole_also_after_an_interruption(manifest, server, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/stack.mrcs.part").write_bytes(CONTENT[:1000])
    assert download(manifest(), tmp_path).read_bytes() == CONTENT
    server.endless = True
    (tmp_path / "cache/stack.mrcs").rename(tmp_path / "cache/stack.mrcs.part")  # a part of the full size
    with pytest.raises(InputError, match=r"expected 255999 bytes"):
        download(manifest(size=255_999), tmp_path)


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "hard link", "pipe", "folder"])
def test_a_partial_file_that_leads_elsewhere_is_not_written_through(manifest, tmp_path, kind, server):
    (tmp_path / "cache").mkdir()
    part, mine = tmp_path / "cache/stack.mrcs.part", tmp_path / "mine.txt"
    mine.write_text("mine")
    make = {
        "symbolic link": lambda: part.symlink_to(mine),
        "dangling link": lambda: part.symlink_to(tmp_path / "new"),
        "hard link": lambda: os.link(mine, part),
        "pipe": lambda: os.mkfifo(part),
        "folder": part.mkdir,
    }
    make[kind]()
    with pytest.raises(InputError, match="a link or a special file"):
        download(manifest(), tmp_path)
    assert mine.read_text() == "mine" and not (tmp_path / "new").exists() and server.asked == []
    assert not (tmp_path / "cache/stack.mrcs").exists()


def test_a_link_that_appears_late_is_not_followed(manifest, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr("os.path.lexists", lambda _: False)  # as if it had been looked for before it appeared
    (tmp_path / "cache/stack.mrcs.part").symlink_to(tmp_path / "new")
    with pytest.raises(InputError, match="could not be downloaded"):
        download(manifest(), tmp_path)
    assert not (tmp_path / "new").exists()


def files(file: str) -> str:
    return f"files: [{{{file}}}]"


SET, FILE = "description: d, licence: l", "name: b, url: http://c, sha256: unverified"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("reader: {path: b, nonsense: 1}", "the argument 'nonsense'"),
        ("reader: {path: b, images: often}", "images 'often', expected true or false"),
        ("reader: {path: b, box_size: big}", "box_size 'big', expected an integer or null"),
        ("reader: {path: b, pixel_size: '1.3'}", "pixel_size '1.3', expected a number or null"),
        ("reader: {path: b, pixel_size: .nan}", "pixel_size nan"),
        ("reader: {path: 3}", "path 3, expected text"),
        ("reader: {path: [1, 2]}", "path [1, 2], expected text"),
        ("reader: {path: {a: b}}", "path {'a': 'b'}"),
        ("reader: {1: b}", "the argument 1"),
        ("reader: {progress: true}", "the argument 'progress'"),
        ("reader: [a]", "['a'], expected a mapping"),
        ("generator: hinge, arguments: {n_particles: many}", "n_particles 'many', expected an integer"),
        ("generator: hinge, arguments: {n_particles: 1e11}", "n_particles '1e11', expected an integer"),
        ("generator: hinge, arguments: {n_particles: 1.0e+11}", "n_particles 100000000000.0, expected an integer"),
        ("generator: hinge, arguments: {n_particles: true}", "n_particles True, expected an integer"),
        (f"generator: hinge, arguments: {{n_particles: {10**30}}}", f"n_particles {10**30}"),
        ("generator: hinge, arguments: {edge_fraction: 0.1}", "the argument 'edge_fraction'"),
        ("generator: assembly, arguments: {snr: high}", "snr 'high'"),
        ("generator: assembly, arguments: {images: true}", "the argument 'images'"),
        ("generator: [hinge]", "generator ['hinge']"),
        ("generator: {a: b}", "generator {'a': 'b'}"),
        ("arguments: {n_particles: 5}", "none without a generator"),
        ("doi: 10.5", "doi 10.5, expected text"),
        ("landing_page: [a]", "landing_page ['a']"),
        ("truth_sha256: 5", "truth_sha256 5"),
        ("truth_sha256: null", "truth_sha256 None"),
        (f"files: [{{{FILE}}}, {{{FILE}}}]", "a different name for each file"),
        ("files: 0", "files 0, expected a list"),
        (f"files: {{{FILE}}}", "a list"),
        (files(FILE + ", size: true"), "size True"),
        (files(FILE + ", size: -5"), "size -5"),
        (files(FILE + ", size: 5.5"), "size 5.5"),
        (files(FILE + ", size: '5'"), "size '5'"),
        (files(FILE + ", size: [5]"), "size [5]"),
        (files(FILE.replace('name: b', 'name: ' + 300 * 'b')), "expected a name without folders"),
        (files(FILE.replace('name: b', 'name: b.part')), "b.part"),
        (files(FILE.replace('name: b', 'name: [b]')), "file name ['b']"),
        (files(FILE.replace('name: b', 'name: 3')), "file name 3"),
        (files(FILE.replace('http://c', '7')), "url 7"),
        (files(FILE.replace('http://c', '[http://c]')), "url ['http://c']"),
        (files(FILE.replace('unverified', 64 * '1')), "sha256 1111"),
        (files(FILE.replace('unverified', 'null')), "sha256 None"),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused(tmp_path, text, found):
    path = tmp_path / "manifest.yaml"
    path.write_text(f"datasets: {{a: {{{SET}, {text}}}}}")
    with pytest.raises(InputError, match=rf"data set 'a'.*{re.escape(found)}.*\nCorrect the manifest; .*$"):
        data.datasets(path)


@pytest.mark.parametrize(
    "key", ["description: d, licence: 3", "description: [d], licence: l", "description: d, licence: null"]
)
def test_a_description_is_text(tmp_path, key):
    (tmp_path / "m.yaml").write_text(f"datasets: {{a: {{{key}}}}}")
    with pytest.raises(InputError, match="expected text"):
        data.datasets(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text(f"datasets: {{{'a' * 300}: {{{SET}}}}}")
    with pytest.raises(InputError, match="at most 200 characters"):
        data.datasets(tmp_path / "m.yaml")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [("n_particles: -5", "n_particles: found -5"), ("n_particles: 100000000000", r"100,000,000,000 images .* GiB"),
     ("seed: -1", "seed: found -1"), ("snr: -1.0", "snr: found -1.0"), ("box_size: 7", "a box of 7 pixels")],
)  # fmt: skip
def test_a_simulation_that_cannot_be_made_is_refused(tmp_path, arguments, found):
    (tmp_path / "m.yaml").write_text(f"datasets: {{a: {{{SET}, generator: hinge, arguments: {{{arguments}}}}}}}")
    with pytest.raises(InputError, match=found):
        data.fetch("a", progress=False, manifest=tmp_path / "m.yaml")
