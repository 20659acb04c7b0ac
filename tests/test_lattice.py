"""The Fourier lattice: slices against closed forms, insertion as their adjoint, compiled loops against PyTorch."""

from __future__ import annotations

from types import SimpleNamespace

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_fourier_slice import project_3d_to_2d

from cryotwin_nb.imaging import lattice as lattice_module
from cryotwin_nb.imaging.fourier import fft2, fft3, grid, half_plane
from cryotwin_nb.imaging.lattice import HalfBall, half_ball
from cryotwin_nb.imaging.optics import slice_coordinates
from cryotwin_nb.simulate.images import random_rotations

SIZE, RADIUS = 16, 9.0
WIDTH = 1.3  # standard deviation of the blobs in voxels, for negligible power at Nyquist


pytestmark = pytest.mark.usefixtures("one_thread")


class Elsewhere(torch.Tensor):
    """A tensor that reports a non-CPU device the first time, to select the branch in PyTorch."""

    @property
    def device(self):
        if getattr(self, "asked", False):
            return torch.device("cpu")
        self.asked = True
        return SimpleNamespace(type="elsewhere")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views(n: int, seed: int = 0) -> Tensor:
    return torch.as_tensor(random_rotations(n, np.random.default_rng(seed)))


def blobs(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return centres (n, 3), xyz in voxels from the box centre, within the particle; and masses (n,)."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n, 3))
    centres *= rng.uniform(1, 4.5, (n, 1)) / np.linalg.norm(centres, axis=1, keepdims=True)
    return torch.as_tensor(centres, dtype=torch.float32), torch.as_tensor(rng.uniform(0.5, 2, n), dtype=torch.float32)


def volume_of(centres: Tensor, masses: Tensor, size: int = SIZE) -> Tensor:
    distance = (grid(size, 3).float()[..., None, :] - centres).square().sum(-1)
    return (masses * torch.exp(-distance / (2 * WIDTH**2))).sum(-1)


def transform_of(centres: Tensor, masses: Tensor, k: Tensor, size: int = SIZE) -> Tensor:
    """Return the blobs' transform at any k (..., 3), xyz in grid units, in closed form."""
    fall = (2 * torch.pi * WIDTH**2) ** 1.5 * torch.exp(-2 * (torch.pi * WIDTH / size) ** 2 * k.square().sum(-1))
    angle = -2 * torch.pi / size * k @ centres.T
    return size**-1.5 * fall * (torch.polar(torch.ones_like(angle), angle) @ masses.to(torch.complex64))


def as_complex(slices: Tensor) -> Tensor:
    return torch.complex(*slices.chunk(2, dim=-1))


# Geometry


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([8, 12, 16]),
    share=st.floats(0.25, 1.0),
    padding=st.sampled_from([1.0, 1.3, 1.5, 2.0, 3.0]),
    seed=st.integers(0, 10_000),
)
def test_every_neighbour_of_every_sample_is_in_the_ball(size, share, padding, seed):
    """Eight different voxels within one unit on each axis; their weighted mean position is the sample itself."""
    radius = share * (size / 2 + 1)
    ball, frequencies = HalfBall(size, radius, padding), half_plane(size, radius).frequencies
    rotations = torch.cat([views(3, seed), torch.eye(3)[[1, 2, 0]][None], torch.eye(3)[None]])
    corners, sign = ball._corners(frequencies, rotations)
    index, weight = (torch.stack(part) for part in zip(*corners, strict=True))
    assert index.min() >= 0 and index.max() < len(ball)
    neighbours = ball.positions[index].float()
    sample = slice_coordinates(frequencies, rotations) * ball.side / size * sign[..., None]
    assert (sample[..., 0] >= 0).all() and (neighbours[..., 0] >= 0).all()
    assert (neighbours - sample.flatten(0, 1)).abs().max() <= 1
    assert all(len(set(voxels)) == 8 for voxels in index.T.tolist())
    assert weight.min() >= 0 and torch.allclose(weight.sum(0), torch.ones(sign.numel()))
    assert torch.allclose((weight[..., None] * neighbours).sum(0), sample.flatten(0, 1), atol=1e-4)


