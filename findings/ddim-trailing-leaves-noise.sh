#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0), Linux, Python 3.11.
#
# DDIMScheduler with timestep_spacing="trailing", 1,000 training timesteps and set_alpha_to_one=True, with a perfect predictor: every
# image of the data is the same, so the noise in x_t is known exactly.
#
# Expected: any number of steps ends at the clean image, as with the spacings "leading" and "linspace".
# Seen: it does where the number divides 1000, and for some others, such as 8 and 30. With 7, 15, 60 or 64 steps the last step goes
# to t = 0 in place of the clean image, and 0.02 of noise stays in it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install diffusers==0.42.1 torch==2.13.0 numpy
cat > "$folder/look.py" <<'PYTHON'
import torch
from diffusers import DDIMScheduler


def error(num_steps, spacing):
    scheduler = DDIMScheduler(timestep_spacing=spacing, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(num_steps)
    x0 = torch.full((1, 1, 4, 4), 0.5)
    x = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        abar = scheduler.alphas_cumprod[t]
        noise = (x - abar.sqrt() * x0) / (1 - abar).sqrt()
        x = scheduler.step(noise, t, x).prev_sample
    return (x - x0).abs().max().item()


ends_clean, leaves_noise = (5, 8, 10, 20, 30, 50), (7, 15, 60, 64)
for num_steps in ends_clean + leaves_noise:
    errors = {spacing: round(error(num_steps, spacing), 4) for spacing in ("leading", "linspace", "trailing")}
    print(num_steps, "steps, largest error:", errors)
    assert max(errors["leading"], errors["linspace"]) < 1e-4
    assert (errors["trailing"] > 0.01) == (num_steps in leaves_noise)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
