"""The benchmark's modules are found by their own names, as its programs find them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "bench"))