def test_voxels_are_numbered_as_start_says_and_shells_are_in_units_of_the_map():
    ball = half_ball(SIZE, RADIUS, 1.5)
    x, y, z = ball.positions.long().unbind(1)
    centre = len(ball.start) // 2
    assert torch.equal(ball.start[z + centre, y + centre].long() + x, torch.arange(len(ball)))
    assert (ball.side, ball.scale) == (24, 1.5)
    assert torch.equal(ball.shell, (ball.positions.double().norm(dim=1) / 1.5).round().long())
    known = {tuple(p) for p in ball.positions.tolist()}
    axis = range(-16, 17)
    inside = {(a, b, c) for a in axis[16:] for b in axis for c in axis if a * a + b * b + c * c <= (13.5 + 3**0.5) ** 2}
    assert known == inside


def test_grid_index_finds_each_voxel_in_the_padded_transform():
    ball = half_ball(SIZE, RADIUS, 1.5)
    k = torch.fft.fftfreq(24, 1 / 24).round().long()
    z, y, x = torch.meshgrid(k, k, torch.arange(13), indexing="ij")
    inside = ball.grid_index >= 0
    found = torch.stack([x, y, z], -1).flatten(0, 2)[ball.grid_index[inside]]
    assert torch.equal(found % 24, ball.positions[inside].long() % 24)
    assert torch.equal(inside, (ball.positions.abs() <= 12).all(1))


# Slices


def test_slices_are_the_transforms_of_blobs_in_closed_form_the_better_the_finer_the_lattice():
    scene, rotations, frequencies = blobs(), views(12), half_plane(SIZE, RADIUS).frequencies
    expected = transform_of(*scene, slice_coordinates(frequencies, rotations))
    errors = []
    for padding in (1.0, 1.5, 2.0, 4.0):
        ball = half_ball(SIZE, RADIUS, padding)
        found = as_complex(ball.slices(ball.from_volumes(volume_of(*scene)[None]), frequencies, rotations))[..., 0]
        errors.append(float((found - expected).norm() / expected.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.05 and errors[2] < 0.025 and errors[3] < 0.006
    assert errors[2] / errors[3] == pytest.approx(4, rel=0.2)  # proportional to the square of the spacing


def test_on_the_axes_of_an_unpadded_lattice_nothing_is_interpolated():
    volume, ball = random(SIZE, SIZE, SIZE), half_ball(SIZE, 8.0, 1.0)
    frequencies = half_plane(SIZE, 8.0).frequencies
    rotations = torch.stack([torch.eye(3), torch.eye(3)[[1, 2, 0]], torch.diag(torch.tensor([-1.0, 1.0, -1.0]))])
    found = as_complex(ball.slices(ball.from_volumes(volume[None]), frequencies, rotations))[..., 0]
    v = slice_coordinates(frequencies, rotations).round().long() + SIZE // 2
    expected = fft3(volume / ball.gridding)[v[..., 2], v[..., 1], v[..., 0]]
    assert torch.allclose(found, expected, atol=1e-5)


def test_slices_agree_with_the_teamtomo_witness():
    scene, rotations, plane = blobs(), views(4), half_plane(SIZE, 7.0)
    volume, ball = volume_of(*scene), half_ball(SIZE, 7.0, 2.0)
    found = as_complex(ball.slices(ball.from_volumes(volume[None]), plane.frequencies, rotations))[..., 0]
    witness = plane.gather(fft2(project_3d_to_2d(volume, rotations, pad_factor=2.0)))
    assert (found - witness).norm() < 0.03 * witness.norm()


def test_maps_are_sliced_apart_and_linearly():
    volumes, frequencies, rotations = random(3, SIZE, SIZE, SIZE), half_plane(SIZE, RADIUS).frequencies, views(3)
    ball = half_ball(SIZE, RADIUS, 1.5)
    together = as_complex(ball.slices(ball.from_volumes(volumes), frequencies, rotations))
    for q in range(3):
        alone = as_complex(ball.slices(ball.from_volumes(volumes[q : q + 1]), frequencies, rotations))
        assert torch.allclose(together[..., q], alone[..., 0], atol=1e-6)
    both = as_complex(ball.slices(ball.from_volumes(volumes[:1] - 2 * volumes[1:2]), frequencies, rotations))[..., 0]
    assert torch.allclose(both, together[..., 0] - 2 * together[..., 1], atol=1e-5)


def test_opposite_frequencies_and_the_view_from_behind_are_hermitian():
    ball, frequencies, rotations = half_ball(SIZE, RADIUS, 1.5), half_plane(SIZE, 8.0).frequencies, views(5)
    lattice = ball.from_volumes(random(2, SIZE, SIZE, SIZE))
    there = as_complex(ball.slices(lattice, frequencies, rotations))
    back = as_complex(ball.slices(lattice, -frequencies, rotations))
    assert torch.allclose(back, there.conj(), atol=1e-6)
    behind = rotations @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))  # x and z reversed: the mirror image
    mirrored = as_complex(ball.slices(lattice, frequencies * torch.tensor([-1.0, 1.0]), behind))
    assert torch.allclose(mirrored, there, atol=1e-5)


