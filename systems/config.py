"""Typed configs from YAML plus ``key=value``; an unknown key is an error that lists the known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every config class: frozen and strict."""


C = TypeVar("C", bound=msgspec.Struct)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: PyYAML's 1.1 reads 1e-4 as text and ``no`` (Norwegian) as False."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, rule) for tag, rule in rules if not tag.endswith((":bool", ":float", ":timestamp"))
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, place: str) -> Any:
    """Return the value of a YAML text; ValueError names ``place`` when it is none."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"{place}: not YAML: {error}") from None


def load_config(config_type: type[C], path: Path | None, overrides: Iterable[str] = ()) -> C:
    """Return ``config_type`` filled from the YAML at ``path``, then from ``key=value`` overrides.

    Nested keys are joined by dots (``lora.rank=8``); values are YAML 1.2. ValueError names the
    file or override, the key and the known keys.
    """
    values: Any = {}
    if path is not None:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path)) or {}
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
        raise ValueError(f"{path or 'config'}: {error}") from None


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
