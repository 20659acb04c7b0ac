"""Latents from files of this and other programs, in the order of the particles."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError

N = 30
rng = np.random.default_rng(3)
UID = rng.permutation(10**6)[:N].astype("u8") + 2**63
Z = rng.normal(size=(N, 11)).astype(np.float32)
ORDER, OTHER = rng.permutation(N), rng.permutation(N)


def write_cs(path, rows=range(N), d=0, z=Z, images=True):
    """Write particles of 3D Variability with d components, in the order of its fields: 0, 1, 10, 2, ..."""
    fields = [("uid", "u8"), *([("blob/path", "S20"), ("blob/idx", "u4"), ("blob/psize_A", "f4")] if images else [])]
    modes = [f"components_mode_{k}" for k in sorted(range(d), key=str)]
    table = np.zeros(N, fields + [f for m in modes for f in ((f"{m}/component", "u4"), (f"{m}/value", "f4"))])
    table["uid"] = UID
    if images:
        table["blob/path"], table["blob/idx"], table["blob/psize_A"] = b"J1/s.mrcs", np.arange(N), 2.0
    for mode in modes:
        k = int(mode.rpartition("_")[2])
        table[f"{mode}/component"], table[f"{mode}/value"] = k, z[:, k]
    with open(path, "wb") as file:
        np.save(file, table[list(rows)])
    return path


def read_particles(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ct.Particles.read(path, images=False, contrast="dark", **options)


def test_every_kind_of_file_reads_the_same(tmp_path):
    np.save(tmp_path / "z.npy", Z)
    np.savetxt(tmp_path / "z.txt", Z)
    (tmp_path / "z.3.pkl").write_bytes(pickle.dumps(Z) + pickle.dumps(np.zeros_like(Z)))
    write_cs(tmp_path / "z.cs", d=11, images=False)
    for name in ("z.npy", "z.txt", "z.3.pkl", "z.cs"):
        z = ct.read_latents(tmp_path / name)
        assert z.dtype.is_floating_point and z.dtype.itemsize == 4
        np.testing.assert_allclose(z, Z, rtol=1e-6)
    assert ct.GaussianMixture.fit(ct.read_latents(tmp_path / "z.cs"), 1).means.shape == (1, 11)
    np.savetxt(tmp_path / "one.txt", Z[:1])
    assert ct.read_latents(tmp_path / "one.txt").shape == (1, 11)


def test_components_are_put_into_the_order_of_the_particles(tmp_path):
    file = write_cs(tmp_path / "z.cs", OTHER, d=3)
    np.testing.assert_array_equal(ct.read_latents(file), Z[OTHER, :3])
    particles = read_particles(write_cs(tmp_path / "p.cs", ORDER))
    np.testing.assert_array_equal(ct.read_latents(file, particles), Z[ORDER, :3])
    np.testing.assert_array_equal(ct.read_latents(file, particles[[7, 2]]), Z[ORDER[[7, 2]], :3])
    assert len(ct.read_latents(file, read_particles(tmp_path / "p.cs", indices=[4]))) == 1
    names = [f"{i + 1}@s.mrcs" for i in ORDER]
    text = "data_\nloop_\n_rlnImageName\n_rlnDetectorPixelSize\n_rlnMagnification\n"
    (tmp_path / "p.star").write_text(text + "".join(f"{name} 5 25000\n" for name in names))
    np.testing.assert_array_equal(ct.read_latents(file, read_particles(tmp_path / "p.star")), Z[ORDER, :3])


def test_particles_without_components_are_counted(tmp_path):
    file = write_cs(tmp_path / "z.cs", OTHER[(OTHER != 4) & (OTHER != 9)], d=2)
    particles = read_particles(write_cs(tmp_path / "p.cs", ORDER))
    with pytest.raises(InputError, match=r"z\.cs: found no components for 2 of the 30 particles of .*p\.cs"):
        ct.read_latents(file, particles)
    kept = np.flatnonzero((ORDER != 4) & (ORDER != 9))
    np.testing.assert_array_equal(ct.read_latents(file, particles[kept]), Z[ORDER[kept], :2])


def test_latents_of_other_particles_are_refused(tmp_path):
    np.save(tmp_path / "z.npy", Z)
    particles = read_particles(write_cs(tmp_path / "p.cs", ORDER))
    assert len(ct.read_latents(tmp_path / "z.npy", particles)) == N
    with pytest.raises(InputError, match="found 30 latents, expected 29, one for each particle"):
        ct.read_latents(tmp_path / "z.npy", particles[1:])
    in_memory = ct.Particles(np.zeros((N, 8, 8)), pixel_size=2.0)
    with pytest.raises(InputError, match="particles read from no file"):
        ct.read_latents(write_cs(tmp_path / "z.cs", d=2), in_memory)
    write_cs(tmp_path / "twice.cs", [*range(N), 3], d=2)
    with pytest.raises(InputError, match=r"twice\.cs: found the uid \d+ 2 times"):
        ct.read_latents(tmp_path / "twice.cs", particles)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["npy", "txt", "pkl", "cs"])
def test_a_value_that_is_not_finite_is_named_by_its_row(tmp_path, kind, bad):
    spoiled = Z[:, :3].copy()
    spoiled[6, 1] = bad
    path = tmp_path / f"z.{kind}"
    if kind == "cs":
        write_cs(path, d=3, z=spoiled)
    elif kind == "pkl":
        path.write_bytes(pickle.dumps(spoiled))
    else:
        (np.save if kind == "npy" else np.savetxt)(path, spoiled)
    with pytest.raises(InputError, match=rf"z\.{kind}: found .* = {bad} for particle 7 \(and 0 others\)"):
        ct.read_latents(path)


class Mischief:
    def __reduce__(self):
        return print, ("executed",)


def test_other_content_is_refused_with_the_file_named(tmp_path, capsys):
    np.save(tmp_path / "flat.npy", Z[0])
    np.save(tmp_path / "empty.npy", Z[:0])
    np.save(tmp_path / "objects.npy", np.array([Mischief()], dtype=object))
    damaged = (tmp_path / "flat.npy").read_bytes().replace(b"}", b"(", 1)  # an unbalanced bracket in the header
    (tmp_path / "damaged.npy").write_bytes(damaged)
    (tmp_path / "code.pkl").write_bytes(pickle.dumps(Mischief()))
    (tmp_path / "ragged.txt").write_text("1 2\n3\n")
    (tmp_path / "empty.txt").write_text("")
    write_cs(tmp_path / "p.cs")
    for name, said in {
        "flat.npy": r"shape \(11,\), expected an array \(n, d\).*\nSave a single latent z as z\[None\]",
        "empty.npy": "shape",
        "damaged.npy": "cannot be read as an array",
        "objects.npy": "cannot be read as an array",
        "code.pkl": "No code in this file was run",
        "ragged.txt": "cannot be read as an array",
        "empty.txt": "shape",
        "p.cs": "no components, expected components_mode_0/value.*\nPass the particle file of a 3D Variability job",
        "none.npy": "does not exist",
    }.items():
        with pytest.raises(InputError, match=rf"(?s){name}.*{said}"):
            ct.read_latents(tmp_path / name)
    (tmp_path / "z.csv").touch()
    with pytest.raises(InputError, match=r"suffix '\.csv', expected \.npy or \.txt or \.pkl or \.cs"):
        ct.read_latents(tmp_path / "z.csv")
    assert capsys.readouterr().out == ""


def test_the_command_line_selects_by_components(tmp_path, capsys):
    model = ct.CryoTwin(16, latent_dim=2, n_components=2)
    model.prior = ct.GaussianMixture([0.5, 0.5], [[-9.0, 0.0], [9.0, 0.0]], np.stack([np.eye(2)] * 2))
    model.save(tmp_path / "model.safetensors")
    z = np.stack([np.where(np.arange(N) < 12, -9.0, 9.0), np.zeros(N)], axis=1).astype(np.float32)
    particles, latents = write_cs(tmp_path / "p.cs", ORDER), write_cs(tmp_path / "z.cs", OTHER, d=2, z=z)
    command = ["select", f"{tmp_path / 'model.safetensors'}", f"{particles}", "--latents", f"{latents}", "--state", "0"]
    assert main([*command, "--contrast", "dark", "--output", f"{tmp_path / 'some.cs'}"]) == 0
    assert "some.cs: 12 of 30 particles" in capsys.readouterr().out
    kept = np.load(tmp_path / "some.cs", allow_pickle=False)["uid"]
    assert set(kept.tolist()) == set(UID[:12].tolist())
