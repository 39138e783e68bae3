"""Seconds of one call of the network, beside diffusers' UNet2DModel with the same weights.

Ours is measured as the engine calls it and, for comparison, by eager torch, and on a CPU by the
bare loops of OpenVINO and ONNX Runtime (always in float32), which bound what the engine can reach;
diffusers' eager and compiled. Each is in a process of its own. Our speed is also given as a share
of that of the machine's matrix products. bfloat16 is measured only if the machine multiplies
matrices faster in it. `--quick` measures the small net with two widths and fewer rounds, and writes
separate result files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import HERE, PEER_PYTHON, RESULTS, in_turn, ratio, save, seconds, table
from benchmarks.sampling import CONFIGS, DEVICE, Net, random_net

WIDTHS = (1, 4, 16, 64)
MIN_SECONDS = 0.3  # per turn: short calls are repeated, after one that is not timed
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of the largest output
OURS, OURS_EAGER = "this service", "ours, eager torch"
BARE, BARE_ONNX = "OpenVINO, bare", "ONNX Runtime, bare"
DIFFUSERS, DIFFUSERS_COMPILED = "diffusers", "diffusers, torch.compile"
_OURS = (sys.executable, "-m", "benchmarks.denoise_process")
_PEER = (PEER_PYTHON, HERE / "peers" / "denoise_process.py")
CONTENDERS: dict[str, tuple[tuple[str | Path, ...], dict[str, object]]] = {
    OURS: ((*_OURS, "engine"), {}),
    OURS_EAGER: ((*_OURS, "eager"), {}),
    **(
        {BARE: ((*_OURS, "openvino"), {}), BARE_ONNX: ((*_OURS, "onnxruntime"), {})}
        if DEVICE == "cpu"
        else {}
    ),
    DIFFUSERS: (_PEER, {"compiled": False}),
    DIFFUSERS_COMPILED: (_PEER, {"compiled": True}),
}
COLUMNS = tuple(CONTENDERS)
MARKERS = ("o-", "o:", "v:", "^:", "s-", "s:") if DEVICE == "cpu" else ("o-", "o:", "s-", "s:")
PEAK_SECONDS = 2.0
PRODUCT = {"cpu": 1024, "cuda": 8192}  # rows of the matrices that measure the machine's speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nets", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS)
    options = parser.parse_args()
    rounds, widths, names = 5, options.widths, options.nets
    if options.quick:
        rounds, widths, names = 3, (1, 4), ["8 px"]
    peaks = {dtype: peak(dtype) for dtype in ("float32", "bfloat16")}
    print(f"matrix products, operations per second: {peaks}", file=sys.stderr)
    dtypes = [dtype for dtype in peaks if peaks[dtype] >= peaks["float32"]]
    cases = []
    for name in names:
        with random_net(name) as net, ExitStack() as stack:
            processes = {
                column: stack.enter_context(Process(net, command, **request))
                for column, (command, request) in CONTENDERS.items()
            }
            for dtype in dtypes:
                for width in widths:
                    cases.append(measure(net, width, dtype, processes, rounds, peaks[dtype]))
    report("denoise-part" if options.quick else "denoise", cases, rounds, peaks)


def peak(dtype: str) -> float:
    """Return the operations per second of the fastest of some matrix products."""
    side = PRODUCT[DEVICE]
    a = torch.randn(side, side).to(DEVICE, getattr(torch, dtype))

    def product() -> None:
        torch.mm(a, a)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    times = [seconds(product)]
    while sum(times) < PEAK_SECONDS:
        times.append(seconds(product))
    return 2 * side**3 / min(times)


def measure(
    net: Net,
    width: int,
    dtype: str,
    processes: dict[str, "Process"],
    rounds: int,
    peak_speed: float,
) -> dict[str, Any]:
    shape = (width, net.load().config.channels, *net.load().config.image_size)
    draw = np.random.default_rng(0)
    x = draw.standard_normal(shape, np.float32)
    c_noise = 1000.0 * draw.random(width, np.float32)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, x=x, c_noise=c_noise)
        file.flush()
        expected = processes[DIFFUSERS].output("float32", file.name)
        for column, process in processes.items():
            compare(column, process.output(dtype, file.name), expected, dtype)
        contenders = {
            column: partial(process.seconds, dtype, file.name)
            for column, process in processes.items()
        }
        figures = in_turn(contenders, rounds)
    operations = count_operations(net, x, c_noise)
    entry = {
        "net": str(net),
        "width": width,
        "dtype": dtype,
        "seconds": figures,
        "operations": operations,
        "share_of_peak": operations / median(figures[OURS]) / peak_speed,
        "speed_up_over": {column: ratio(figures, column, OURS) for column in COLUMNS[1:]},
    }
    print({key: value for key, value in entry.items() if key != "seconds"}, file=sys.stderr)
    return entry


def compare(what: str, found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    """Raise AssertionError if the same weights do not give the same output."""
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE[dtype]:
        raise AssertionError(f"{what}: off by {error} of the largest output")


@torch.inference_mode()
def count_operations(net: Net, x: np.ndarray, c_noise: np.ndarray) -> int:
    """Count a call's operations in convolutions and matrix products; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        net.load().net(torch.from_numpy(x).to(DEVICE), torch.from_numpy(c_noise).to(DEVICE))
    return int(counter.get_total_flops())


