"""Dropout against its definition."""

import pytest
import torch
from torch.testing import assert_close

from models.nets.dropout import Dropout

SHAPES = [(7,), (5, 3), (64, 24, 9, 7)]


@pytest.mark.parametrize("p", [0.1, 0.25, 0.9])
def test_drops_a_share_of_p_and_keeps_the_mean(p):
    torch.manual_seed(0)
    y = Dropout(p)(torch.ones(1_000_000))
    exact = round(256 * p) / 256
    dropped = y == 0
    assert dropped.double().mean().item() == pytest.approx(exact, abs=5 * (p / 1_000_000) ** 0.5)
    assert_close(y[~dropped], torch.full_like(y[~dropped], 1 / (1 - exact)))
    assert exact == pytest.approx(p, abs=1 / 512)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_places_are_dropped_independently_of_their_neighbours(axis):
    torch.manual_seed(1)
    x = torch.ones(40, 40, 40, 40).contiguous(memory_format=torch.channels_last)
    dropped = (Dropout(0.25)(x) == 0).double()
    here, next_one = dropped.narrow(axis, 0, 39), dropped.narrow(axis, 1, 39)
    together = (here * next_one).mean().item()
    assert together == pytest.approx(0.25**2, abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_seed_same_mask_in_shape_type_and_layout(shape, dtype):
    x = torch.randn(shape).to(dtype)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(Dropout(0.5)(x))
    same, again, other = results
    assert torch.equal(same, again)
    assert same.dtype == dtype
    assert same.stride() == x.stride()
    assert x.numel() < 100 or not torch.equal(same, other)


def test_a_value_kept_has_the_gradient_of_its_scale():
    torch.manual_seed(5)
    x = torch.randn(8, 4, 6, 6, requires_grad=True)
    y = Dropout(0.25)(x)
    y.sum().backward()
    assert_close(x.grad, torch.where(y == 0, 0.0, 1 / 0.75))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_slice_is_as_good_as_a_whole(shape):
    x = torch.ones(2, *shape)[1].transpose(0, -1)
    assert set(Dropout(0.5)(x).unique().tolist()) <= {0.0, 2.0}


def test_nothing_happens_outside_of_training_and_at_zero():
    x = torch.randn(100)
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5).eval()(x) is x
