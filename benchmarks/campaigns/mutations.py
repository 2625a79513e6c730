"""Command lines and files of targets with a few characters changed: each gets an answer or one clear line."""

import random
from collections import Counter
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra

from aimback.errors import UserError
from aimback.targets import read_targets
from aimback.tasks.cannon_drag import CannonDrag
from pipelines.ending import CONF
from pipelines.entry import composing
from pipelines.settings import Settings

_SOUND = [
    *("task=cannon_drag", "task=[cannon_vacuum,cannon_drag]", "solver=adam", "solver.max_steps=30", "seed=3"),
    *("surrogate.learning_rate=1e-3", "surrogate.hidden_width=64", "training.batch_size=256", "data.examples=2000"),
    *("data.validation_fraction=0.2", "preset=article", "hardware=cpu", "hardware.dtype=float32", "tracking=off"),
    *("task.cannon_drag.steps=32", "+surrogate.learning_rate=0.1", "~preset", "solver.damping=0.01", "targets=a.csv"),
    *("inputs=[outputs,elsewhere]", "solver._target_=aimback.solve.adam.Adam", "diagnose.step_sizes=[0.1,1.0]"),
]
_STRANGE = [
    "=",
    "==",
    "[",
    "]",
    "{",
    "}",
    "${",
    "${seed}",
    ",",
    ".",
    "+",
    "++",
    "~",
    "@",
    ":",
    "'",
    '"',
    "\\",
    " ",
    "\t",
]
_STRANGE += [
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "null",
    "true",
    "1.5",
    "é",
    "\0",
    "\n",
    "os.system",
    "builtins.open",
    "x",
]
_TABLE = "distance [m],wind [m/s]\n4.5,0.0\n7.25,-1.5\n3.0,0.5\n1e0,-0.0\n"


def mutations(count: int, folder: Path) -> list[str]:
    """So many lists of overrides, and half as many files of targets."""
    lists, files = overrides(count), tables(count // 2, folder)
    return [f"{count} lists of overrides: {_shown(lists)}", f"{count // 2} files of targets: {_shown(files)}"]


def overrides(count: int) -> Counter[str]:
    """What became of mutated lists of overrides."""
    chance = random.Random(count)
    became: Counter[str] = Counter()
    for _ in range(count):
        words = [_mutated(word, chance) for word in chance.sample(_SOUND, chance.randint(1, 3))]
        became[_answer(words)] += 1
    return became


def _answer(words: list[str]) -> str:
    """As `pipelines.entry` treats a command line: what fails while it is composed is told in one line."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("config", words)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return "refused in one line" if composing(error).strip() else f"no word about {words}"
    try:
        Settings(cfg).check()
    except UserError:
        return "refused in one line"
    except Exception as error:  # noqa: BLE001 - whatever it is
        return f"{type(error).__name__} from {words}"
    return "accepted"


def tables(count: int, folder: Path) -> Counter[str]:
    """What became of mutated files of targets; a row that cannot be read is marked, the others are solved for."""
    chance = random.Random(count)
    became: Counter[str] = Counter()
    task, file = CannonDrag(), folder / "targets.csv"
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(count):
        text = _mutated(_TABLE, chance)
        file.write_bytes(text.encode("utf-16" if chance.random() < 0.02 else "utf-8"))
        try:
            targets = read_targets(file, task)
            became["read" if bool(targets.valid.all()) else "read, with rows marked"] += 1
        except UserError:
            became["refused in one line"] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is
            became[f"{type(error).__name__} from {text!r}"] += 1
    return became


def _mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(text) + 1)
        length = chance.choice([0, 0, 1, 1, 3])
        text = text[:at] + chance.choice([*_STRANGE, "", chance.choice(text or "x") * 2]) + text[at + length :]
    return text


def _shown(became: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in became.most_common())
