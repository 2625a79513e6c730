"""The stages of dvc.yaml, one thin entry point each."""

import sys
from pathlib import Path

# A queued or temporary experiment runs in a copy of the repository, while the installed (editable)
# aimback is the original's: what lies beside this file comes first.
if __name__ == "pipelines":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import aimback.runtime  # noqa: F401 - before all else, since it may start this process anew
