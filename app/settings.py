"""What the environment decides: DIFFUSION_HOST, DIFFUSION_PORT, ... Read once, in `main`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.engine.batcher import Batching
from models.nets.precision import Precision
from store.locations import Locations

MEBIBYTE = 2**20


class Settings(BaseSettings):
    """`locations` has the addresses that are left empty here."""

    model_config = SettingsConfigDict(
        env_prefix="DIFFUSION_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    data_dir: Path = Path("data")
    database_url: str = ""
    redis_url: str = ""
    artifacts_url: str = ""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"

    # What one request may ask for.
    max_upload_bytes: int = Field(default=32 * MEBIBYTE, ge=1)
    max_dataset_bytes: int = Field(default=8192 * MEBIBYTE, ge=1)
    max_model_bytes: int = Field(default=8192 * MEBIBYTE, ge=1)
    max_pixels: int = Field(default=4096 * 4096, ge=1)  # of one image, and of one answer
    max_images_per_request: int = Field(default=64, ge=1)
    max_images_per_job: int = Field(default=10_000, ge=1)  # of a request that becomes one
    max_inference_steps: int = Field(default=1000, ge=1)
    max_step_pixels: int = Field(default=1024 * 256 * 256, ge=1)  # steps x pixels of a noising walk

    features_folder: Path | None = None  # DINOv2, for evaluations that ask for it

    # What all requests together may keep waiting.
    max_waiting: int = Field(default=256, ge=1)
    max_waiting_walks: int = Field(default=8, ge=1)
    noise_seconds: float = Field(default=120.0, gt=0)  # what one noising may take
    noise_processes: int = Field(default=0, ge=0)  # 0: one more than cores

    # The sampling engine.
    engine_batching: Batching = "step"
    engine_precision: Precision = "float32"  # where a request does not say
    engine_compile: Literal["auto", "off"] = "auto"  # networks, where there is a C++ compiler
    engine_model_bytes: int = Field(default=4096 * MEBIBYTE, ge=1)  # of models kept at hand

    @property
    def locations(self) -> Locations:
        return Locations.of(self.data_dir, self.database_url, self.redis_url, self.artifacts_url)

    @property
    def embeds_valkey(self) -> bool:
        return not self.redis_url
