"""The devices of this host, and whether it has torch, found without loading it."""

from importlib.util import find_spec
from pathlib import Path

NO_TORCH = "torch is not installed; the extra `train` brings it: pip install '.[train]'"

_CPU_INFO = Path("/proc/cpuinfo")
_BF16 = {"avx512_bf16", "amx_bf16"}


def has_torch() -> bool:
    """Return whether torch is installed. Hosts that only serve do without it."""
    return find_spec("torch") is not None


def num_gpus() -> int:
    """Return the number of GPUs that NVIDIA's driver shows."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def device_of_host(setting: str) -> str:
    """Return one of models.training.defaults.DEVICES.

    `setting` is DIFFUSION_DEVICE; if it is empty, a GPU is used if the driver shows one and torch
    is installed.
    """
    if setting.startswith("cuda") or (not setting and num_gpus() and has_torch()):
        return "cuda"
    return "cpu_bf16" if _BF16 & _flags() else "cpu"


def _flags() -> set[str]:
    """Return the flags of the first processor; none if the system does not report them."""
    if not _CPU_INFO.exists():
        return set()
    for line in _CPU_INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()
