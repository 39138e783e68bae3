#!/usr/bin/env bash
# diffusers 0.42.1 (torch 2.13.0), Linux, Python 3.11.
#
# Expected: FlowMatchEulerDiscreteScheduler with n steps divides 1..0 into n steps of equal length: 4 steps visit the noise levels 1,
# 0.75, 0.5, 0.25 and 0.
# Seen: it visits 1, 0.667, 0.334, 0.001 and 0. The levels end at that of the first training timestep, 1/1000, and 0 is appended, so
# that the last of n calls of the network moves by 0.001: 4 steps do the work of 3. Levels that are passed are taken as they are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install diffusers==0.42.1 torch==2.13.0 numpy
cat > "$folder/look.py" <<'PYTHON'
from diffusers import FlowMatchEulerDiscreteScheduler

scheduler = FlowMatchEulerDiscreteScheduler()
for given in ({"num_inference_steps": 4}, {"sigmas": [1.0, 0.75, 0.5, 0.25]}):
    scheduler.set_timesteps(**given)
    levels = [round(sigma, 3) for sigma in scheduler.sigmas.tolist()]
    print(given, "visits", levels)
    assert levels == ([1.0, 0.75, 0.5, 0.25, 0.0] if "sigmas" in given else [1.0, 0.667, 0.334, 0.001, 0.0])
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
