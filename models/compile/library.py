"""A network compiled for one width of call: its variant, and the call.

AOTInductor makes a shared library of the network's operations without its weights, so that one
library serves every model of that architecture. models.compile.compiler builds them, each in a
process of its own (models.compile.build_process), and keeps them as files.
"""

import hashlib
import json
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.nets import unet
from models.nets.unet import UNet, UNetConfig


@dataclass(frozen=True)
class Variant:
    """The calls that a library is made for: x is (width, C, *image_size) of `dtype`, a name of
    torch's, in channels_last; its loops are split among `threads` threads."""

    net: UNetConfig
    image_size: tuple[int, int]
    width: int
    dtype: str
    threads: int

    @property
    def name(self) -> str:
        """The name of its file. It differs with everything that may change the machine code: the
        variant, torch, the processor, and the source of the network."""
        source = hashlib.sha256(Path(unet.__file__).read_bytes()).hexdigest()
        parts = [asdict(self), torch.__version__, _processor(), source]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32] + ".so"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Variant":
        values = json.loads(text)
        net = UNetConfig.from_dict(values.pop("net"))
        return cls(net, tuple(values.pop("image_size")), **values)

    def inputs(self) -> tuple[Tensor, ...]:
        """Make some x and c_noise, and labels where the network has classes."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.width, self.net.in_channels, *self.image_size)
        x = torch.randn(shape, generator=generator).to(getattr(torch, self.dtype))
        c_noise = 1000.0 * torch.rand(self.width, generator=generator)
        inputs = (x.contiguous(memory_format=torch.channels_last), c_noise)
        if self.net.num_class_embeds is None:
            return inputs
        labels = torch.randint(self.net.num_class_embeds, (self.width,), generator=generator)
        return *inputs, labels


class CompiledNet:
    """A callable like `net`, whose weights it uses: on the CPU, in the variant's dtype and in
    channels_last. Nothing checks the arguments of a call."""

    def __init__(self, library: Path, net: UNet) -> None:
        """Load a library. Raises RuntimeError where that fails or it does not suit the network."""
        self._runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)
        state = net.state_dict()
        names = self._runner.get_constant_names_to_original_fqns()
        if unlike := set(names.values()) ^ state.keys():
            raise RuntimeError(f"{library.name} is of a network that differs in {sorted(unlike)}")
        # The library only has pointers to them.
        self._weights = {name: state[original] for name, original in names.items()}
        self._runner.update_constant_buffer(self._weights, False, True, True)

    def __call__(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        inputs = [x, c_noise] if label is None else [x, c_noise, label]
        (y,) = self._runner.run(inputs)
        return y


def _processor() -> str:
    """Return the processor's name and abilities: code made for one may not run on another."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kinds = ("model name", "flags", "Features")
        return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))
    return f"{platform.machine()} {platform.processor()}"
