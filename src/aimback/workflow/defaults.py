"""The settings that aimback comes with, composed for whoever uses it without a project.

Unlike `aimback.workflow.entry` this changes nothing of Hydra, which a notebook may use for itself.
"""

import difflib
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aimback import HOME
from aimback.core.errors import UserError
from aimback.settings.foreign import read_trust
from aimback.settings.tree import Settings, read_settings

_OWN_CONF = HOME / "conf"
# Nothing is written, and a task has to stand somewhere: this one is made in no time.
_APART = ("task=cannon_vacuum", "diagnose=none", "tracking=off", "hardware=cpu")


def read_defaults(*overrides: str) -> Settings:
    """All settings as aimback comes with them; the task is an example.

    Args:
        overrides: as they are typed after the command, "training.max_epochs=50"; "hardware=gpu" is not the default.

    Raises:
        UserError: an override is wrong.
    """
    try:
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            check_choices(override.key_or_group, override.value())
        with hydra.initialize_config_dir(str(_OWN_CONF), version_base="1.3"):
            composed = hydra.compose("config", [*_APART, *overrides])
        tree: Any = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"settings: {str(error).partition(chr(10))[0]}") from error
    # What the project here trusts has no say: no simulator is named by these settings.
    return read_settings({**tree, "trust": read_trust()})


def check_choices(group: str, chosen: Any) -> None:
    """Compare what is chosen of a group of settings, one name or several, with what conf/ holds of it.

    Raises:
        UserError: there is no such choice.
    """
    choices = sorted(file.stem for file in (_OWN_CONF / group).glob("*.yaml"))
    for name in chosen if isinstance(chosen, list | tuple) else [chosen]:
        if choices and isinstance(name, str) and name not in choices:
            close = difflib.get_close_matches(name, choices, 1)
            hint = f"did you mean {close[0]}? Choose" if close else "choose"
            raise UserError(f"{group}: there is no {name!r}; {hint} of {', '.join(choices)}")
