"""The verdict as a page, and one complete set of MLflow runs for this state of the pipeline.

Runs at the end of every `dvc repro`, because a stage that DVC restores from its cache logs nothing by
itself. Where everything is there already it is over in milliseconds: PyTorch and MLflow are imported
only where there is something to do.
"""

import json
from pathlib import Path
from typing import Any

from aimback.errors import UserError
from aimback.files import sha256, write_text
from aimback.tracking import is_published, publish
from pipelines.ending import ROOT, ending
from pipelines.params import read_params
from pipelines.runs import states, store

OUTPUTS = ROOT / "outputs"
REPORT = OUTPUTS / "report"
_REPORTED = REPORT / "states.json"
_PUBLISHED = REPORT / "published.json"


def main() -> None:
    with ending("publish"):
        tree = _params()
        known = states(list(tree["task"]))
        tracking = tree["tracking"]
        place = store(tracking["experiment"])
        wanted = sorted(known.values())
        reported = _read(_REPORTED) == wanted and (REPORT / "index.html").is_file()
        if reported and (not tracking["enabled"] or is_published(place, wanted, _PUBLISHED)):
            print("nothing to publish: outputs/report and MLflow are up to date")
            return
        from pipelines.results import Results  # imports PyTorch

        results = Results(tree, OUTPUTS)
        if not reported:
            results.write_report(REPORT)
            write_text(_REPORTED, json.dumps(wanted) + "\n")
        print("\n".join([*results.verdicts(), *results.rows()]))
        print("the report: outputs/report/index.html")
        if tracking["enabled"]:
            done = publish(place, wanted, lambda: results.runs(known, REPORT), _PUBLISHED)
            there = len(done.run_ids) - done.written
            print(
                f"MLflow: {done.written} runs written{f', {there} were there' if there else ''}; to see them: make ui"
            )


def _params() -> dict[str, Any]:
    """What the pipeline was run with.

    Raises:
        UserError: params.yaml is not what was composed, or the targets were edited since.
    """
    tree = read_params()
    targets = tree["targets"]
    if targets and (not Path(targets).is_file() or sha256(Path(targets)) != tree["targets_sha256"]):
        raise UserError(
            f"targets: {targets} was edited after the pipeline had read it; "
            "run `dvc repro --force --single-item compose && dvc repro`"
        )
    return tree


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main()
