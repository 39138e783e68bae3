"""The generator against the Random123 known answers, and its normals against the normal law."""

import math

import numpy as np
import pytest
import torch

from models.diffusion.noise import MAX_SEED, Stream, bits, box_muller, normal, philox, uniform
from models.fields import Invalid

KNOWN_ANSWERS = [  # Random123, kat_vectors, philox4x32 10
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, words):
    for array in (torch.tensor, np.array):
        result = philox([array([c]) for c in counter], key)
        assert tuple(word.item() for word in result) == words


def test_numpy_and_torch_give_the_same_bits():
    word = bits(5, torch.arange(40), 0, 5000).reshape(2, -1)
    word[:, :4] = torch.tensor([0, 1, 2**31, 2**32 - 1])
    for on_torch, on_numpy in zip(box_muller(*word), box_muller(*word.numpy()), strict=True):
        assert on_torch.numpy().tobytes() == on_numpy.tobytes()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits():
    image = torch.arange(40)
    for function in (normal, uniform):
        shape = ((3, 9, 7),) if function is normal else ()
        on_gpu = function(5, image.cuda(), 3, *shape, Stream.TRAINING)
        assert on_gpu.is_cuda
        assert torch.equal(on_gpu.cpu(), function(5, image, 3, *shape, Stream.TRAINING))


def test_normals_are_those_of_box_and_muller():
    word, turn = bits(5, torch.arange(40), 0, 5000).reshape(2, -1)
    u = (word.double() + 0.5).float().double() * 2.0**-32  # one near 1 is as precise as float32
    angle = turn.double() * 2.0**-31 * math.pi - math.pi / 4
    radius = (-2 * u.log()).sqrt()
    x, y = box_muller(word, turn)
    assert torch.allclose(x.double(), radius * angle.cos(), rtol=0, atol=2e-6)
    assert torch.allclose(y.double(), radius * angle.sin(), rtol=0, atol=2e-6)


def test_an_images_noise_does_not_depend_on_its_batch():
    crowd = normal(7, torch.tensor([5, 3, 900, 3]), 11, (3, 9, 7))
    alone = normal(7, torch.tensor([3]), 11, (3, 9, 7))
    assert torch.equal(crowd[1], alone[0])
    assert torch.equal(crowd[3], alone[0])


def test_rows_may_stand_at_different_steps():
    together = normal(7, torch.tensor([4, 4]), torch.tensor([0, 9]), (1, 8, 8))
    assert torch.equal(together[0], normal(7, torch.tensor([4]), 0, (1, 8, 8))[0])
    assert torch.equal(together[1], normal(7, torch.tensor([4]), 9, (1, 8, 8))[0])


def test_noise_does_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    many = normal(1, torch.arange(3), 0, (3, 101, 103))
    torch.set_num_threads(1)
    try:
        assert torch.equal(normal(1, torch.arange(3), 0, (3, 101, 103)), many)
    finally:
        torch.set_num_threads(threads)


def test_noise_is_standard_normal():
    x = normal(3, torch.arange(500), 0, (40, 50)).double().flatten()
    n = x.numel()
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((x**power).mean() - moment) < 5 * math.sqrt(variance / n)
    exact = torch.special.ndtr(x.sort().values)
    empirical = (torch.arange(n) + 0.5) / n
    assert (exact - empirical).abs().max() < 1.95 / math.sqrt(n)  # Kolmogorov-Smirnov, p = 0.001


@pytest.mark.parametrize("changed", ["seed", "index", "step", "stream"])
def test_noise_changes_with_each_of_its_arguments(changed):
    arguments = {"seed": 1, "index": torch.arange(64), "step": 2, "stream": Stream.IMAGE}
    other = arguments | {
        changed: {
            "seed": 2**40 + 1,
            "index": torch.arange(64) + 64,
            "step": 3,
            "stream": Stream.ORDER,
        }[changed]
    }
    one = normal(shape=(32, 32), **arguments)
    two = normal(shape=(32, 32), **other)
    correlation = (one * two).mean()
    assert abs(correlation) < 5 / math.sqrt(one.numel())


def test_uniform_lies_strictly_between_0_and_1():
    u = uniform(0, torch.arange(1000), 0, Stream.LEVEL, 100)
    assert 0 < u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * u.numel())


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused_with_its_bound(seed):
    with pytest.raises(Invalid, match=f"seed is {seed}.*{MAX_SEED}"):
        bits(seed, torch.arange(1), 0, 4)
