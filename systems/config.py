"""Typed configs from YAML plus ``key=value``; an unknown key is an error that lists the known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

import msgspec
import yaml

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
CountOrNone: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
"""Of which 0 mostly means: off."""
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
NotNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
NotPositive: TypeAlias = Annotated[float, msgspec.Meta(le=0)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every config class: frozen and strict."""


C = TypeVar("C", bound=msgspec.Struct)


class _Loader(yaml.SafeLoader):
    """YAML 1.2: PyYAML's 1.1 reads 1e-4 as text, ``no`` (Norwegian) as False, and of a key that
    is there twice one value.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"{key.value} is there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        return values


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, rule) for tag, rule in rules if not tag.endswith((":bool", ":float", ":timestamp"))
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# The "$": PyYAML asks how a scalar begins, and "0.9 1.1" and "true voices" are texts.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"([-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, place: str) -> Any:
    """Return the value of a YAML text; ValueError names ``place`` when it is none."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{place}: not YAML: line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{place}: not YAML: {error}") from None


def load_config(config_type: type[C], path: Path | None, overrides: Iterable[str] = ()) -> C:
    """Return ``config_type`` filled from the YAML at ``path``, then from ``key=value`` overrides.

    Nested keys are joined by dots (``lora.rank=8``); values are YAML 1.2. ValueError names the
    file or override, the key and the known keys, or what its value must be.
    """
    values: Any = {}
    overrides = list(overrides)
    if path is not None:
        values = parse_yaml(_text(Path(path)), str(path)) or {}
        if not isinstance(values, dict):
            raise ValueError(f"{path}: is a {type(values).__name__}, must be a mapping of keys")
        _check_keys(config_type, values, str(path))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ValueError(f"override {override!r} must be key=value")
        nested = _nest(key.split("."), parse_yaml(value, f"override {override!r}"))
        _check_keys(config_type, nested, f"override {override!r}")
        _merge(values, nested)
    try:
        return msgspec.convert(values, config_type)
    except msgspec.ValidationError as error:
        raise ValueError(_fault(config_type, values, str(error), path, overrides)) from None


_FAULT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<place>[^`]*)`)?", re.DOTALL)


def _fault(
    config_type: type[Any],
    values: Any,
    message: str,
    path: Path | None,
    overrides: Sequence[str],
) -> str:
    """Return msgspec's message as ``place: value, rule``."""
    match = _FAULT.fullmatch(message)
    assert match is not None
    keys = re.findall(r"\w+", match["place"] or "")
    kind: Any = config_type
    for key in keys:
        values = values[key] if isinstance(values, Mapping) else values[int(key)]
        kind = _inner(kind, key)
    name = ".".join(keys)
    setting = [one for one in overrides if f"{name}.".startswith(one.partition("=")[0] + ".")]
    place = f"override {setting[-1]!r}" if setting else str(path or "config")
    rule = re.sub(r", got `.*", "", match["what"]).replace("Expected ", "must be ")
    if rule.startswith("Invalid enum value"):
        rule = f"must be one of: {', '.join(map(str, _choices(kind)))}"
    return f"{place}: {name} is {values!r}, {rule}" if keys else f"{place}: {rule}"


def _inner(kind: Any, key: str) -> Any:
    """Return the type of a key of a struct, or of an item of a tuple."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return next(field.type for field in msgspec.structs.fields(kind) if field.name == key)
    return kind


def _choices(kind: Any) -> list[Any]:
    """Return what any Literal in a type allows."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if kind in (int, float):
        return ["a number"]
    return [choice for part in get_args(kind) for choice in _choices(part)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8: {error.reason}") from None


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _check_keys(config_type: type[Any], values: dict[str, Any], place: str) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(config_type)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{place}: unknown key {key!r}; known: {', '.join(sorted(known))}")
        inner = known[key]
        if (
            isinstance(value, dict)
            and isinstance(inner, type)
            and issubclass(inner, msgspec.Struct)
        ):
            _check_keys(inner, value, place)
