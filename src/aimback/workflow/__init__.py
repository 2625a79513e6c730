"""What surrounds the stages: settings, jobs, commands."""

import aimback.runtime  # noqa: F401 - first, since it may start this process anew
