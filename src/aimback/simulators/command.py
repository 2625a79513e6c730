"""A simulator that is an executable: numbers in its arguments or in a file, numbers in what it prints or in one."""

import contextlib
import functools
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import numpy as np
import psutil

from aimback.core.errors import UserError
from aimback.simulators.reasons import FailedRunError, describe_exit

LARGEST_ANSWER = 16 * 2**20  # bytes of what is read, standard output or a file
LARGEST_FOLDER = 2**30  # bytes that a run may leave in its folder, its output among them
KEPT_FOLDERS = 20  # of failed runs
_SECONDS_BETWEEN_LOOKS = 0.2
_OUTPUT, _ERRORS = "stdout.txt", "stderr.txt"


@dataclass(frozen=True)
class Command:
    """An executable that runs one case each time it is started, in an empty folder of its own.

    The folder is removed when the run has succeeded. Those of the last `KEPT_FOLDERS` failed ones stay, called
    "failed-...", with what the run printed and the reason.

    Args:
        command: split as a shell would, but no shell ever sees it. `{speed}` becomes the number with all its digits,
            `{speed:.6e}` as that format has it, an array its numbers with spaces between; `{{` is a brace. An element
            that names a file of the project stands for that file, wherever the run is.
        root: the project's folder.
        runs: the folder for those of the runs; inside the project.
        timeout: seconds, after which the run and all in its process group are killed. A pool should have some more
            patience: where it kills first, what the run printed is not looked at.
        template: a text file of the project with such placeholders, which is put into the run's folder filled in,
            under its own name.
        answer: "stdout", or a file that the run writes into its folder. Numbers are read from the last line, with
            commas, semicolons or blanks between, or a JSON object by outcomes' names from all or from the last line.

    Raises:
        UserError: a path that leads out of the project, a file or executable that is not there, a placeholder that is
            no name.
    """

    command: str
    root: Path
    runs: Path
    timeout: float
    template: Path | None = None
    answer: str = "stdout"

    def __post_init__(self) -> None:
        if not self.runs.resolve().is_relative_to(self.root.resolve()):
            raise UserError(f"command: the folder of its runs, {self.runs}, must lie in the project {self.root}")
        if Path(self.answer).is_absolute() or ".." in Path(self.answer).parts:
            raise UserError(f'command: answer must be "stdout" or a file in the run\'s own folder, got {self.answer}')
        if not self._words:
            raise UserError("command: there is none")
        # What lies in the project has its whole path by now.
        program = self._words[0].replace("{{", "{").replace("}}", "}")
        if (os.sep in program and not Path(program).is_absolute()) or shutil.which(program) is None:
            raise UserError(f"command: {program} is no executable; relative ones belong to {self.root}")
        if self.template is not None and not (self.root / self.template).is_file():
            raise UserError(f"command: there is no template {self.template} in {self.root}")
        self._find_placeholders()

    def check_names(self, names: Collection[str]) -> None:
        """Check that every placeholder has one of these names, and that every name is used.

        Raises:
            UserError: one has not, or is not.
        """
        used = self._find_placeholders()
        there = ", ".join(names)
        for name in sorted(used - {*names}):
            raise UserError(f"command: there is no control or condition {name} for {{{name}}}; there are {there}")
        for name in names:
            if name not in used:
                place = "the command" if self.template is None else "the command and its template"
                raise UserError(f"command: {name} changes nothing: {{{name}}} does not occur in {place}")

    def __call__(self, case: Mapping[str, float | np.ndarray]) -> object:
        """Run one case. -> a number, a list of numbers or what the JSON object holds.

        Raises:
            FailedRunError: the run failed, took or wrote too much, or gave no numbers.
        """
        self.runs.mkdir(parents=True, exist_ok=True)
        _tidy_once(self.runs)
        words = [_fill(word, case) for word in self._words]
        folder = Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=self.runs))
        try:
            if self.template is not None:
                text = _fill(self._text, case)
                (folder / self.template.name).write_text(text, encoding="utf-8")
            self._run(words, folder)
            answer = self._read(folder)
        except BaseException as error:
            with contextlib.suppress(OSError):
                (folder / "reason.txt").write_text(f"{shlex.join(words)}\n{error}\n", "utf-8", "backslashreplace")
            _call_failed(folder)
            _tidy(self.runs)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return answer

    @functools.cached_property
    def _words(self) -> list[str]:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise UserError(f"command: {self.command} cannot be split: {error}") from error
        paths = [self.root.absolute() / word for word in words]
        return [
            str(path).replace("{", "{{").replace("}", "}}") if path.is_file() else word
            for word, path in zip(words, paths, strict=True)
        ]

    @functools.cached_property
    def _text(self) -> str:
        assert self.template is not None
        try:
            return (self.root / self.template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"command: the template {self.template} cannot be read: {error}") from error

    def _find_placeholders(self) -> set[str]:
        texts = self._words + ([] if self.template is None else [self._text])
        return {name for text in texts for _, name, _ in _parse(text) if name is not None}

    def _run(self, words: list[str], folder: Path) -> None:
        with (folder / _OUTPUT).open("wb") as output, (folder / _ERRORS).open("wb") as errors:
            process = subprocess.Popen(
                words, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, process_group=0
            )
        try:
            reason = self._watch(process, folder)
        finally:
            # Before it is reaped: till then its number belongs to nobody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        if reason is None and code:
            reason = describe_exit(code)
            with (folder / _ERRORS).open("rb") as errors:
                errors.seek(max(errors.seek(0, os.SEEK_END) - 4000, 0))
                if last := _take_last_line(errors.read().decode(errors="replace")):
                    reason += f": {last}"
        if reason is not None:
            raise FailedRunError(reason)

    def _watch(self, process: "subprocess.Popen[bytes]", folder: Path) -> str | None:
        """Wait until a run has ended, and leave it to be reaped. -> the reason to kill it, if there is one."""
        until = time.monotonic() + self.timeout
        while True:
            has_ended = _has_ended(process.pid, min(_SECONDS_BETWEEN_LOOKS, max(until - time.monotonic(), 0.0)))
            if (size := _measure(folder)) > LARGEST_FOLDER:
                return f"wrote {size / 2**20:,.0f} MiB, more than the {LARGEST_FOLDER / 2**20:,.0f} MiB allowed"
            if has_ended:
                return None
            if time.monotonic() >= until:
                return f"timed out after {self.timeout:g} s"

    def _read(self, folder: Path) -> object:
        path = folder / (_OUTPUT if self.answer == "stdout" else self.answer)
        name = "standard output" if self.answer == "stdout" else self.answer
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise FailedRunError(f"it wrote no {name}")
        if path.stat().st_size > LARGEST_ANSWER:
            raise FailedRunError(f"{name} is larger than {LARGEST_ANSWER / 2**20:,.0f} MiB")
        text = path.read_text(encoding="utf-8", errors="replace")
        last = _take_last_line(text)
        for part in (text, last):
            if part.lstrip().startswith("{"):
                with contextlib.suppress(ValueError):
                    return json.loads(part)
        try:
            numbers = [float(word) for word in re.split(r"[\s,;]+", last.strip(" \t,;"))]
        except ValueError:
            said = f"the last line of {name} is not numbers: {last[:100]}" if last else f"{name} is empty"
            raise FailedRunError(said) from None
        return numbers[0] if len(numbers) == 1 else numbers


