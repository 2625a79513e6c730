"""How a command with settings begins: Hydra composes them, of conf/ and of what a person types after the command.

Paths mean what they mean where they are typed, and whatever Hydra cannot read is one line with advice.
"""

import difflib
import functools
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aimback.core.checks import quote
from aimback.core.errors import UserError
from aimback.runtime.exits import report_errors
from aimback.runtime.project import CONF, CONFS, ROOT, name_below_root
from aimback.workflow import hydra_section
from aimback.workflow.params import ANEW, CONF_CURE, PARAMS, check_conf, read_mapping

_LONGEST = 8_192  # characters of a command line; Hydra takes seconds for the worst of that length
_MULTIRUN = ("-m", "--multirun")
_PATHS = ("targets", "inputs")
# What Hydra calls its plugins, and the extra of ours that brings each.
_ENGINES = {"submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray", "joblib": "joblib", "optuna": "optuna"}
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'")

hydra_section.guard()
# conf/base.yaml writes ${root:}, so that a run by hand writes into the project wherever it is started.
OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)


def entry(work: Callable[[DictConfig], float | None]) -> Callable[[], None]:
    """Turn `work` into a command that Hydra composes the configuration of."""
    name = Path(inspect.unwrap(work).__code__.co_filename).stem

    # Hydra names the job and finds the file through __wrapped__.
    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    @functools.wraps(work)
    def run_composed(cfg: DictConfig) -> float | None:
        with report_errors(name):
            hydra_config = HydraConfig.get()
            place(cfg, hydra_config.overrides.task, hydra_config.runtime.cwd)
            return work(cfg)  # to the sweeper that wants it

    @functools.wraps(work)
    def main() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands on what goes wrong while it composes
        # Hydra's parser takes overrides on one side of a flag only, so the flag goes first wherever it was typed.
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in _MULTIRUN)
        with report_errors(name, explain_composing):
            check_input(sys.argv[1:])
            run_composed()

    return main


def place(cfg: DictConfig, overrides: Sequence[str], typed_in: str) -> None:
    """Let the paths that overrides name mean what they mean where they are typed; see `aimback.runtime.project`."""

    def name(part: Any) -> Any:
        return name_below_root(part, typed_in) if isinstance(part, str) and part else part

    try:
        typed = {override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))}
        for key in typed.intersection(_PATHS):
            value = OmegaConf.to_container(cfg, resolve=True)[key]  # type: ignore[call-overload, index]
            cfg[key] = [name(part) for part in value] if isinstance(value, list) else name(value)
    except OmegaConfBaseException:
        pass  # an unknown name in ${...}: who reads the configuration says so


def explain_composing(error: Exception) -> str:
    """Whatever fails before the work begins is the command line or conf/."""
    if advice := _advise_quotes(error):
        return advice
    message = str(error) or type(error).__name__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error.missing_cfg_file)
    unknown = re.match(r"Could not override '([^']+)'", message)
    if unknown is None:
        return message.partition("Config search path")[0]
    try:
        known = _keys()
    except UserError as refused:
        return str(refused)
    # Hydra's own advice, to append the key with +, is what nobody wants here.
    close = difflib.get_close_matches(unknown[1], known, 1)
    advice = f"did you mean {close[0]}?" if close else "see --cfg job for what there is"
    return f"{unknown[1]}: unknown key; {advice}"


def _advise_quotes(error: Exception) -> str | None:
    """What to type instead where Hydra cannot read an override, or reads several values; None if it is not that."""
    ambiguous = _AMBIGUOUS.match(str(error))
    override = error.override if isinstance(error, OverrideParseException) else ambiguous[1] if ambiguous else ""
    key, separator, value = override.partition("=")
    if not (key and separator):
        return None
    meant = f"{key}={QuotedString(text=value, quote=Quote.double).with_quotes()}"
    try:
        OverridesParser.create().parse_override(meant)
    except HydraException:
        return None
    what = "a comma separates values" if ambiguous else "the value has a character that needs quotes"
    advice = f"{override}: {what}; one text, such as the name of a file, is typed {shlex.quote(meant)}"
    return f"{advice}; several values, a run each, need --multirun in front" if ambiguous else advice


def check_input(arguments: Sequence[str]) -> None:
    """Refuse what Hydra, which is about to read it, has no words for, or takes minutes or all of the memory for.

    Raises:
        UserError: names the argument or the file.
    """
    if (length := sum(map(len, arguments))) > _LONGEST:
        raise UserError(
            f"the command line: has {length:,} characters, at most {_LONGEST:,} are read; edit conf/ instead"
        )
    for argument in arguments:
        if any("\udc80" <= letter <= "\udcff" for letter in argument):
            raise UserError(f"{quote(argument)}: is not UTF-8; type it again, or rename the file that it names")
        if not all(letter.isprintable() or letter.isspace() for letter in argument):
            raise UserError(f"{quote(argument)}: holds a character that cannot be shown; type it again")
    if "params" in arguments:
        read_mapping(PARAMS, ANEW)
    else:
        check_conf()


def _missing(name: str) -> str:
    """What to say of a file of conf/ that is not there: mostly, a choice of a group was mistyped."""
    group, _, choice = name.rpartition("/") if name.startswith("hydra/") else name.partition("/")
    if choice in _ENGINES:
        return f"{group}={choice}: is not installed; to install it, type: pip install 'aimback[{_ENGINES[choice]}]'"
    folders = [folder / group for folder in CONFS]
    choices = sorted(
        {file.relative_to(folder).with_suffix("").as_posix() for folder in folders for file in folder.rglob("*.yaml")}
    )
    if not choices:
        return f"conf/{name}.yaml: there is no such file; {CONF_CURE}"
    close = difflib.get_close_matches(choice, choices, 1)
    hint = f"did you mean {close[0]}? Choose" if close else "choose"
    return f"{group}={choice}: there is no such choice; {hint} one of {', '.join(choices)}"


def _keys() -> list[str]:
    """All there is to override."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return list(_dot(hydra.compose("config")))


def _dot(node: DictConfig, above: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{above}{name!s}"
        if OmegaConf.is_dict(value):
            yield from _dot(value, f"{above}{name!s}.")
