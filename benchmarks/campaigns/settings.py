"""params.yaml, files of conf/, single values and command lines made wrong: each is done, or refused in one line.

The commands run in a copy of the repository, each in a fork of one process that has imported everything. So thousands
are tried in minutes, and one that never ends is killed and counted.
"""

import copy
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.campaigns.scratch import Scratch

_SECONDS = 10  # of the processor; the clock on the wall depends on what else the machine does
_LONGEST = 2500  # characters of a line that a person may be asked to read
_CONTROLS = "a\x1b[31mb\x07"
_NUMBERS = [0, -1, 2, 1.5, 10**6, 10**12, 2**63 - 1, 2**63, 10**18, -(10**18), 1e18, 1e308, 10**400]
_VALUES: list[Any] = [
    *(*_NUMBERS, None, True, False, float("nan"), float("inf"), "", "x", "täter", "a\nb", _CONTROLS, "9" * 10_000),
    *("x" * 10_000, "1e-3", "${seed}", "${nowhere}", "../..", "\0", [], {}, [1], [[1]], {"a": 1}, ["x"], [None]),
    *({"_target_": "os.system"}, [0, 1], [1, 0], [1e308, -1e308]),
]
_SNIPPETS = ["\t", "\0", "\n", "\r", " ", "  ", "\x85", "\x1b", "\ufeff", "é", *"%{}[]#'\"|>!@`"]
_SNIPPETS += ["&a", "*a", "<<: *a", "!!python/object/apply:os.system [x]", "---\n", "...\n", ": ", "- ", "? ", "${"]
_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
_WHOLE = ["", "null", "~", "[]", "- a\n- b", "7", "text", "{}", "# nothing", "a: &a [*a]", "? [1]\n: 2", "true: 1"]
_WHOLE += [
    "a:\n\tb: 1",
    "a: b: c",
    "seed: 1\nseed: 2",
    "[" * 100_000,
    "{a: " * 5_000,
    "- " * 5_000,
    "a: " + "x" * 10**6,
]
_WHOLE += ["x: !!binary aGk=", "x: 2020-01-01", "x: !!set {a}", "seed: 0x" + "f" * 5_000, "seed: " + "9" * 5_000]
_WHOLE += [_BOMB, "a: *b", "\0", "null: 1"]
_WORDS = ["seed=1", "task=cannon_drag", "solver=adam", "targets=a.csv", "inputs=[a,b]", "data.examples=99"]
_ODD = [
    "\udcff",
    "\udc80\udc81",
    "\0",
    "\x1b[31m",
    "\r\n",
    "\u2028",
    "\ufeff",
    "😀",
    "nosuch",
    "x" * 10**6,
    "," * 10**5,
]
_ODD += [
    "[" * 20_000,
    "," * 500,
    "a," * 20_000,
    "${" * 50,
    "${seed}" * 50,
    "{a:" * 3_000,
    "9" * 5_000,
    f"'{'x' * 9_000}'",
]


def settings(count: int, folder: Path) -> list[str]:
    """So many, a quarter of each kind; one row a kind."""
    scratch = Scratch(folder / "copy")
    if count > 100:
        scratch.run("dvc", "repro", "--quiet")  # or `publish` would ask for it, whatever the settings are
    printed = scratch.run("benchmarks.campaigns.settings", str(count))
    became: dict[str, dict[str, int]] = json.loads(printed.splitlines()[-1])
    rows = {kind: ", ".join(f"{number} {what}" for what, number in counted.items()) for kind, counted in became.items()}
    return [f"{count // len(rows)} {kind}: {row}" for kind, row in rows.items()]


