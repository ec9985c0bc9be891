"""Rules of what is to go wrong, changed while the stack is in use.

A mount that was made with the word `faults` has rules for all its places, wires among them. Any
other has none until the first rule comes, and with it a `fault` layer: it can be for operations
alone, for nothing can be put into a wire that is in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...layers.fault import Faulty, Rule, Rules, RulesError
from .elements import elements
from .protocol import ControlError

if TYPE_CHECKING:
    from .server import Living


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do: have one more rule, or those of a file's text; let go on what hangs (by the
    rules called `name`); have one less; have none. `place` is where the layer comes, if need be."""

    add: dict[str, str] = {}
    load: str = ""
    release: bool = False
    name: str | None = None
    remove: str = ""
    clear: bool = False
    place: str = ""


async def changed(living: Living, wish: Faults) -> list[dict[str, Any]]:
    """Change the rules of a mount; return those that hold then. Errors: ControlError."""
    try:
        if wish.add:
            rule = _rule(wish.add)
            if rule.place == "server":
                await _add_to_layer(living, wish, rule)
            else:
                _own(living, rule.place).add(rule)
        if wish.load:
            if living.rules is not None:
                living.rules.extend(wish.load)
            else:
                await _add_to_layer(living, wish, None)
    except RulesError as exc:
        raise ControlError(str(exc)) from None
    for rules in _every(living):
        if wish.remove:
            rules.remove(wish.remove)
        if wish.release:
            rules.release(wish.name)
        if wish.clear:
            rules.clear()
    if wish.clear:
        _leave(living)
    return [line for rules in _every(living) for line in _shown(rules)]


def _rule(words: Mapping[str, str]) -> Rule:
    values: dict[str, Any] = dict(words)
    if "op" in values:
        values["op"] = values["op"].split(",")
    try:
        return msgspec.convert(values, Rule, strict=False)
    except msgspec.ValidationError as exc:
        raise ControlError(f"this is no rule: {exc}") from None


def _own(living: Living, place: str) -> Rules:
    if living.rules is None:
        raise ControlError(
            f"the mount was made without the word faults: rules for '{place}' find nothing to "
            "break; mount with -o faults=FILE"
        )
    return living.rules


async def _add_to_layer(living: Living, wish: Faults, rule: Rule | None) -> None:
    """Have a rule (or the rules of the text) in the fault layer, which comes if there is none.

    One that has come for a rule that makes no sense goes again.
    """
    layer = _layer(living)
    if layer is None:
        come = await living.joints.insert("fault", wish.place)
        assert isinstance(come, Faulty)
        layer = come
        layer.rules.bind({"server"})
    try:
        if rule is not None:
            layer.rules.add(rule)
        else:
            layer.rules.extend(wish.load)
    except RulesError:
        if not len(layer.rules):
            _leave(living)
        raise


def _layer(living: Living) -> Faulty | None:
    """Return the uppermost fault layer of the stack."""
    for element in elements(living.end):
        if isinstance(element.part, Faulty):
            return element.part
    return None


def _leave(living: Living) -> None:
    """Take the fault layer out if it has come for rules that are gone."""
    layer = _layer(living)
    if layer is not None and living.joints.is_guest(layer):
        living.joints.remove_part(layer)


def _every(living: Living) -> list[Rules]:
    layer = _layer(living)
    found = [] if living.rules is None else [living.rules]
    if layer is not None and layer.rules is not living.rules:
        found.append(layer.rules)
    return found


def _shown(rules: Rules) -> list[dict[str, Any]]:
    """Return the rules with how often they matched, were taken, and how many hang by them now."""
    return [
        {
            "name": taken.name,
            "rule": {
                name: value
                for name, value in msgspec.structs.asdict(taken.rule).items()
                if value != getattr(_PLAIN, name) and name != "name"
            },
            "matched": taken.matched,
            "taken": taken.taken,
            "hanging": taken.hanging,
        }
        for taken in rules.statistics()
    ]


_PLAIN: Final = Rule()