def _parse(text: str) -> Iterator[tuple[str, str | None, str]]:
    """A text with placeholders, in pieces: what stands before each, its name (None at the end), its format."""
    try:
        for before, name, form, conversion in Formatter().parse(text):
            if name is not None:
                if conversion or not name.isidentifier():
                    raise ValueError(f"{{{name}}} is no placeholder like {{name}} or {{name:.6e}}")
                format(1.0, form or "")  # to see whether it is a format of numbers
            yield before, name, form or ""
    except ValueError as error:
        raise UserError(f"command: {error}; braces that are no placeholder are written {{{{ and }}}}") from error


def _fill(text: str, case: Mapping[str, float | np.ndarray]) -> str:
    filled = ""
    for before, name, form in _parse(text):
        filled += before
        if name is not None:
            numbers = np.ravel(np.asarray(case[name], dtype=float)).tolist()
            filled += " ".join(format(number, form) if form else repr(number) for number in numbers)
    return filled


def _take_last_line(text: str) -> str:
    return next((" ".join(line.split()) for line in reversed(text.splitlines()) if line.strip()), "")


def _has_ended(process: int, patience: float) -> bool:
    """Whether a child ends within so many seconds. It is not reaped, so that its number stays its own."""
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(process)
        try:
            return bool(select.select([descriptor], [], [], patience)[0])
        finally:
            os.close(descriptor)
    until = time.monotonic() + patience
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() >= until:
            return False
        time.sleep(0.002)
    return True


def _measure(folder: Path) -> int:
    """The bytes that a folder takes on the disk; what vanishes meanwhile takes none."""
    size, waiting = 0, [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    size += 512 * entry.stat(follow_symlinks=False).st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
    return size


def _tidy(runs: Path) -> None:
    """Call failed what killed processes have left in the middle of a run, and remove the oldest failed ones."""
    for folder in runs.glob("run-*-*"):
        number = folder.name.split("-")[1]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            _call_failed(folder)
    failed: list[tuple[float, Path]] = []
    for folder in runs.glob("failed-*"):
        with contextlib.suppress(OSError):  # another worker has removed it
            failed.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(failed)[:-KEPT_FOLDERS]:
        shutil.rmtree(folder, ignore_errors=True)


def _call_failed(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rename(folder.with_name(folder.name.replace("run-", "failed-", 1)))


_tidy_once = functools.cache(_tidy)
