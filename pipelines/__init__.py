"""The stages of the pipeline, one thin entry point each."""

import os
import sys
from pathlib import Path

from pipelines.surroundings import start_clean

# Only a command of ours, not whoever imports a stage; Python calls itself "-m" while it looks for a module to run.
if sys.argv[0] == "-m" or Path(sys.argv[0]).name == "aimback":
    start_clean()

# A queued or temporary experiment runs in a copy of the repository, while the installed (editable)
# aimback is the original's: what lies beside this file comes first.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

if "DVC_STAGE" in os.environ:  # here, because importing PyTorch takes longer than dvc needs to die
    from pipelines.orphan import end_with_dvc

    end_with_dvc()
