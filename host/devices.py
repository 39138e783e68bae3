"""What trainers of this host compute on, told without loading torch."""

from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_BF16 = {"avx512_bf16", "amx_bf16"}


def num_gpus() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def device_of_host(setting: str) -> str:
    """One of models.training.defaults.DEVICES. `setting` is DIFFUSION_DEVICE; where it is empty, a
    GPU where the driver shows one."""
    if setting.startswith("cuda") or (not setting and num_gpus()):
        return "cuda"
    return "cpu_bf16" if _BF16 & _flags() else "cpu"


def _flags() -> set[str]:
    """Of the first processor; none where the system does not say."""
    if not _CPU_INFO.exists():
        return set()
    for line in _CPU_INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()