# Insertion


def samples(ball: HalfBall, n_maps: int, m: int = 7, seed: int = 0) -> tuple[Tensor, ...]:
    """Return random arguments of `insert` after the sums."""
    frequencies = half_plane(ball.box_size, ball.radius).frequencies
    shape = (m, len(frequencies))
    values, second = random(*shape, 2 * n_maps, seed=seed), random(m, n_maps + 1, seed=seed + 3)
    return frequencies, views(m, seed), values, random(*shape, seed=seed + 4).abs(), second


def test_insertion_is_the_adjoint_of_slicing():
    ball, n_maps = half_ball(SIZE, RADIUS, 1.5), 3
    frequencies, rotations, values, powers, second = samples(ball, n_maps)
    sums = torch.zeros(len(ball), 2 * n_maps + n_maps + 1)
    ball.insert(sums, frequencies, rotations, values, powers, second)
    lattice = random(len(ball), 2 * n_maps, seed=9)
    there = (ball.slices(lattice, frequencies, rotations).double() * values).sum()
    back = (lattice.double() * sums[:, : 2 * n_maps]).sum()
    assert float(there) == pytest.approx(float(back), rel=1e-4, abs=1e-4 * float(values.norm() * lattice.norm()) / 100)
    for entry in range(n_maps + 1):
        there = (ball.slices(lattice, frequencies, rotations)[..., 0].double() * powers * second[:, entry, None]).sum()
        back = (lattice[:, 0].double() * sums[:, 2 * n_maps + entry]).sum()
        assert float(there) == pytest.approx(float(back), rel=1e-3, abs=1e-3)


def test_insertion_adds_to_what_is_there():
    ball = half_ball(SIZE, RADIUS, 1.5)
    arguments, start = samples(ball, 2), random(len(ball), 7)
    once, twice = torch.zeros(len(ball), 7), start.clone()
    ball.insert(once, *arguments)
    ball.insert(twice, *arguments)
    assert torch.allclose(twice, start + once, atol=1e-5)


def test_closed_half_sums_are_those_of_the_whole_ball():
    """NumPy inserts every sample and its conjugate into a full cube; `insert` and `close` must match it at x >= 0."""
    ball = half_ball(8, 4.5, 1.5)
    frequencies, rotations, values, powers, second = samples(ball, 1, m=5)
    sums = torch.zeros(len(ball), 4)
    ball.insert(sums, frequencies, rotations, values, powers, second)
    ball.close(sums, 1)
    centre, cube = 12, np.zeros((25, 25, 25, 4))
    real, imaginary = values.numpy().transpose(2, 0, 1)
    columns = np.stack([real, imaginary, *(powers.numpy() * s[:, None] for s in second.T.numpy())], -1)
    position = (slice_coordinates(frequencies, rotations) * 1.5).double().numpy()
    for sign in (1, -1):
        vector = columns * np.array([1, sign, 1, 1])
        corner = np.floor(sign * position).astype(int)
        fraction = sign * position - corner
        for offset in np.ndindex(2, 2, 2):
            share = np.where(offset, fraction, 1 - fraction).prod(-1)
            x, y, z = np.moveaxis(corner + offset + centre, -1, 0)
            np.add.at(cube, (z, y, x), share[..., None] * vector)
    x, y, z = ball.positions.long().numpy().T + centre
    np.testing.assert_allclose(sums.numpy(), cube[z, y, x], atol=2e-5)
    assert np.abs(cube[..., centre, :]).max() > 0.1


