#!/usr/bin/env bash
# torch 2.13.0, Linux, Python 3.11.
#
# Expected: making an eager optimiser, such as torch.optim.Adam over one parameter, needs nothing of torch's compiler.
# Seen: the first one imports torch._dynamo, with 823 further modules in all, 1.8 s of CPU time on one core of an
# AMD EPYC, although nothing is compiled. The functions behind the classes
# (torch.optim.adamw.adamw) update the same parameters to the same bits without that import.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 numpy
cat > "$folder/look.py" <<'PYTHON'
import sys
import time

import torch
from torch.optim.adamw import adamw

assert torch.__version__.startswith("2.13.0"), torch.__version__


def parameter():
    made = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    made.grad = torch.full_like(made, 0.5)
    return made


first = parameter()
moments = [torch.zeros_like(first)], [torch.zeros_like(first)]
with torch.no_grad():
    adamw(
        [first], [first.grad], *moments, [], [torch.zeros(())], amsgrad=False, beta1=0.9, beta2=0.999,
        lr=0.1, weight_decay=0.0, eps=1e-8, maximize=False,
    )
assert "torch._dynamo" not in sys.modules, "the function imports the compiler, too"
before, begun = len(sys.modules), time.process_time()
second = parameter()
optimizer = torch.optim.Adam([second], lr=0.1)
seconds, added = time.process_time() - begun, len(sys.modules) - before
optimizer.step()
assert torch.equal(first, second), (first, second)
assert "torch._dynamo" in sys.modules, "the class no longer imports the compiler"
assert added > 200, added
print(f"torch.optim.Adam imported {added} modules, torch._dynamo among them, in {seconds:.1f} s")
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
