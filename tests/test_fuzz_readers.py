"""For any file content, a reader returns a valid result or raises an `InputError`. It never crashes, executes code,
writes files, or allocates more memory than the size of the file justifies.

Set CRYOTWIN_FUZZ=20000 in the environment to run that many examples of each reader.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cryotwin_nb as ct
from cryotwin_nb import data
from cryotwin_nb.data.manifest import manifest_path
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import read_labels, write_labels
from cryotwin_nb.explorer.request import PathRequest, fingerprint
from cryotwin_nb.explorer.saving import read_note
from cryotwin_nb.formats import cryodrgn
from cryotwin_nb.formats.mrc import read_map
from cryotwin_nb.formats.mrc_writing import write_map, write_stack
from cryotwin_nb.formats.origins import Link, load
from cryotwin_nb.formats.origins import save as save_record
from cryotwin_nb.models.payload import FORMAT
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.whitening import Whitening
from cryotwin_nb.truth.truth import Truth

N, BOX = 4, 8
EXAMPLES = int(os.environ.get("CRYOTWIN_FUZZ", "40"))
fuzzing = settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=EXAMPLES)

OPTICS = """data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
_rlnImageSize #6
1 300 2.7 0.1 2.5 8
2 300 2.7 0.1 2.5 8

"""
LABELS = "rlnImageName rlnAngleRot rlnAngleTilt rlnAnglePsi rlnOriginX{} rlnOriginY{}"
LABELS += " rlnDefocusU rlnDefocusV rlnDefocusAngle"
ROW = "{}@stack.mrcs 10.5 20 -3e1 1.5 -2.5 15000 14000 45"


def star_31() -> str:
    labels = [*LABELS.format("Angst", "Angst").split(), "rlnOpticsGroup"]
    head = "".join(f"_{label} #{i}\n" for i, label in enumerate(labels, 1))
    return f"{OPTICS}data_particles\n\nloop_\n{head}" + "".join(ROW.format(i + 1) + f" {1 + i % 2}\n" for i in range(N))


def star_30() -> str:
    labels = [*LABELS.format("", "").split(), "rlnVoltage", "rlnSphericalAberration", "rlnDetectorPixelSize"]
    head = "".join(f"_{label}\n" for label in [*labels, "rlnMagnification"])
    return f"data_\nloop_\n{head}" + "".join(ROW.format(i + 1) + " 300 2.7 5 20000\n" for i in range(N))


def cs_table() -> np.ndarray:
    numbers = {"blob/psize_A": 2.5, "ctf/accel_kv": 300, "ctf/cs_mm": 2.7, "ctf/df1_A": 1e4, "ctf/df2_A": 1e4}
    fields: list[tuple] = [("blob/path", "S12"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,))]
    fields += [("alignments3D/pose", "<f4", (3,)), ("alignments3D/shift", "<f4", (2,)), ("ctf/exp_group_id", "<u4")]
    table = np.zeros(N, [*fields, *((name, "<f4") for name in numbers), ("ctf/df_angle_rad", "<f4")])
    table["blob/path"], table["blob/idx"], table["blob/shape"] = ">stack.mrcs", range(N), 8
    for name, value in numbers.items():
        table[name] = value
    return table


def prior() -> ct.GaussianMixture:
    return ct.GaussianMixture([0.5, 0.5], torch.tensor([[0.0, 0], [4, 0]]), torch.eye(2).expand(2, 2, 2))


def note() -> dict:
    return {
        "kind": "PathwayExplorer",
        "version": "0",
        "prior": fingerprint(prior()),
        "request": PathRequest(0, 1).as_dict(),
        "shown": {"route": 0},
        "latents": [[0.0, 1.0]],
    }


def write_set(folder: Path) -> None:
    """Write a valid file for each reader."""

    rng = np.random.default_rng(0)
    write_map(folder / "map.mrc", rng.normal(size=(8, 8, 8)), 2.0)
    write_stack(folder / "stack.mrcs", [rng.normal(size=(N, 8, 8)).astype(np.float32)], N, 8, 2.5)
    (folder / "new.star").write_text(star_31())
    (folder / "old.star").write_text(star_30())
    with open(folder / "table.cs", "wb") as file:
        np.save(file, cs_table())
    (folder / "list.txt").write_text("stack.mrcs\n")
    eye = np.broadcast_to(np.eye(3, dtype=np.float32), (N, 3, 3)).copy()
    cryodrgn.write_poses(folder / "poses.pkl", eye, np.ones((N, 2)), 8, 2.5)
    ctf = ct.CTF(*np.tile(np.float32([[1e4], [1e4], [0], [300], [2.7], [0.1], [0]]), N))
    cryodrgn.write_ctf(folder / "ctf.pkl", ctf, 8, 2.5)
    (folder / "ind.pkl").write_bytes(pickle.dumps(np.arange(3)))
    (folder / "listed.pkl").write_bytes(pickle.dumps([0, np.int64(1), 2], protocol=2))
    (folder / "z.1.pkl").write_bytes(pickle.dumps(np.ones((3, 2), "f4")) + pickle.dumps(np.ones((3, 2), "f4")))
    (folder / "config.yaml").write_text(
        "dataset_args: {ind: ind.pkl, norm: [0, 1]}\nlattice_args: {D: 9, extent: 0.5}\n"
    )
    small = ct.CryoTwin(8, latent_dim=1, n_components=2, n_basis=1, width=2)
    small.save(folder / "model.safetensors")
    torch.save(small.payload(), folder / "model.pt")
    truth = Truth("hinge", np.zeros((N, 2), "f4"), np.full(N, "start"), np.zeros(N, bool), 8, 2.5)
    truth.save(folder / "set.truth.npz")
    Whitening(np.ones((1, 8)), np.zeros(N, np.int64), np.ones(N, "f4")).save(folder / "set.whitening.npz")
    record = Link(folder / "new.star", np.arange(N), np.arange(N, dtype=np.uint64), N)
    save_record(folder / "set.origin.npz", [record, record])
    shutil.copyfile(manifest_path(), folder / "manifest.yaml")
    write_labels(folder / "labels.json", {0: "B", 1: "C"})
    (folder / "explorer.json").write_text(json.dumps(note()))


def read_particles(path: Path) -> None:
    particles = Particles.read(path, contrast="auto")
    images = particles.images(slice(None))
    assert images.shape == (len(particles), particles.box_size, particles.box_size) and np.isfinite(images).all()
    if path.suffix in (".star", ".cs"):
        rows = np.arange(0, len(particles), 2)
        with folder_beside(path) as place:
            subset = Particles.read(ct.write_selection(place / path.name, particles, rows), contrast=particles.contrast)
        same = np.abs if path.suffix == ".cs" else np.positive  # an explicit contrast replaces signs that differ
        np.testing.assert_array_equal(same(subset.images(slice(None))), same(images[rows]))


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    place = path.parent / "subset"
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place)


READERS: dict[str, Callable[[Path], Any]] = {
    "map.mrc": read_map,
    "stack.mrcs": read_particles,
    "new.star": read_particles,
    "old.star": read_particles,
    "table.cs": read_particles,
    "list.txt": read_particles,
    "poses.pkl": cryodrgn.read_poses,
    "ctf.pkl": cryodrgn.read_ctf,
    "ind.pkl": cryodrgn.read_indices,
    "listed.pkl": cryodrgn.read_indices,
    "z.1.pkl": cryodrgn.read_latents,
    "config.yaml": lambda path: ct.read_cryodrgn(path.parent),
    "model.pt": ct.CryoTwin.load,
    "model.safetensors": ct.CryoTwin.load,
    "set.truth.npz": lambda path: Truth.load(path, N),
    "set.whitening.npz": lambda path: Whitening.load(path, N),
    "set.origin.npz": lambda path: load(path, path.parent),
    "manifest.yaml": data.datasets,
    "labels.json": lambda path: read_labels(path, prior()),
    "explorer.json": lambda path: read_note(path, prior()),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("valid")
    write_set(folder)
    return folder


@pytest.fixture(scope="module")
def work(valid, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(valid, folder, dirs_exist_ok=True)
    return folder


def attempt(read: Callable[[Path], Any], path: Path) -> InputError | None:
    """Read a file; return the InputError, if any. Warnings are ignored."""
    before = sorted(path.parent.parent.rglob("*"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("ignore", UserWarning)
            read(path)
    except InputError as error:
        return error
    finally:
        assert sorted(path.parent.parent.rglob("*")) == before
    return None


@pytest.mark.parametrize("name", READERS)
def test_the_valid_file_is_read(work, name):
    assert attempt(READERS[name], work / name) is None


# ------------------------------------------------------------------------------------------------------------ mutations

TOKENS = [
    *(struct.pack("<i", n) for n in (0, -1, 2**31 - 1, -(2**31), 2**16, 101)),
    *(struct.pack("<q", n) for n in (-1, 2**40, 2**62)),
    *(struct.pack("<f", x) for x in (float("nan"), float("inf"), 3e38, 1e-40)),
    *(
        b"nan",
        b"inf",
        b"1e999",
        b"-1",
        b"9" * 30,
        b"9" * 5000,
        b"0x",
        b"\n",
        b"\r\n",
        b"\r",
        b" ",
        b"\t",
        b"\x00",
        b"\xff",
    ),
    *(
        b"data_",
        b"data_particles",
        b"loop_",
        b"_rln",
        b"_rlnImageName",
        b"#",
        b"'",
        b'"',
        b";",
        b"@",
        b"../",
        b"/",
        b">",
    ),
    *(
        b"(",
        b")",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"&a ",
        b"*a ",
        b"<<: ",
        b"!!python/name:os.system ",
        b"!!int ",
        b"- ",
    ),
    *(
        b"true",
        b"null",
        b"2001-99-99",
        b"|O",
        b"<f8",
        b"<U9",
        b"|S0",
        b"|V0",
        b"'descr': ",
        b"(1, ",
        b"(1099511627776,)",
    ),
    *(
        b"R",
        b"b",
        b".",
        b"\x81",
        b"\x82\x01",
        b"\x93",
        b"cos\nsystem\n",
        b"cnumpy\nload\n",
        b"\x8e",
        b"\x96",
        b"r\xff\xff\xff\x7f",
    ),
    *(
        b"\x8b",
        b"0",
        b"2",
        b"t",
        b"\x85",
        b"\x86",
        b"]",
        b"a",
        b"e",
        b"u",
        b"s",
        b"}",
        b"h\x00",
        b"q\x00",
        b"\x94",
        b"N",
        b"K\x01",
    ),
]


@st.composite
def mutations(draw) -> Callable[[bytes], bytes]:
    """Draw a few random changes of a file: flipped bits, format tokens, pieces removed, repeated or moved."""
    kind = st.sampled_from(["flip", "byte", "token", "replace", "cut", "repeat", "truncate", "move"])
    steps = draw(
        st.lists(st.tuples(kind, st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**16)), min_size=1, max_size=4)
    )

    def change(content: bytes) -> bytes:
        for what, at, to, number in steps:
            content = mutated(content, what, at, to, number)
        return content

    return change


def mutated(content: bytes, what: str, at: float, to: float, number: int) -> bytes:
    """Apply one change at the fraction `at` of a file."""
    i, token = int(at * len(content)), TOKENS[number % len(TOKENS)]
    j = min(i + 1 + number % 60, len(content))
    if what == "flip" and i < len(content):
        return content[:i] + bytes([content[i] ^ 1 << number % 8]) + content[i + 1 :]
    if what == "byte":
        return content[:i] + bytes([number % 256]) + content[i + 1 :]
    if what == "token":
        return content[:i] + token + content[i:]
    if what == "replace":
        return content[:i] + token + content[i + len(token) :]
    if what == "cut":
        return content[:i] + content[j:]
    if what == "repeat":
        return content[:i] + content[i:j] * (2 + number % 7) + content[j:]
    if what == "truncate":
        return content[:i]
    rest, k = content[:i] + content[j:], int(to * len(content))
    return rest[:k] + content[i:j] + rest[k:]


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused(valid, work, name):
    good = (valid / name).read_bytes()

    @given(mutations())
    @fuzzing
    def run(change: Callable[[bytes], bytes]) -> None:
        (work / name).write_bytes(change(good))
        attempt(READERS[name], work / name)

    try:
        run()
    finally:
        (work / name).write_bytes(good)


@given(st.text(max_size=300))
@fuzzing
def test_any_text_is_read_or_refused(work, text):
    for name in ("x.star", "x.txt", "x.yaml", "x.json"):
        (work / name).write_text(text, encoding="utf-8", errors="replace")
        attempt({".yaml": data.datasets, ".json": read_labels}.get(Path(name).suffix, read_particles), work / name)


# ---------------------------------------------------------------------------------------------------------------- bombs


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def mrc_header(**fields: int) -> bytes:
    """Return the header of a stack with a false size."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mrcfile
        from mrcfile.dtypes import HEADER_DTYPE

    header = np.zeros((), HEADER_DTYPE)
    header["nx"] = header["ny"] = header["nz"] = header["mx"] = 8
    header["mode"], header["map"], header["machst"] = 2, b"MAP ", (0x44, 0x44, 0, 0)
    for name, value in fields.items():
        header[name] = value
    buffer.write(header.tobytes() + bytes(4096))
    assert mrcfile
    return buffer.getvalue()


