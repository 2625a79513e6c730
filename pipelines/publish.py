"""The verdict as a page, and one complete set of MLflow runs for this state of the pipeline.

Runs at the end of every `dvc repro`, because a stage that DVC restores from its cache logs nothing by
itself. Where everything is there already it is over in milliseconds: PyTorch and MLflow are imported
only where there is something to do.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aimback
from aimback.core.errors import UserError
from aimback.core.files import sha256, write_text
from aimback.runtime.doctor import find_writer
from aimback.runtime.exits import report_errors
from aimback.runtime.project import ROOT, locate_untracked
from aimback.simulators.source import hash_place
from aimback.tracking import is_published, publish
from aimback.workflow.params import read_params
from aimback.workflow.runs import PUBLISHED, open_project_store, read_states

OUTPUTS = ROOT / "outputs"
REPORT = OUTPUTS / "report"
_REPORTED = REPORT / "states.json"
_SUMMARY = REPORT / "summary.txt"


def main() -> None:
    with report_errors("publish"):
        tree = _params()
        tasks = list(tree["task"])
        with undisturbed(ROOT, [OUTPUTS / task for task in tasks]) as confirm:
            _publish(tree, read_states(tree), confirm)


def _publish(tree: dict[str, Any], known: Mapping[str, str], confirm: Callable[[], None]) -> None:
    tracking = tree["tracking"]
    place = open_project_store(tracking["experiment"])
    wanted = sorted(known.values())
    written = name_report(known)
    reported = _read(_REPORTED) == written and (REPORT / "index.html").is_file() and _SUMMARY.is_file()
    if reported and (not tracking["enabled"] or is_published(place, wanted, PUBLISHED)):
        print(_SUMMARY.read_text(encoding="utf-8"), end="")
        print("nothing to publish: outputs/report/index.html and MLflow (make ui) are up to date")
        return
    confirm()
    from aimback.workflow.results import Results  # imports PyTorch

    results = Results(tree, OUTPUTS)
    if not reported:
        results.write_report(REPORT, known)
        confirm()
        write_text(_REPORTED, json.dumps(written) + "\n")
    print(_SUMMARY.read_text(encoding="utf-8"), end="")
    print("the report: outputs/report/index.html")
    if tracking["enabled"]:
        done = publish(place, wanted, lambda: results.runs(known, REPORT), PUBLISHED, confirm)
        there = len(done.run_ids) - done.written
        print(f"MLflow: {done.written} runs written{f', {there} were there' if there else ''}; to see them: make ui")


def name_report(known: Mapping[str, str]) -> list[str]:
    """What a page is made of: the states that it tells of, and the code that writes it."""
    return [*sorted(known.values()), hash_place(Path(aimback.__file__).parent / "report")]


@contextlib.contextmanager
def undisturbed(root: Path, folders: Sequence[Path]) -> Iterator[Callable[[], None]]:
    """While the block reads what stages wrote, no other run may replace it; the block can ask whether one did.

    DVC locks outputs against stages alone: `dvc checkout`, and with it an experiment that begins, waits for nobody.

    Raises:
        UserError: another run is at work.
    """
    before = _stamps(root, folders)

    def confirm() -> None:
        if _stamps(root, folders) != before or find_writer(root) is not None:
            raise UserError("outputs: another run is at work on them; let it end, then `dvc repro publish`")

    try:
        yield confirm
    except Exception as error:
        confirm()
        if isinstance(error, FileNotFoundError) and error.filename is not None:
            raise UserError(f"{error.filename}: there is none; `dvc repro` makes it") from error
        raise


def _stamps(root: Path, folders: Sequence[Path]) -> dict[Path, tuple[int, int, int]]:
    """What shows that a file was replaced, for every file in `folders` and for DVC's record of them."""
    stamps = {}
    for file in [root / "dvc.lock", *(file for folder in folders for file in folder.rglob("*"))]:
        with contextlib.suppress(FileNotFoundError):
            found = file.stat()
            stamps[file] = (found.st_ino, found.st_mtime_ns, found.st_size)
    return stamps


def _params() -> dict[str, Any]:
    """What the pipeline was run with.

    Raises:
        UserError: params.yaml is not what was composed, or the targets were edited since.
    """
    tree = read_params()
    if tree["targets"] and _digest(locate_untracked(tree["targets"])) != tree["targets_sha256"]:
        raise UserError(
            f"targets: {tree['targets']} was edited after the pipeline had read it; "
            "run `dvc repro --force --single-item compose && dvc repro`"
        )
    return tree


def _digest(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main()
