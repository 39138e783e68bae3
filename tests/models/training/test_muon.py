"""Muon beside torch's own, which takes plain matrices only, and beside Adam."""

import math

import pytest
import torch
from torch import nn

from models.training.adam import Adam
from models.training.muon import RMS, Muon, as_matrix, like, orthogonal

RATE = 0.01


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def set_gradients(given: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in given:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_the_singular_values_of_an_update_are_about_1():
    generator = torch.Generator().manual_seed(0)
    shapes = [(12, 40), (40, 12), (12, 18), (16, 16), (12, 40)]
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    for matrix, found in zip(matrices, orthogonal(matrices), strict=True):
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.5
        assert values.max() < 1.3
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        nearest = left @ right
        assert found.shape == matrix.shape
        assert (found * nearest).sum() > 0.8 * nearest.square().sum()


def test_a_gradient_may_be_huge_or_nothing():
    huge, nothing = orthogonal([torch.full((3, 5), 1e18), torch.zeros(5, 3)])
    assert huge.isfinite().all()
    assert (nothing == 0).all()


def test_matrices_are_updated_as_by_torch_but_for_its_rounding_to_bfloat16():
    mine, other = parameters((8, 24), (24, 8)), parameters((8, 24), (24, 8))
    start = [p.detach().clone() for p in mine]
    muon = Muon(mine, mine)
    peer = torch.optim.Muon(
        other, lr=RATE, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(5):
        set_gradients(mine, step)
        set_gradients(other, step)
        muon.step(RATE)
        peer.step()
    for p, q, s in zip(mine, other, start, strict=True):
        moved, theirs = p - s, q - s
        assert (moved - theirs).norm() < 0.03 * theirs.norm()


def test_a_convolution_is_the_matrix_from_its_inputs_to_its_outputs():
    kernel, flat = parameters((6, 5, 3, 3), (6, 45))
    with torch.no_grad():
        flat.copy_(as_matrix(kernel))
    assert torch.equal(like(kernel, as_matrix(kernel)), kernel)
    image = torch.randn(1, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    patch = image.permute(0, 2, 3, 1).flatten()
    by_convolution = nn.functional.conv2d(image, kernel).flatten()
    torch.testing.assert_close(flat @ patch, by_convolution, rtol=1e-4, atol=1e-4)
    muons = [Muon([p], [p]) for p in (kernel, flat)]
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(2))
    flat.grad = as_matrix(kernel.grad).clone()
    for muon in muons:
        muon.step(RATE)
    torch.testing.assert_close(as_matrix(kernel), flat)


def test_an_update_is_as_large_as_one_of_adam():
    (matrix,) = parameters((32, 96))
    before = matrix.detach().clone()
    set_gradients([matrix], 0)
    Muon([matrix], [matrix]).step(RATE)
    moved = (matrix - before).square().mean().sqrt().item()
    assert moved == pytest.approx(RATE * RMS, rel=0.25)
    assert math.isclose(RMS, 0.2)  # the root mean square of Adam's updates, by the source


def test_all_other_parameters_are_left_to_adam():
    mine, other = parameters((8, 24), (7,)), parameters((8, 24), (7,))
    muon, adam = Muon(mine, mine[:1]), Adam(other)
    for step in range(3):
        set_gradients(mine, step)
        set_gradients(other, step)
        muon.step(RATE)
        adam.step(RATE)
    assert torch.equal(mine[1], other[1])
    assert not torch.equal(mine[0], other[0])


def test_a_parameter_without_a_gradient_stays():
    mine = parameters((8, 24), (24, 8))
    before = [p.detach().clone() for p in mine]
    muon = Muon(mine, mine)
    muon.step(RATE)
    set_gradients(mine[:1], 0)
    muon.step(RATE)
    assert not torch.equal(mine[0], before[0])
    assert torch.equal(mine[1], before[1])
