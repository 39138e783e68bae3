"""The compiler of one network: `python -m models.compile.build_process VARIANT FILE SCRATCH`.

VARIANT is JSON; temporary files lie in the folder SCRATCH.

It is a process of its own, since tracing holds the interpreter lock for seconds: in the engine's
process that would pause all requests. It yields to everything else on the machine, compares its
library with the network itself, and only then puts it at FILE; an empty file where the library is
no faster, as happens where a call is nearly all convolutions. It ends, with the compiler that it
runs, when its standard input ends; its parent starts it in a session of its own.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from host.loading import loading

with loading():
    import torch
    import torch._inductor
    from torch import Tensor

    from host.lifeline import end_with_parent
    from host.priority import yield_to_others
    from models.compile.library import CompiledNet, Variant
    from models.nets.unet import UNet

NICENESS = 19
TIMED_CALLS = 5
MIN_GAIN = 0.97  # of the eager time; a smaller gain is within measurement noise
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of the largest output


def main() -> None:
    end_with_parent(lambda: os.killpg(0, signal.SIGKILL))
    yield_to_others(NICENESS)
    variant, library, scratch = Variant.from_json(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TMPDIR"] = scratch
    torch.set_num_threads(variant.threads)
    unchecked = Path(scratch, "unchecked.so")
    build(variant, some_net(variant, seed=0), unchecked)
    if is_worth_it(variant, some_net(variant, seed=1), unchecked):
        unchecked.replace(library)
    else:
        library.touch()


@torch.no_grad()
def build(variant: Variant, net: UNet, library: Path) -> None:
    options = {
        "always_keep_tensor_constants": True,  # else short ones become part of the code
        "aot_inductor.package_constants_in_so": False,
        "aot_inductor.precompile_headers": False,  # pays from the second build on, and is large
        "aot_inductor.output_path": str(library),
    }
    program = torch.export.export(net, variant.inputs())
    torch._inductor.aot_compile(program.module(), variant.inputs(), options=options)


@torch.inference_mode()
def is_worth_it(variant: Variant, net: UNet, library: Path) -> bool:
    """Tell whether the library is faster than the network. `net` has other weights than the network
    of the build. Raises RuntimeError where their outputs differ."""
    torch.set_num_threads(1)  # several would wait for each other while the machine is in use
    compiled, inputs = CompiledNet(library, net), variant.inputs()
    y: Tensor = net(*inputs).float()
    error = (compiled(*inputs).float() - y).abs().max() / y.abs().max()
    if not error <= TOLERANCE[variant.dtype]:
        raise RuntimeError(f"the compiled network is off by {error} of its largest output")
    calls = partial(compiled, *inputs), partial(net, *inputs)
    times = [[_cpu_seconds(call) for call in calls] for _ in range(TIMED_CALLS)]
    compiled_seconds, eager_seconds = (min(column) for column in zip(*times, strict=True))
    return bool(compiled_seconds < MIN_GAIN * eager_seconds)


def _cpu_seconds(call: Callable[[], Tensor]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def some_net(variant: Variant, seed: int) -> UNet:
    """Make a network whose weights all differ, so that none can be mistaken for a constant."""
    torch.manual_seed(seed)
    net = UNet(variant.net).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    net.to(getattr(torch, variant.dtype)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


if __name__ == "__main__":
    main()