def tried(count: int) -> dict[str, Counter[str]]:
    """What became of each kind, in the repository that the `pipelines` here belong to."""
    from aimback.runtime.project import ROOT

    assert not (ROOT / ".git").exists(), "files are damaged here, so let it be a copy"
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "params.yaml": (_params_yaml, [ROOT / "params.yaml"]),
            "files of conf/": (_conf, sorted((ROOT / "conf").rglob("*.yaml"))),
            "values": (_value, []),
            "command lines": (_command_line, []),
        }
        return {
            kind: _tried(case, files, random.Random(f"{kind} {count}"), count // len(kinds), Path(folder))
            for kind, (case, files) in kinds.items()
        }


def _tried(case: Any, files: list[Path], chance: random.Random, count: int, folder: Path) -> Counter[str]:
    became: Counter[str] = Counter()
    for _ in range(count):
        file = chance.choice([files[0], *files]) if files else None
        work = case(chance, file)
        before = file.read_bytes() if file else b""
        try:
            if file:
                _damage(file, chance)
            said = file.read_bytes()[:60] if file and file.is_file() else getattr(work, "said", "")
            became[what := ended(work, folder)] += 1
            if what not in ("accepted", "refused in one line"):
                print(f"{what}: {file.name if file else ''} {said!r}", file=sys.stderr)
        finally:
            if file:
                shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink(missing_ok=True)
                file.write_bytes(before)
    return became


def ended(work: Callable[[], None], folder: Path) -> str:
    """How a command ends that is forked off here."""
    errors = folder / "errors"
    child = os.fork()
    if child == 0:
        code = 99
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
            for number, stream in ((1, os.devnull), (2, errors)):
                os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
            work()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001 - whatever it is
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            sys.stderr.flush()
            os._exit(code)
    until = time.monotonic() + 12 * _SECONDS
    while (waited := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    if os.WIFSIGNALED(waited[1]):
        over = os.WTERMSIG(waited[1]) in (signal.SIGXCPU, signal.SIGKILL)
        return "never ended" if over else f"ended by signal {os.WTERMSIG(waited[1])}"
    code, said = os.waitstatus_to_exitcode(waited[1]), errors.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return "accepted"
    line = said.removesuffix("\n")
    if code == 2 and line.startswith("error: ") and line.isprintable() and len(line) <= _LONGEST:
        return "refused in one line"
    last = "".join(line.splitlines()[-1:])
    return f"exit code {code}, {len(line.splitlines())} lines: {last.partition(':')[0][:60]}"


def _params_yaml(chance: random.Random, file: Path) -> Callable[[], None]:
    from aimback.runtime.exits import report_errors
    from aimback.workflow import compose, ui
    from pipelines import publish

    def experiment() -> None:
        with report_errors("ui"):
            ui._experiment()

    return chance.choice([publish.main, publish.main, compose.main, experiment, _by_hand("-cd", ".", "-cn", "params")])


def _conf(chance: random.Random, file: Path) -> Callable[[], None]:
    from aimback.workflow import compose

    def composed() -> None:
        compose.PARAMS = compose.PARAMS.with_name("params-composed.yaml")  # in a fork, so nobody else sees it
        compose.PARAMS.unlink(missing_ok=True)
        compose.main()

    return chance.choice([composed, _by_hand()])


def _value(chance: random.Random, file: None) -> Callable[[], None]:
    from aimback.runtime.project import ROOT

    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    key, value = chance.choice(list(_leaves(tree))), chance.choice(_VALUES + _NUMBERS * 2)
    return _by_hand(f"{chance.choice(['', '', '', '++'])}{key}={_written(value)}")


def _command_line(chance: random.Random, file: None) -> Callable[[], None]:
    word = chance.choice(_WORDS)
    at = chance.randrange(len(word) + 1)
    words = [word[:at] + chance.choice(_ODD) + word[at:]]
    return _by_hand(*chance.choice([words, words, words * 3_000, [word] * 20_000, [*words, word]]))


def _by_hand(*arguments: str) -> Callable[[], None]:
    """A stage by hand that only checks its settings."""

    def work() -> None:
        from aimback.workflow.entry import entry

        quiet = ("hydra.output_subdir=null", "hydra.run.dir=outputs/by_hand/check", "hydra/job_logging=none")
        sys.argv = ["check", *arguments, *quiet, "hydra/hydra_logging=none"]
        entry(_check)()

    work.said = " ".join(arguments)[:80]  # type: ignore[attr-defined]
    return work


def _check(cfg: Any) -> None:
    from aimback.settings.tree import read_settings

    read_settings(cfg)


def _damage(file: Path, chance: random.Random) -> None:
    """Change a YAML file: a key or a value of its tree, some characters, or all of it."""
    text = file.read_text(encoding="utf-8")
    header = text.partition("\n")[0] + "\n" if text.startswith("# Composed") else ""  # or compose would not read on
    tree = yaml.safe_load(text)
    how = chance.random()
    if how < 0.05:
        file.unlink()
        chance.choice([file.mkdir, lambda: file.symlink_to("nowhere"), lambda: file.symlink_to(file), lambda: None])()
    elif how < 0.15:
        broken = [b"\xff\xfe", b"\xe4", b"seed: \xc3\x28", text.encode("utf-16"), bytes(2_000_000)]
        file.write_bytes(chance.choice(broken))
    elif how < 0.35:
        file.write_text(header + chance.choice(_WHOLE), encoding="utf-8")
    elif how < 0.65 or not isinstance(tree, dict):
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(header), len(text) + 1)
            text = text[:at] + chance.choice([*_SNIPPETS, ""]) + text[at + chance.choice([0, 0, 1, 5, 50, 500]) :]
        file.write_text(text, encoding="utf-8", newline="")
    else:
        file.write_text(header + yaml.safe_dump(_changed(tree, chance), sort_keys=False), encoding="utf-8")


def _changed(tree: dict[str, Any], chance: random.Random) -> Any:
    tree = copy.deepcopy(tree)
    *path, last = chance.choice([*_paths(tree)])
    node: Any = tree
    for name in path:
        node = node[name]
    how = chance.random()
    if how < 0.3:
        del node[last]
    elif how < 0.8 or isinstance(node, list):
        node[last] = copy.deepcopy(chance.choice(_VALUES))
    else:
        node[chance.choice([7, None, True, "../x", "a b", "x", "seed", ""])] = node.pop(last) if how < 0.9 else 1
    return tree


def _paths(node: Any, above: tuple[Any, ...] = ()) -> Any:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in pairs:
        yield (*above, name)
        yield from _paths(value, (*above, name))


def _leaves(node: dict[str, Any], above: str = "") -> Any:
    for name, value in node.items():
        yield from _leaves(value, f"{above}{name}.") if isinstance(value, dict) else [f"{above}{name}"]


def _written(value: Any) -> str:
    """As Hydra's grammar has it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_written(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if isinstance(value, bool | None) else f"'{value}'" if value == "" else str(value)


if __name__ == "__main__":
    import aimback.workflow.results  # so that no fork has to import PyTorch anew
    import aimback.workflow.stage  # noqa: F401

    print(json.dumps(tried(int(sys.argv[1]))))
