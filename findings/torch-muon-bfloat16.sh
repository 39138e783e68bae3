#!/usr/bin/env bash
# torch 2.13.0, Linux, Python 3.11.
#
# torch.optim.Muon on one matrix of float64, with the gradient in float64.
#
# Expected: an update in the precision of the parameter, as from torch.optim.AdamW.
# Seen: it is computed in bfloat16 whatever the parameter is: of a weight that begins at 0 each number is one of bfloat16 after a step with
# learning rate 1. A convolution's weight is refused by the constructor, with a ValueError that says so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 numpy
cat > "$folder/look.py" <<'PYTHON'
import torch

gradient = torch.randn(8, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def stepped(optimizer):
    weight = torch.nn.Parameter(torch.zeros(8, 24, dtype=torch.float64))
    weight.grad = gradient.clone()
    optimizer([weight], lr=1.0, weight_decay=0.0).step()
    return weight.detach()


for optimizer in (torch.optim.AdamW, torch.optim.Muon):
    update = stepped(optimizer)
    rounded = bool((update.bfloat16().double() == update).all())
    print(optimizer.__name__, "numbers of bfloat16 only:", rounded)
    assert rounded == (optimizer is torch.optim.Muon)

try:
    torch.optim.Muon([torch.nn.Parameter(torch.zeros(4, 3, 3, 3))])
    raise SystemExit("a convolution is taken")
except ValueError as error:
    print("a convolution:", error)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
