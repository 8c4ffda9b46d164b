"""Whether workers of two supervisors may fill one store at the same time."""

from collections.abc import Mapping
from typing import Any, Final

from retter.config.settings import Settings
from retter.proxy.lasting import may_be_kept, written_rules
from retter.proxy.part_settings import owner_rules
from retter.proxy.secrets import Secrets

_PRIVATE: Final = "store_private"


def rules_to_hand_over(settings: Settings, secrets: Secrets) -> dict[str, Any]:
    """Return the rules by which the workers of these settings store, for a successor."""
    rules = written_rules(owner_rules(settings, None, secrets), settings.store_policy)
    return {**rules, _PRIVATE: settings.store_private}


def may_go_on(given: Mapping[str, Any], settings: Settings, secrets: Secrets) -> bool:
    """Return whether what is stored by the rules of the process before may be shown by ours.

    Args:
        given: What `rules_to_hand_over` returned there; empty: it is of an earlier version.
    """
    if settings.store_private == "off" != given.get(_PRIVATE):
        return False
    noted = {name: value for name, value in given.items() if name != _PRIVATE}
    return may_be_kept(noted, owner_rules(settings, None, secrets), settings.store_policy)
