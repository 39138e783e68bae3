#!/usr/bin/env bash
# OpenVINO 2026.4.1, Linux, Python 3.11, an x86 processor with AVX2 and without VNNI.
#
# Expected: a convolution whose input and weights pass through FakeQuantize of 8 bits, all values being exactly representable, gives
# the exact sum: 576 for 3 x 3 x 64 products of 1.
# Seen: 291.4. Without VNNI two products of 8 by 8 bits are added in 16 bits, which saturate: 2 x 255 x 127 becomes 32767. Nothing warns.
# With 127 levels of the weights (7 bits) nothing can saturate, and the sum is 576.
set -euo pipefail
if grep -q vnni /proc/cpuinfo; then
    echo "this processor has VNNI; the finding is of those without"
    exit
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install openvino==2026.4.1 numpy
cat > "$folder/look.py" <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset15 as ops

CHANNELS = 64


def model(levels):
    x = ops.parameter([1, CHANNELS, 8, 8], np.float32)
    zero, one = np.float32(0), np.float32(1)
    ends = [np.full((CHANNELS, 1, 1, 1), end, np.float32) for end in (-1, 1, -1, 1)]
    weights = ops.constant(np.ones((CHANNELS, CHANNELS, 3, 3), np.float32))
    y = ops.convolution(
        ops.fake_quantize(x, zero, one, zero, one, 256),
        ops.fake_quantize(weights, *ends, levels),
        [1, 1], [1, 1], [1, 1], [1, 1],
    )
    return ov.Model([y], [x], "one")


for levels, expected in ((255, 291.4), (127, 576.0)):
    compiled = ov.Core().compile_model(model(levels), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inside = float(compiled([np.ones((1, CHANNELS, 8, 8), np.float32)])[0][0, 0, 4, 4])
    print(f"weights of {levels} levels: {inside:.1f} in place of {9 * CHANNELS}")
    assert abs(inside - expected) < 0.1
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
