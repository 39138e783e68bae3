"""The answers of GET /schedules."""

from pydantic import BaseModel, Field

from models.diffusion.schedule import ScheduleName


class ScheduleSummary(BaseModel):
    name: ScheduleName
    description: str
    is_variance_preserving: bool = Field(description="alpha^2 + sigma^2 = 1 at every t")
    default_num_train_timesteps: int
    url: str


class ScheduleList(BaseModel):
    schedules: list[ScheduleSummary]


class ScheduleTables(BaseModel):
    """x_t = alphas[t] x_0 + sigmas[t] noise. Index 0 is the clean image; `betas` has one value for
    each step, so betas[0] leads from t = 0 to t = 1."""

    name: ScheduleName
    num_train_timesteps: int
    rescale_zero_terminal_snr: bool
    is_variance_preserving: bool
    alphas: list[float]
    sigmas: list[float]
    snr: list[float | None] = Field(description="alpha^2 / sigma^2; null at t = 0: infinite")
    alphas_cumprod: list[float] = Field(
        description="alpha^2 / (alpha^2 + sigma^2); alpha_t of the DDIM paper"
    )
    betas: list[float]