def truth_archive(shape: tuple[int, ...], body: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    truth = Truth("hinge", np.zeros((N, 2), "f4"), np.full(N, "start"), np.zeros(N, bool), 8, 2.5)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in vars(truth).items():
            part = io.BytesIO()
            np.save(part, value)
            content = part.getvalue()
            if name == "coordinates":
                content = npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}", body)
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def model(change: Callable[[dict], Any]) -> bytes:
    buffer, payload = io.BytesIO(), ct.CryoTwin(8, latent_dim=1, n_components=2, n_basis=1, width=2).payload()
    change(payload)
    torch.save(payload, buffer)
    return buffer.getvalue()


def safe_model(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def safe_header(shape: list[int], end: int, **about: str) -> bytes:
    about = {"format": FORMAT} | about
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    return json.dumps({"__metadata__": about, "moments.mass": entry}).encode()


def archive_of_zeros() -> bytes:
    """Return a model with a compressed archive, a thousandth of its unpacked size."""
    stored, packed = io.BytesIO(model(lambda p: p["state"].update(more=torch.zeros(2**24)))), io.BytesIO()
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return packed.getvalue()


def doubled(start: bytes, twice: bytes, depth: int = 60) -> bytes:
    """Return a pickle of a few bytes that represents 2^depth objects."""
    return (
        b"\x80\x04"
        + start
        + b"".join(b"q" + bytes([i]) + b"0" + (b"h" + bytes([i])) * 2 + twice for i in range(depth))
        + b"."
    )


def record_of_zeros() -> bytes:
    """Return a compressed record of rows, a thousandth of its unpacked size."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rows_0=np.zeros(10**7, np.int64))
    return buffer.getvalue()


LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
TABLE = "{{'descr': [('blob/path', {}), ('blob/idx', {})], 'fortran_order': False, 'shape': (1000000000000,)}}"
LIE = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"  # numbers declared as counted references
ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"

BOMBS: dict[str, tuple[str, bytes | Callable[[], bytes]]] = {
    "2^31 images": ("stack.mrcs", mrc_header(nx=2**31 - 1, ny=2**31 - 1, nz=2**31 - 1)),
    "a wide map": ("map.mrc", mrc_header(nx=2**14, ny=2**14, nz=2**14)),
    "an extended header of 2 GB": ("stack.mrcs", mrc_header(nsymbt=2**31 - 1)),
    "an extended header of -1 bytes": ("stack.mrcs", mrc_header(nsymbt=-1)),
    "10^12 particles": ("table.cs", npy(TABLE.format("'S9'", "'<u4'"))),
    "10^12 particles of no size": ("table.cs", npy(TABLE.format("'S0'", "'<u4', (0,)"))),
    "objects": ("table.cs", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1]))),
    "a header of brackets": ("table.cs", npy("(" * 9000)),
    "millions of columns": ("new.star", lambda: star_31().replace("_rlnAngleRot", "_x\n" * 2_000_000).encode()),
    "a row of millions": ("new.star", lambda: star_31().replace("10.5", "1 " * 2_000_000).encode()),
    "one long name": (
        "new.star",
        lambda: (star_31().replace("1@stack", "1@" + "s" * 60_000, 1) + (ROW.format(1) + " 1\n") * 20_000).encode(),
    ),
    "a billion laughs in a configuration": ("config.yaml", LAUGHS.encode()),
    "a billion laughs in a manifest": ("manifest.yaml", b"datasets:\n " + LAUGHS.replace("\n", "\n ").encode()),
    "a billion merged keys": ("manifest.yaml", MERGES.encode()),
    "deep YAML": ("config.yaml", b"[" * 500),
    "deep JSON": ("labels.json", b"[" * 200_000),
    "a deep note": ("explorer.json", b'{"a":' * 200_000),
    "a truth of 10^9": ("set.truth.npz", truth_archive((10**9, 2), bytes(10**6))),
    "a truth of zeros": ("set.truth.npz", lambda: truth_archive((10**7, 2), bytes(8 * 10**7))),
    "a truth of many coordinates": ("set.truth.npz", truth_archive((N, 10**10))),
    "a record of zeros": ("set.origin.npz", record_of_zeros),
    "an archive of zeros": ("model.pt", archive_of_zeros),
    "a wide model": ("model.pt", lambda: model(lambda p: p["config"].update(width=200_000))),
    "a deep model": ("model.pt", lambda: model(lambda p: p["config"].update(architecture="coordinate", depth=10**6))),
    "many components": ("model.pt", lambda: model(lambda p: p["config"].update(n_components=10**9))),
    "a large box": ("model.pt", lambda: model(lambda p: p["config"].update(box_size=1024))),
    "many directions": ("model.pt", lambda: model(lambda p: p["config"].update(n_basis=10**6))),
    "a header of 8 EB": ("model.safetensors", struct.pack("<Q", 2**62) + b"{}"),
    "a header of 100 MB": ("model.safetensors", struct.pack("<Q", 10**8) + b"{}"),
    "a tensor of 10^12": ("model.safetensors", safe_model(safe_header([10**12], 4 * 10**12), bytes(100))),
    "a tensor larger than its bytes": ("model.safetensors", safe_model(safe_header([10**6], 400), bytes(400))),
    "a deep header": ("model.safetensors", safe_model(b'{"a":' * 10_000)),
    "a deep configuration": ("model.safetensors", safe_model(safe_header([1], 4, config="[" * 50_000), bytes(4))),
    "noise of one number": (
        "model.pt",
        lambda: model(
            lambda p: p["state"].update(
                {"networks.imaging.noise": torch.zeros(1, dtype=torch.float64).expand(10**9, 8)}
            )
        ),
    ),
    "memory no. 2^31": ("ind.pkl", b"\x80\x04Nr\xff\xff\xff\x7f."),
    "memory no. 2^31 in words": ("ind.pkl", b"Np2147483646\n."),
    "8 EB of bytes": ("ind.pkl", b"\x80\x04\x8e" + struct.pack("<q", 2**62) + b"x."),
    "10 GB of bytes": ("ind.pkl", b"\x80\x05\x96" + struct.pack("<q", 10**10) + b"x."),
    "10 GB of text": ("ind.pkl", b"\x80\x04\x8d" + struct.pack("<q", 10**10) + b"x."),
    "a number of 2 GB": ("ind.pkl", b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x."),
    "a frame of 2^60": ("ind.pkl", b"\x80\x04\x95" + struct.pack("<q", 2**60) + b"N."),
    "doubled lists": ("ind.pkl", doubled(b"K\x01", b"\x86")),
    "doubled tuples": ("ind.pkl", doubled(b"K\x01", b"\x86")),
    "a doubled key": ("ind.pkl", b"\x80\x04}" + doubled(b"K\x01", b"\x86")[2:-1] + b"Ns."),
    "deep tuples": ("ind.pkl", b"\x80\x04)" + b"\x85" * 10**5 + b"."),
    "deep lists": ("ind.pkl", b"\x80\x04" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
    "an array of 10^12": (
        "ind.pkl",
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L1000000000000L\ntC\x01btR.",
    ),
    "an array made by its class": ("ind.pkl", b"cnumpy\nndarray\n((L10000000000L\ntX\x01\x00\x00\x00btR."),
    "an array made by its class anew": ("ind.pkl", b"\x80\x02cnumpy\nndarray\n(L10000000000L\nt\x85\x81."),
    "an array that does not fit": (
        "ind.pkl",
        ARRAY + b"(K\x01(L10000000000L\ntcnumpy\ndtype\nX\x02\x00\x00\x00i8\x85RI00\nC\x01xtb.",
    ),
    "a number of 2 GB as a type": (
        "ind.pkl",
        b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\nX\x0b\x00\x00\x00V2000000000\x85RtR.",
    ),
    "a type that lies about references": (
        "ind.pkl",
        ARRAY
        + b"(K\x01(K\x01tcnumpy\ndtype\n(X\x02\x00\x00\x00i8I00\nI01\ntR"
        + LIE
        + b"I00\nC\x08\x01\x02\x03\x04\x05\x06\x07\x08tb.",
    ),
    "an extension": ("ind.pkl", b"\x80\x02\x82\x01."),
    "a persistent object": ("ind.pkl", b"Px\n."),
    "attributes of a function": ("ind.pkl", b"cnumpy\ndtype\n(N}X\x04\x00\x00\x00nameK\x01stb."),
}


NOISE = "networks.imaging.noise"
OVERHEARD = ("an array of 10^12", "a type that lies about references")  # the false claim is ignored, without an error


@contextmanager
def memory_below(least: int) -> Iterator[None]:
    """Fail if a single request is larger; on Linux, allocations of more than 2 GiB beyond current use are denied."""
    limits = None
    if sys.platform == "linux":
        import resource

        limits = resource.getrlimit(resource.RLIMIT_AS)
        there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (there + 2**31, limits[1]))
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        if limits is not None:
            resource.setrlimit(resource.RLIMIT_AS, limits)
    assert peak < least, f"{peak / 1e6:.0f} MB"


@pytest.mark.parametrize("case", BOMBS)
def test_no_file_takes_more_memory_than_it_justifies(valid, work, case):
    name, content = BOMBS[case]
    content = content if isinstance(content, bytes) else content()
    (work / name).write_bytes(content)
    try:
        with memory_below(100 * len(content) + 2**24):
            error = attempt(READERS[name], work / name)
    finally:
        shutil.copyfile(valid / name, work / name)
    if case == "an archive of zeros":  # PyTorch's allocations are not counted, so it must not get that far
        assert "cannot be read as a checkpoint (.pt): ValueError" in str(error)
    if case not in OVERHEARD:
        assert error is not None and name in str(error)
        assert "MemoryError" not in str(error) and len(str(error)) < 5000


# -------------------------------------------------------------------------------------------------- what files point to


@pytest.mark.parametrize(
    "stack", ["../outside/x.mrcs", "{outside}/x.mrcs", "link.mrcs", "link/x.mrcs", ".", "..", "/", "~"]
)
def test_nothing_is_written_to_what_a_file_names(tmp_path, stack):
    """Names can point anywhere; reading, selecting and rewriting leave all existing files unchanged."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir(), outside.mkdir()
    write_set(inside)
    shutil.copyfile(inside / "stack.mrcs", outside / "x.mrcs")
    (inside / "link.mrcs").symlink_to(outside / "x.mrcs")
    (inside / "link").symlink_to(outside)
    stack = stack.format(outside=outside)
    (inside / "new.star").write_text(star_31().replace("stack.mrcs", stack))
    (inside / "list.txt").write_text(stack + "\n")
    (inside / "config.yaml").write_text(f"dataset_args: {{ind: '{stack}'}}\nlattice_args: {{D: 9}}\n")
    table = cs_table().astype(
        [(n, "S200" if n == "blob/path" else cs_table().dtype[n]) for n in cs_table().dtype.names]
    )
    table["blob/path"] = stack
    with open(inside / "table.cs", "wb") as file:
        np.save(file, table)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} | {outside: outside.stat().st_mtime_ns}
    contents = {path: path.read_bytes() for path in before if path.is_file()}
    for name in ("new.star", "table.cs", "list.txt", "config.yaml"):
        for path in (inside / name, outside / name):
            if path.exists():
                attempt_all(READERS[name], path)
    (tmp_path / "new").mkdir()
    for name in ("new.star", "table.cs"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ct.write_selection(tmp_path / "new" / name, Particles.read(inside / name, images=False), [0])
    assert {path: path.read_bytes() for path in contents} == contents
    assert sorted(path for path in tmp_path.rglob("*") if (tmp_path / "new") not in (path, *path.parents)) == sorted(
        path for path in before if path != outside or outside in before
    )


def attempt_all(read: Callable[[Path], Any], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(InputError):
            read(path)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", ".", "", "a/b", "a\\b", "C:x", ".hidden", 3])
def test_a_manifest_names_no_folder_outside_its_own(tmp_path, name):
    import yaml

    entry = {"description": "d", "licence": "l", "files": [{"name": "x", "url": "http://c/x", "sha256": "unverified"}]}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"datasets": {name: entry}}))
    with pytest.raises(InputError, match="name without folders"):
        data.datasets(tmp_path / "m.yaml")
    entry["files"][0]["name"] = name
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"datasets": {"good": entry}}))
    with pytest.raises(InputError, match="name without folders"):
        data.datasets(tmp_path / "m.yaml")