def test_close_makes_the_plane_hermitian_and_leaves_the_rest():
    ball = half_ball(SIZE, RADIUS, 1.5)
    before = random(len(ball), 7)
    after = before.clone()
    ball.close(after, 2)
    plane = ball.positions[:, 0] == 0
    assert torch.equal(after[~plane], before[~plane])
    number = {tuple(p): i for i, p in enumerate(ball.positions.tolist())}
    opposite = torch.tensor([number[0, -y, -z] for _, y, z in ball.positions[plane].tolist()])
    sign = torch.tensor([1.0, 1, -1, -1, 1, 1, 1])
    assert torch.allclose(after[plane], after[opposite] * sign, atol=1e-6)
    assert torch.allclose(after[plane], before[plane] + before[opposite] * sign, atol=1e-6)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_insertion_and_solution_do_not_depend_on_the_number_of_threads(threads, monkeypatch):
    ball = half_ball(SIZE, RADIUS, 1.5)
    arguments, results = samples(ball, 2), []
    for count in (1, threads):
        monkeypatch.setattr(lattice_module, "_set_threads", lambda count=count: use_threads(count))
        sums = torch.zeros(len(ball), 7)
        ball.insert(sums, *arguments[:-1], torch.tensor([[1.0, 0.2, 1.5]]).expand(7, 3))
        results.append((sums, *ball.solve(sums, torch.full((30, 2), 0.1, dtype=torch.float64))))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert torch.allclose(results[0][2], results[1][2], rtol=1e-10)


