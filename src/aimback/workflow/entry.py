"""How a command with settings begins: Hydra composes them."""

import difflib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from aimback.core.checks import show
from aimback.core.errors import UserError
from aimback.runtime.exits import report_errors
from aimback.runtime.project import CONF
from aimback.workflow import hydra_section
from aimback.workflow.overrides import advise_quotes, place
from aimback.workflow.params import ANEW, CONF_CURE, PARAMS, check_conf, read_mapping

_LONGEST = 8_192  # characters of a command line; Hydra takes seconds for the worst of that length
_MULTIRUN = ("-m", "--multirun")

hydra_section.guard()


def entry(work: Callable[[DictConfig], None]) -> Callable[[], None]:
    """Turn `work` into a command that Hydra composes the configuration of."""
    name = Path(inspect.unwrap(work).__code__.co_filename).stem

    # Hydra names the job and finds the file through __wrapped__.
    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    @functools.wraps(work)
    def composed(cfg: DictConfig) -> None:
        with report_errors(name):
            hydra_config = HydraConfig.get()
            place(cfg, hydra_config.overrides.task, hydra_config.runtime.cwd)
            work(cfg)

    @functools.wraps(work)
    def main() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands on what goes wrong while it composes
        # Hydra's parser takes overrides on one side of a flag only, so the flag goes first wherever it was typed.
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in _MULTIRUN)
        with report_errors(name, explain_composing):
            check_input(sys.argv[1:])
            composed()

    return main


def explain_composing(error: Exception) -> str:
    """Whatever fails before the work begins is the command line or conf/."""
    if advice := advise_quotes(error):
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
            raise UserError(f"{show(argument)}: is not UTF-8; type it again, or rename the file that it names")
        if not all(letter.isprintable() or letter.isspace() for letter in argument):
            raise UserError(f"{show(argument)}: holds a character that cannot be show; type it again")
    if "params" in arguments:
        read_mapping(PARAMS, ANEW)
    else:
        check_conf()


def _missing(name: str) -> str:
    """What to say of a file of conf/ that is not there: mostly, a choice of a group was mistyped."""
    group, _, choice = name.partition("/")
    folder = CONF / group
    choices = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    if not choices:
        return f"conf/{name}.yaml: there is no such file; {CONF_CURE}"
    close = difflib.get_close_matches(choice, choices, 1)
    hint = f"did you mean {close[0]}? Choose" if close else "choose"
    return f"{group}={choice}: there is no such choice; {hint} one of {', '.join(choices)}"


def _keys() -> list[str]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return _dotted(hydra.compose("config"))


def _dotted(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name, value in node.items():
        keys.append(f"{prefix}{name!s}")
        if OmegaConf.is_dict(value):
            keys += _dotted(value, f"{prefix}{name!s}.")
    return keys
