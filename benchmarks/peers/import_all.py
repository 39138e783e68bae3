"""Import every peer once, so that a package which does not load is found when it is installed."""

import importlib
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("*.py")):
    if path.stem != "import_all":
        importlib.import_module(path.stem)
