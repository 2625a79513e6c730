"""How a process of ours starts, ends, dies and is mended after."""

import os
import sys
from pathlib import Path

from aimback.runtime.project import IS_CHECKOUT, ROOT, find_project
from aimback.runtime.surroundings import start_clean

# Only a command of ours, not whoever imports this; Python calls itself "-m" while it looks for a module to run.
if sys.argv[0] == "-m" or Path(sys.argv[0]).name == "aimback":
    start_clean()

# A user's own package is that of the project, and of DVC's copy of it for an experiment, whatever is installed.
if not IS_CHECKOUT and find_project(ROOT) == ROOT:
    sys.path.insert(0, str(ROOT / "src"))

if "DVC_STAGE" in os.environ:  # here, because importing PyTorch takes longer than dvc needs to die
    from aimback.runtime.orphan import end_with_parent
    from aimback.runtime.preload import hand_over

    end_with_parent()
    if sys.argv[0] == "-m":
        hand_over()
