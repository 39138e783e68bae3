"""How likely a model finds an image: bits per dimension by the probability-flow ODE.

Song et al. 2021, section 4.3, with the divergence estimated as in FFJORD (Grathwohl et al. 2019).
In x = x_t / alpha_t and r = sigma_t / alpha_t every schedule's ODE is dx / d ln r = x - D(x, r),
D being the denoiser. It is solved for z = x / rho, rho^2 = r^2 + s^2, s being the model's
sigma_data: where the data is N(0, s^2), z stands still. With d dimensions

    dz / d ln r = (x - D) / rho - (r / rho)^2 z
    d ln p(z) / d ln r = tr(dD / dx) - d (s / rho)^2

by Runge-Kutta steps of fourth order, even in ln r. At the last level with signal, z is taken as
N(0, I): that neglects the data's mean beside the noise.

An image's 8 bits are made continuous by uniform noise as wide as one of the 256 values. r0 is the
level whose noise is as strong as that, or the model's first level if that is higher: below it the
ODE would resolve the gaps between the values. The result bounds the bits of the 8-bit image from
above, if the steps are fine enough, and it varies with the noise.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from models.arrays import Float64, Int64, UInt8
from models.diffusion.denoiser import NoiseLevels, denoise
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import MAX_SEED, Stream, bits, uniform
from models.diffusion.schedule import NoiseSchedule
from models.evaluation.config import MAX_PROBES, MAX_STEPS
from models.fields import check_whole
from models.sampling.generate import BATCH_SIZE, Stopped

VALUE_WIDTH = 1 / 127.5  # between neighbours among the 256 values, in [-1, 1]
ROUNDING_STD = VALUE_WIDTH / math.sqrt(12)
# The trainer's error by level uses steps up to 10,000 of this stream.
_FRACTION, _PROBE = 2**30, 2**31

Denoiser = Callable[[Tensor, float], Tensor]
"""(x (B, ...), r) to x0_hat (B, ...), which can be differentiated by x."""

Trace = Callable[[Tensor, Tensor, int], Tensor]
"""(x0_hat, x, step) to tr(d x0_hat / dx) (B,)."""


def bits_per_dimension(
    model: DiffusionModel,
    images: UInt8,
    labels: Int64 | None = None,
    seed: int = 0,
    num_steps: int = 20,
    probes: int = 1,
    stopped: Callable[[], bool] = lambda: False,
) -> Float64:
    """Return the bits per dimension of each image (N, H, W, C): float64 (N,).

    `labels` are indices of the model's classes; None means any class. Image i's noise is a function
    of (seed, i). Raises Invalid for numbers out of bounds, and Stopped between batches once
    `stopped` returns True.
    """
    check_whole("seed", seed, 0, MAX_SEED)
    check_whole("num_steps", num_steps, 1, MAX_STEPS)
    check_whole("probes", probes, 1, MAX_PROBES)
    ratios, sigma_data = flow_ratios(model.schedule, num_steps), model.prediction.sigma_data
    results = []
    for start in range(0, len(images), BATCH_SIZE):
        if stopped():
            raise Stopped
        part = slice(start, start + BATCH_SIZE)
        index = torch.arange(start, start + len(images[part]))
        x = dequantised(images[part], seed, index).to(model.device)
        label = None if labels is None else torch.from_numpy(labels[part])
        trace = hutchinson_trace(seed, index.to(model.device), probes)
        log_p = flow_log_density(_denoiser_of(model, label), x, ratios, sigma_data, trace)
        results.append(bits_of(log_p.cpu().numpy(), x[0].numel()))
    return np.concatenate(results) if results else np.zeros(0)


def flow_log_density(
    denoiser: Denoiser, x: Tensor, ratios: Float64, sigma_data: float, trace: Trace
) -> Tensor:
    """Return ln p of x (B, ...) at the level ratios[0], in nats, (B,) in x's own precision.
    `ratios` ascend."""
    dimensions = x[0].numel()

    def slope(z: Tensor, log_r: float, step: int) -> tuple[Tensor, Tensor]:
        r = math.exp(log_r)
        rho = math.hypot(r, sigma_data)
        with torch.enable_grad():
            x = (z * rho).detach().requires_grad_()
            x0_hat = denoiser(x, r)
            growth = dimensions * (sigma_data / rho) ** 2 - trace(x0_hat, x, step)
        return ((x - x0_hat) / rho - z * (r / rho) ** 2).detach(), growth.detach()

    z = x / math.hypot(float(ratios[0]), sigma_data)
    gained = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    # All slopes of a step use one probe, so that they belong to one smooth ODE.
    for step, (low, high) in enumerate(pairwise(np.log(ratios).tolist())):
        h, middle = high - low, (low + high) / 2.0
        k1, g1 = slope(z, low, step)
        k2, g2 = slope(z + h / 2.0 * k1, middle, step)
        k3, g3 = slope(z + h / 2.0 * k2, middle, step)
        k4, g4 = slope(z + h * k3, high, step)
        z = z + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        gained = gained + h / 6.0 * (g1 + 2.0 * g2 + 2.0 * g3 + g4)
    prior = -0.5 * (z.flatten(1).square().sum(dim=1) + dimensions * math.log(2.0 * math.pi))
    return prior + gained - dimensions * math.log(math.hypot(float(ratios[0]), sigma_data))


def flow_ratios(schedule: NoiseSchedule, num_steps: int) -> Float64:
    """Return sigma / alpha of the num_steps + 1 levels, evenly spaced in the logarithm, rising."""
    rows = np.flatnonzero(schedule.alpha[1:] > 0.0) + 1
    first, last = (float(schedule.sigma[t] / schedule.alpha[t]) for t in (rows[0], rows[-1]))
    first = min(max(first, ROUNDING_STD), last)
    return np.asarray(np.geomspace(first, last, num_steps + 1).clip(first, last))


def dequantised(images: UInt8, seed: int, index: Tensor) -> Tensor:
    """Return uint8 (B, H, W, C) as float64 (B, C, H, W), each value at random in its own 256th."""
    values = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).double()
    u = uniform(seed, index, _FRACTION, Stream.HELD_OUT, values[0].numel())
    return (values + u.reshape(values.shape) - 0.5) * VALUE_WIDTH - 1.0


def bits_of(log_p: Float64, dimensions: int) -> Float64:
    """Return the bits per dimension of 8-bit images whose continuous density in [-1, 1] is
    exp(log_p)."""
    return np.asarray((-log_p / dimensions - math.log(VALUE_WIDTH)) / math.log(2.0))


# Traces -------------------------------------------------------------------------------------------


def hutchinson_trace(seed: int, index: Tensor, probes: int = 1) -> Trace:
    """Return an estimator of the trace: the mean of e^T J e over probes e of +-1, functions of
    (seed, index, step)."""

    def trace(x0_hat: Tensor, x: Tensor, step: int) -> Tensor:
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for k in range(probes):
            words = bits(seed, index, _PROBE + step * probes + k, x[0].numel(), Stream.HELD_OUT)
            probe = ((words & 1) * 2 - 1).to(x.dtype).reshape(x.shape)
            (product,) = torch.autograd.grad(x0_hat, x, probe, retain_graph=k + 1 < probes)
            total += (product * probe).flatten(1).sum(dim=1)
        return total / probes

    return trace


def exact_trace(x0_hat: Tensor, x: Tensor, step: int) -> Tensor:
    """Return the trace by one derivative per dimension, which suits few dimensions only."""
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for i in range(x[0].numel()):
        (row,) = torch.autograd.grad(x0_hat.flatten(1)[:, i].sum(), x, retain_graph=True)
        total += row.flatten(1)[:, i]
    return total


# The model ----------------------------------------------------------------------------------------


def _denoiser_of(model: DiffusionModel, label: Tensor | None) -> Denoiser:
    def denoiser(x: Tensor, r: float) -> Tensor:
        levels = NoiseLevels.of_ratio(model, np.full(len(x), r))
        classes = label
        if classes is None and model.config.class_names:
            classes = torch.full((len(x),), model.null_label)
        classes = None if classes is None else classes.to(x.device)
        return denoise(model, (x * float(levels.alpha[0])).float(), levels, classes).to(x.dtype)

    return denoiser