def use_threads(count: int) -> int:
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    return count


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_plane_has_one_owner_and_the_work_is_shared(threads):
    ball = half_ball(32, 17.0, 1.5)
    owner = ball._owners(threads)
    assert owner.shape == (len(ball.start),) and (np.diff(owner) >= 0).all()
    assert set(owner) == set(range(threads))
    z = slice_coordinates(half_plane(32, 17.0).frequencies, views(200))[..., 2] * ball.scale
    work = np.bincount(owner[z.abs().copysign(z).floor().long().flatten() + len(ball.start) // 2], minlength=threads)
    assert work.max() < 1.4 * work.mean()


# Compiled loops against PyTorch


def test_compiled_slices_equal_those_in_pytorch():
    ball, frequencies, rotations = half_ball(SIZE, RADIUS, 1.5), half_plane(SIZE, RADIUS).frequencies, views(9)
    lattice = random(len(ball), 6)
    compiled = ball.slices(lattice, frequencies, rotations)
    plain = ball.slices(lattice.as_subclass(Elsewhere), frequencies, rotations)
    assert torch.allclose(compiled, torch.Tensor(plain), atol=1e-4)  # a sample on a lattice plane can go to either side


def test_compiled_insertion_equals_that_in_pytorch():
    ball = half_ball(SIZE, RADIUS, 1.5)
    arguments, compiled, plain = samples(ball, 2), torch.zeros(len(ball), 7), torch.zeros(len(ball), 7)
    ball.insert(compiled, *arguments)
    ball.insert(plain.as_subclass(Elsewhere), *arguments)
    assert compiled.abs().max() > 1
    assert torch.allclose(compiled, plain, atol=1e-4)


def equations(n_maps: int, seed: int = 0) -> tuple[HalfBall, Tensor, Tensor, np.ndarray, np.ndarray]:
    """Return arguments of `solve` (ball, sums, precisions), and the same as matrices (V, Q, Q) and sides (V, 2, Q)."""
    ball = half_ball(8, 4.5, 1.5)
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(len(ball), n_maps, 2 * n_maps))
    factors[::5, :, 1:] = 0  # a single image: singular without the prior
    matrices, right = factors @ factors.transpose(0, 2, 1), rng.normal(size=(len(ball), 2, n_maps))
    row, column = np.tril_indices(n_maps)
    sums = np.concatenate([right[:, 0], right[:, 1], matrices[:, row, column]], axis=1)
    precision = rng.uniform(0.1, 2, (int(ball.shell.max()) + 3, n_maps))
    matrices = sums[:, 2 * n_maps :].astype(np.float32).astype(float)
    full = np.zeros((len(ball), n_maps, n_maps))
    full[:, row, column] = full[:, column, row] = matrices
    full += precision[ball.shell.numpy()][:, None] * np.eye(n_maps)
    return ball, torch.as_tensor(sums, dtype=torch.float32), torch.as_tensor(precision), full, right


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("n_maps", [1, 2, 5])
def test_solve_equals_numpy_voxel_by_voxel(n_maps, elsewhere):
    ball, sums, precision, matrices, right = equations(n_maps)
    solution, covariance = ball.solve(sums.as_subclass(Elsewhere) if elsewhere else sums, precision)
    expected = np.stack([np.linalg.solve(a, b.T).T.ravel() for a, b in zip(matrices, right, strict=True)])
    np.testing.assert_allclose(torch.Tensor(solution).numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    shell, inverse = ball.shell.numpy(), np.linalg.inv(matrices)
    for s in range(len(precision)):
        mean = inverse[shell == s].mean(0) if (shell == s).any() else np.zeros((n_maps, n_maps))
        np.testing.assert_allclose(covariance[s].numpy(), mean, rtol=1e-6, atol=1e-9)


# Volumes


def test_volumes_come_back_divided_by_the_fall_off_of_both_ways():
    ball = half_ball(SIZE, RADIUS, 1.5)
    maps = torch.stack([volume_of(*blobs(seed=s)) for s in range(2)])
    back = ball.to_volumes(ball.from_volumes(maps)) * fall(ball).square()
    near = grid(SIZE, 3).float().norm(dim=-1) < 0.45 * SIZE
    assert (back - maps)[:, near].abs().max() < 0.01 * maps.max()


def test_many_slices_inserted_and_solved_are_the_volume_again():
    """Closed-form slices give blobs of the right height: the fall-off of insertion is divided out."""
    plane, ball, rotations = half_plane(SIZE, RADIUS), half_ball(SIZE, RADIUS, 1.5), views(300)
    half = plane.multiplicity / 2
    for centre in ([5.0, 0.0, 0.0], [-3.0, 3.0, 3.0], [0.5, 0.0, -1.0]):
        scene = torch.tensor([centre]), torch.ones(1)
        values = transform_of(*scene, slice_coordinates(plane.frequencies, rotations))
        sums, parts = torch.zeros(len(ball), 3), torch.view_as_real(values * half)
        ball.insert(sums, plane.frequencies, rotations, parts, half.repeat(300, 1), torch.ones(300, 1))
        ball.close(sums, 1)
        solution, _ = ball.solve(sums, torch.full((30, 1), 1e-6, dtype=torch.float64))
        found, expected = ball.to_volumes(solution)[0], volume_of(*scene)
        height, uncorrected = (
            float((m * expected).sum() / expected.square().sum()) for m in (found, found * fall(ball))
        )
        assert height == pytest.approx(1, abs=0.03)
        assert np.linalg.norm(centre) < 5 or abs(uncorrected - 1) > 0.08
        near = grid(SIZE, 3).float().norm(dim=-1) < 0.4 * SIZE
        assert (found - expected)[near].norm() < 0.06 * expected.norm()


def fall(ball: HalfBall) -> Tensor:
    """Return the fall-off of trilinear interpolation at each voxel of a volume."""
    x, y, z = (np.sinc(part / ball.side) ** 2 for part in np.moveaxis(grid(ball.box_size, 3).numpy(), -1, 0))
    return torch.as_tensor(x * y * z, dtype=torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_everything_runs_on_a_gpu_and_gives_the_same():
    ball = half_ball(SIZE, RADIUS, 1.5)
    arguments, volumes = samples(ball, 2), torch.stack([volume_of(*blobs(seed=s)) for s in range(2)])
    lattice = ball.from_volumes(volumes)
    there = ball.from_volumes(volumes.cuda())
    torch.testing.assert_close(there.cpu(), lattice, rtol=1e-4, atol=1e-5)
    slices = ball.slices(there, *(part.cuda() for part in arguments[:2]))
    torch.testing.assert_close(slices.cpu(), ball.slices(lattice, *arguments[:2]), rtol=1e-3, atol=1e-4)
    results = []
    for device in ("cpu", "cuda"):
        sums = torch.zeros(len(ball), 7, device=device)
        parts = (*arguments[:-1], torch.tensor([[1.0, 0.2, 1.5]]).repeat(7, 1))
        ball.insert(sums, *(part.to(device) for part in parts))
        ball.close(sums, 2)
        solution, covariance = ball.solve(sums, torch.full((30, 2), 0.1, dtype=torch.float64, device=device))
        results.append([part.cpu() for part in (sums, solution, covariance, ball.to_volumes(solution))])
    for here, other in zip(*results, strict=True):
        torch.testing.assert_close(other, here, rtol=1e-3, atol=1e-3)
