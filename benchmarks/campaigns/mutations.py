"""Command lines, files of targets and arrays in files with something changed: each gets an answer or one clear line."""

import io
import random
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra

from aimback.core.errors import UserError
from aimback.core.problem import InverseProblem, Solution
from aimback.data.dataset import Dataset, load_dataset, save_dataset, simulate_dataset
from aimback.data.solution import load_solution, save_solution
from aimback.data.targets import Targets, draw_targets, load_targets, read_targets, save_targets
from aimback.runtime.project import CONF
from aimback.settings.tree import read_settings
from aimback.solve.gauss_newton import GaussNewton
from aimback.solve.multistart import solve
from aimback.solve.starts import draw_evenly
from aimback.tasks.cannon_drag import CannonDrag
from aimback.workflow.entry import explain_composing

_SOUND = [
    *("task=cannon_drag", "task=[cannon_vacuum,cannon_drag]", "solver=adam", "solver.max_steps=30", "seed=3"),
    *("training.learning_rate=1e-3", "surrogate.hidden_width=64", "training.batch_size=256", "data.examples=2000"),
    *("data.validation_fraction=0.2", "preset=article", "hardware=cpu", "hardware.dtype=float32", "tracking=off"),
    *("task.cannon_drag.steps=32", "+training.learning_rate=0.1", "~preset", "solver.damping=0.01", "targets=a.csv"),
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
_HOSTILE = [
    *(
        b'"',
        b'""',
        b'"3',
        b"\0",
        b"\r",
        b"\n",
        b"\r\r",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xe9",
        b"\x85",
        b"\t",
        b";",
        b"|",
        b",",
    ),
    *(
        b"\x1a",
        b"\x1b[2J",
        "\u2028".encode(),
        "\u0663".encode(),
        b"'",
        b"\\",
        b"=1+1",
        b"nan",
        b"1e999",
        b"0x1p3",
        b"--5",
    ),
    *(b"1_0", b"9" * 200_000, b"y" * 100_000, b" ", b"3.5", b"0.5"),
]
_TABLE = "distance [m],wind [m/s]\n4.5,0.0\n7.25,-1.5\n3.0,0.5\n1e0,-0.0\n"


def mutations(count: int, folder: Path) -> list[str]:
    """So many lists of overrides, half as many files of targets of either kind, and as many files of arrays."""
    half = count // 2
    lists, files, rows, made = overrides(count), tables(half, folder), hostile(half, folder), arrays(half, folder)
    return [
        f"{count} lists of overrides: {_shown(lists)}",
        f"{half} files of targets: {_shown(files)}",
        f"{half} files of targets with hostile rows between good ones: {_shown(rows)}",
        f"{half} files of arrays, with checksums that are right: {_shown(made)}",
    ]


def overrides(count: int) -> Counter[str]:
    """What became of mutated lists of overrides."""
    chance = random.Random(count)
    became: Counter[str] = Counter()
    for _ in range(count):
        words = [_mutated(word, chance) for word in chance.sample(_SOUND, chance.randint(1, 3))]
        became[_answer(words)] += 1
    return became


def _answer(words: list[str]) -> str:
    """As `aimback.workflow.entry` treats a command line: what fails while it is composed is told in one line."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("config", words)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return "refused in one line" if explain_composing(error).strip() else f"no word about {words}"
    try:
        read_settings(cfg)
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


def hostile(count: int, folder: Path) -> Counter[str]:
    """What became of good rows with hostile ones between them: each keeps its numbers and its line, none is lost."""
    chance = random.Random(count)
    became: Counter[str] = Counter()
    task, file = CannonDrag(), folder / "hostile.csv"
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(count):
        end = chance.choice([b"\n", b"\r\n", b"\r"])
        rows, good = [b"distance,wind"], {}
        for number in range(chance.randint(1, 6)):
            if chance.random() < 0.5:
                rows.append(b"".join(chance.choice(_HOSTILE) for _ in range(chance.randint(1, 4))))
            else:
                good[len(end.join([*rows, b""]).splitlines()) + 1] = number + 0.25
                rows.append(f"{number}.25,0.5".encode())
        file.write_bytes(end.join(rows) + chance.choice([b"", end]))
        try:
            targets = read_targets(file, task)
        except UserError:
            became["rows lost" if good else "refused in one line"] += 1
            continue
        except Exception as error:  # noqa: BLE001 - whatever it is
            became[f"{type(error).__name__} from {b''.join(rows)[:80]!r}"] += 1
            continue
        found = dict(zip(targets.lines.tolist(), targets.targets[:, 0].tolist(), strict=True))
        kept = all(found.get(at) == value for at, value in good.items())
        became["every good row read" if kept else "rows lost"] += 1
    return became


def arrays(count: int, folder: Path) -> Counter[str]:
    """What became of files of arrays in which one was replaced by another, and all checksums made anew."""
    chance = random.Random(count)
    became: Counter[str] = Counter()
    task, kinds = CannonDrag(), _sound_files(folder)
    for _ in range(count):
        path, load, holds = chance.choice(kinds)
        members = _members(path)
        name, (how, change) = chance.choice(sorted(members)), chance.choice(list(_CHANGES.items()))
        changed = folder / "changed.npz"
        with warnings.catch_warnings(), zipfile.ZipFile(changed, "w") as archive:
            warnings.simplefilter("ignore")  # complex numbers lose a part, a member is there twice
            for other, data in members.items():
                parts = change(data, chance) if other == name else [data]
                for part in parts:
                    archive.writestr(other, part)
        try:
            became["read, and whole" if holds(load(changed, task)) else f"read: {path.stem} {name} {how}"] += 1
        except UserError:
            became["refused in one line"] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is
            became[f"{type(error).__name__} from {path.stem} {name} {how}"] += 1
    return became


def _sound_files(folder: Path) -> list[tuple[Path, Callable[..., Any], Callable[..., bool]]]:
    """A file of each kind, how it is loaded, and what must hold of whatever is loaded."""
    task, generator = CannonDrag(), torch.Generator().manual_seed(0)
    data, targets = folder / "dataset.npz", draw_targets(task, 6, generator)
    save_dataset(data, simulate_dataset(task, 20, 0.2, generator), task)
    save_targets(folder / "targets.npz", [targets], task)
    starts = draw_evenly(6, 2, len(task.box), generator)
    problem = InverseProblem(targets.targets, targets.conditions, task.box, task.distance, starts)
    save_solution(folder / "solution.npz", [solve(task, problem, GaussNewton(max_steps=3), generator)], task)

    def whole_dataset(loaded: Dataset) -> bool:
        parts = [(loaded.controls, 2), (loaded.conditions, 1), (loaded.outcomes, 1)]
        fits = [_table(part, len(loaded), width) and bool(part.isfinite().all()) for part, width in parts]
        return all(fits) and 0 < loaded.n_validation < len(loaded) and loaded.n_left_out >= 0

    def whole_targets(loaded: Targets) -> bool:
        fits = _table(loaded.targets, len(loaded), 1) and _table(loaded.conditions, len(loaded), 1)
        fits = fits and len(loaded.lines) == len(loaded.problems) == len(loaded) and loaded.lines.dtype == torch.int64
        return fits and len(valid := loaded.only_valid()) > 0 and bool(valid.targets.isfinite().all())

    def whole_solution(loaded: Solution) -> bool:
        count, starts = loaded.steps.shape
        fits = tuple(loaded.controls.shape) == (count, starts, 2) and bool(loaded.controls.isfinite().all())
        others = (loaded.believed_miss, loaded.start_status, loaded.steps_to_tolerance)
        fits = fits and all(part.shape == (count, starts) for part in others) and count * starts > 0
        kept = loaded.history.believed_miss.shape
        real = (loaded.controls, loaded.believed_miss, loaded.history.controls, loaded.history.believed_miss)
        fits = fits and all(part.dtype in (torch.float32, torch.float64) for part in real)
        return fits and tuple(loaded.history.controls.shape) == (*kept, 2) and kept[1] <= count

    return [
        (data, load_dataset, whole_dataset),
        (folder / "targets.npz", load_targets, whole_targets),
        (folder / "solution.npz", load_solution, whole_solution),
    ]


def _table(part: torch.Tensor, rows: int, width: int) -> bool:
    return part.dtype == torch.float64 and tuple(part.shape) == (rows, width)


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _as(change: Callable[[np.ndarray, random.Random], Any]) -> Callable[[bytes, random.Random], list[bytes]]:
    """A change of an array as one of its bytes in the file."""

    def changed(data: bytes, chance: random.Random) -> list[bytes]:
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.asanyarray(change(np.load(io.BytesIO(data)), chance)))
        return [stream.getvalue()]

    return changed


def _typed(dtype: Any) -> Callable[[bytes, random.Random], list[bytes]]:
    def cast(array: np.ndarray, chance: random.Random) -> np.ndarray:
        return np.zeros(array.shape, dtype) if array.dtype.kind == "U" else array.astype(dtype)

    return _as(cast)


def _poisoned(value: float) -> Callable[[bytes, random.Random], list[bytes]]:
    def poison(array: np.ndarray, chance: random.Random) -> np.ndarray:
        array = array.astype(float) if array.dtype.kind == "U" and not array.size else array
        if array.dtype.kind in "fi" and array.size:
            array.flat[chance.randrange(array.size)] = value if array.dtype.kind == "f" else -9
        return array

    return _as(poison)


def _claiming(shape: str) -> Callable[[bytes, random.Random], list[bytes]]:
    """The same bytes under a header that says something else of their shape."""

    def claim(data: bytes, chance: random.Random) -> list[bytes]:
        length = int.from_bytes(data[8:10], "little")
        header = data[10 : 10 + length].decode()
        begin, end = header.index("'shape': ") + 9, header.rindex(", }")
        header = f"{header[:begin]}{shape}{header[end:].rstrip()}\n"
        return [data[:8] + len(header).to_bytes(2, "little") + header.encode() + data[10 + length :]]

    return claim


# By what they do to the bytes of a member; more than one in the list: so many members of this name.
_CHANGES: dict[str, Callable[[bytes, random.Random], list[bytes]]] = {
    "as it is": lambda data, chance: [data],
    "column by column": _as(lambda array, chance: np.asfortranarray(array)),
    **{f"as {dtype}": _typed(dtype) for dtype in ("f2", "f4", "g", "c16", "?", "i4", "u8", "S3", "U3", "M8[s]", "O")},
    **{f"as {dtype}": _typed(dtype) for dtype in (">f8", ">i8", ">U3", "f8,i4", "(2,)f8", "V8")},
    **{f"with {value}": _poisoned(value) for value in (np.nan, np.inf, -1e308)},
    "flat": _as(lambda array, chance: array.ravel()),
    "one number": _as(lambda array, chance: array.ravel()[0] if array.size else np.zeros(())),
    "with a dimension more": _as(lambda array, chance: array[..., None]),
    "turned": _as(lambda array, chance: array.T),
    "a row short": _as(lambda array, chance: array[:-1] if array.ndim else array[None]),
    "without rows": _as(lambda array, chance: array[:0] if array.ndim else array[None]),
    "a column more": _as(lambda array, chance: np.repeat(array, 2, axis=-1) if array.ndim else array[None]),
    **{
        f"claiming {shape}": _claiming(shape)
        for shape in ("(10**12, 2)", "(1000000000000, 2)", "(-3, 2)", "(True, 2)", "(9223372036854775807,)", "(1.5,)")
    },
    "claiming brackets": _claiming("(" * 3000),
    "cut": lambda data, chance: [data[: chance.randrange(len(data))]],
    "with more behind": lambda data, chance: [data + b"\0" * 8],
    "in another format": lambda data, chance: [data[:6] + b"\2" + data[7:]],
    "of noise": lambda data, chance: [chance.randbytes(99)],
    "twice": lambda data, chance: [data, data],
    "missing": lambda data, chance: [],
}


def _mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(text) + 1)
        length = chance.choice([0, 0, 1, 1, 3])
        text = text[:at] + chance.choice([*_STRANGE, "", chance.choice(text or "x") * 2]) + text[at + length :]
    return text


def _shown(became: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in became.most_common())
