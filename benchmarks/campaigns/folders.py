"""Project folders with hostile names, renamed and copied: does MLflow's store stay inside and keep its artifacts?"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from aimback.tracking import Run, open_store, publish

_ALPHABET = [*"aZ09 .-_~!@$&'()*+,:;=?#[]{}|<>^`\"\\\t\nüßéİж語🎯", "%", "%", "%25", "%41", "%2F", "..", "e\u0301"]
_FRESH = 20  # one in so many makes its own database, which takes seconds; the others begin as copies of one project


def folders(count: int, folder: Path) -> list[str]:
    """So many names, each publishing, renamed to another one, and publishing again."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    original = folder / "original"
    original.mkdir(parents=True)
    open_store(original).connect()
    names = _names(2 * count)
    trials = [(folder / str(i), next(names), next(names), original, i % _FRESH == 0) for i in range(count)]
    # MLflow keeps every database that it has opened; a fresh process forgets them.
    with get_context("spawn").Pool(1, maxtasksperchild=25) as pool:
        became = Counter(pool.starmap(outcome, trials, chunksize=1))
    return [f"{what}: {number}" for what, number in became.most_common()]


def outcome(around: Path, name: str, later: str, original: Path, fresh: bool) -> str:
    """What becomes of a project called `name` in the folder `around` that is then renamed to `later`."""
    before = _files(original)
    here, there = around / name, around / later
    here.mkdir(parents=True)
    if not fresh:
        shutil.copy(original / "mlflow.db", here)
    picture = around.parent / "loss.png"
    picture.write_bytes(b"png")
    try:
        first = _publish(here, "first", picture)
        found = [_has_artifact(here, first)]
        here.rename(there)
        second = _publish(there, "second", picture)
        found += [_has_artifact(there, second), _has_artifact(there, first)]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
        return type(error).__name__
    if [place.name for place in around.iterdir()] != [later]:
        return "something was written beside the project"
    if _files(original) != before:
        return "a copy has written into the original"
    return "all is well" if all(found) else "artifacts are not found"


def _publish(root: Path, state: str, picture: Path) -> str:
    run = Run(state, "route", "cannon_drag", "direct", {"seed": "0"}, {"miss": 1.0}, {}, artifacts={"": [picture]})
    return publish(open_store(root), [state], lambda: [run], root / "published.json").run_ids[0]


def _has_artifact(root: Path, run_id: str) -> bool:
    client, _ = open_store(root).connect()
    listed = [item.path for item in client.list_artifacts(run_id)]
    return listed == ["loss.png"] and Path(client.download_artifacts(run_id, "loss.png")).read_bytes() == b"png"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _names(count: int) -> Iterator[str]:
    """So many different names, none of which a file system refuses."""
    chance = random.Random(count)
    known = {"", ".", ".."}
    while len(known) < count + 3:
        name = "".join(chance.choices(_ALPHABET, k=chance.randint(1, 12)))
        if name not in known:
            known.add(name)
            yield name