class Process:
    """A contender in a process of its own, which answers to lines of JSON."""

    def __init__(self, net: Net, command: Sequence[str | Path], **request: object) -> None:
        self._given = request
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "MODEL_FOLDER": str(net.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, at which it exits

    def seconds(self, dtype: str, inputs: str) -> float:
        """Return the seconds of a call, measured in its process."""
        return self._request(dtype=dtype, inputs=inputs, seconds=MIN_SECONDS)

    def output(self, dtype: str, inputs: str) -> np.ndarray:
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            self._request(dtype=dtype, inputs=inputs, seconds=0, output=file.name)
            return np.asarray(np.load(file.name))

    def _request(self, **request: object) -> float:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        requests.write(json.dumps({**self._given, **request}) + "\n")
        requests.flush()
        return float(json.loads(answers.readline())["seconds"])


def report(result: str, cases: list[dict[str, Any]], rounds: int, peaks: dict[str, float]) -> None:
    save(result, {"rounds": rounds, "matrix_products_per_second": peaks, "cases": cases})
    rows = []
    for entry in cases:
        times = [f"{1e3 * median(entry['seconds'][column]):.2f}" for column in COLUMNS]
        ratios = entry["speed_up_over"].values()
        share = f"{100 * entry['share_of_peak']:.0f}%"
        rows.append([label(entry), *times, *(f"{value:.2f}" for value in ratios), share])
    header = ["net, dtype x width", *(f"{column}, ms" for column in COLUMNS)]
    header += [*(f"{column} to ours" for column in COLUMNS[1:]), "share of peak"]
    print(table(header, rows))
    plot(cases, RESULTS / f"{result}.png")


def label(entry: dict[str, Any]) -> str:
    return f"{entry['net']}, {entry['dtype']} x {entry['width']}"


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    """Plot the milliseconds of one evaluation over the width of the call."""
    matplotlib.use("Agg")
    kinds = list(dict.fromkeys((entry["net"], entry["dtype"]) for entry in cases))
    figure, panels = plt.subplots(
        1, len(kinds), figsize=(1 + 4 * len(kinds), 4), layout="constrained", squeeze=False
    )
    for axes, kind in zip(panels[0], kinds, strict=True):
        entries = [entry for entry in cases if (entry["net"], entry["dtype"]) == kind]
        widths = [entry["width"] for entry in entries]
        for column, marker in zip(COLUMNS, MARKERS, strict=False):
            times = [1e3 * median(entry["seconds"][column]) / entry["width"] for entry in entries]
            axes.semilogx(widths, times, marker, label=column, alpha=0.8)
        axes.set_ylim(bottom=0)
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
        axes.set(title=", ".join(kind), xlabel="width", ylabel="milliseconds / width")
        axes.grid(alpha=0.3)
    panels[0][0].legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
