"""What a run of the pipeline found out, put together for the report and for MLflow."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aimback.core.files import write_text
from aimback.core.repository import has_changes, head_commit
from aimback.report.page import write_report
from aimback.report.provenance import Provenance
from aimback.report.published import read_published
from aimback.report.result import list_routes, read_result
from aimback.report.terminal import summarise
from aimback.runtime.project import ROOT
from aimback.settings.tree import read_settings
from aimback.tracking import Run, flatten
from aimback.workflow.compose import compose_settings
from aimback.workflow.records import Record

_VERSIONS = ("aimback", "torch", "numpy", "pytorch-lightning")


class Results:
    """The results of all tasks.

    Args:
        tree: the configuration that they were made with.
        outputs: the folder that the stages wrote to.
    """

    def __init__(self, tree: Mapping[str, Any], outputs: Path) -> None:
        self._settings, self._outputs = read_settings(tree), outputs
        settings, routes = self._settings, list_routes(self._settings)
        published = read_published() if settings.published else ()
        self._results = {
            name: read_result(
                name,
                task,
                routes,
                metrics=outputs / name / "evaluate" / "metrics.json",
                answers=outputs / name / "evaluate" / "answers.csv",
                meters=outputs / "meters" / name,
                results=outputs / name,
                diagnosis=outputs / name / "evaluate" / "claims" if settings.diagnose.enabled else None,
                figures=outputs / name / "figures",
                panels=outputs / name / "interactive",
                published=[row for row in published if row.task == name],
            )
            for name, task in settings.tasks.items()
        }

    def write_report(self, folder: Path, states: Mapping[str, str]) -> None:
        write_text(folder / "summary.txt", summarise(list(self._results.values())) + "\n")
        write_report(
            list(self._results.values()),
            page=folder / "index.html",
            markdown=folder / "report.md",
            costs=folder / "costs.json",
            provenance=self._find_provenance(states),
        )

    def _find_provenance(self, states: Mapping[str, str]) -> Provenance:
        commit = head_commit(ROOT) or ""
        usual = flatten(compose_settings().tree)
        now = flatten(self._settings.tree)
        return Provenance(
            commit=f"{commit[:12]}, with edits that are not committed" if commit and has_changes(ROOT) else commit[:12],
            seed=self._settings.seed,
            states=states,
            settings=[
                (name, now.get(name, "none"), usual.get(name, "none"))
                for name in sorted({*now, *usual})
                if now.get(name) != usual.get(name)
                and not name.rpartition(".")[2].startswith("_")
                and (name in now or not name.startswith("task."))  # of tasks that were not asked for
            ],
            versions={name: version(name) for name in _VERSIONS} | {"Python": platform.python_version()},
        )

    def runs(self, states: Mapping[str, str], report: Path) -> list[Run]:
        """What MLflow is told of every task, see `Record`."""
        records = [
            Record(name, state, self._settings, self._results[name], self._outputs / name, report)
            for name, state in states.items()
        ]
        return [run for record in records for run in record.runs()]
