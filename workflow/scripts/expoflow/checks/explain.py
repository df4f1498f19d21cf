"""Turn pydantic's errors into lines with the thing, the value and the remedy."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from expoflow.config import Config
from expoflow.config.recipes import RECIPES, TRAINED_ON

# Settings that may contain a secret key by mistake, so their values are not shown.
PRIVATE = ("base_url", "api_key_env")


def explain(problem: Mapping[str, Any]) -> str:
    """One line for a pydantic error: the place, the value, the problem, and for a typo the closest
    key."""
    path = [part for part in problem["loc"] if part != "[key]"]
    if problem["type"] == "extra_forbidden":
        return _unknown_key(path)
    where = ".".join(_without_tags(path))
    if problem["type"] == "missing":
        return f"{where}: missing; add it"
    message = re.sub("^(Input|List|Dictionary|String) should", "must", problem["msg"])
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        message = f"must have recipe: {', '.join(RECIPES[:-1])} or {RECIPES[-1]}"
    value = problem["input"]
    scalar = isinstance(value, str | int | float | None) and path[-1] not in PRIVATE
    return f"{where}: {value!r} is not accepted: {message}" if scalar else f"{where}: {message}"


def _unknown_key(path: list[Any]) -> str:
    known = _keys_at(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(sorted(known))}"
    return f"{'.'.join(_without_tags(path))}: unknown key '{path[-1]}'; {hint}"


def _keys_at(path: Iterable[Any]) -> list[str]:
    """The keys of the config section at `path`."""
    section: Any = Config
    for part in path:
        section = _step(section, part)
    return [field.alias or name for name, field in section.model_fields.items()]


def _step(section: Any, part: Any) -> Any:
    """The section one step further along pydantic's error location. The name of a recipe is a step
    too."""
    if isinstance(section, list):
        chosen = [option for option in section if part in _tags(option)]
        return chosen[0] if len(chosen) == 1 else chosen
    if get_origin(section) in (dict, list):
        options = _options(get_args(section)[-1])
    else:
        options = _options(section.model_fields[part].annotation)
    return options[0] if len(options) == 1 else options


def _tags(recipe: Any) -> tuple[str, ...]:
    """The parts of an error's location by which pydantic names a recipe's model, in order."""
    fields = recipe.model_fields
    return *(get_args(fields["data"].annotation) or ("dataset",)), *get_args(fields["recipe"].annotation)


def _options(annotation: Any) -> list[Any]:
    """The members of a union, without `Annotated` and None."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) is Union or str(type(annotation)) == "<class 'types.UnionType'>":
        return [o for a in get_args(annotation) if a is not type(None) for o in _options(a)]
    return [annotation]


def _without_tags(path: list[Any]) -> list[str]:
    """`path` without the tags that pydantic adds after `train`: the kind of training data, and the
    recipe."""
    parts = [str(part) for part in path]
    for index, part in enumerate(parts):
        if part == "train" and parts[index + 1 : index + 2] and parts[index + 1] in TRAINED_ON:
            tags = 2 if parts[index + 2 : index + 3] and parts[index + 2] in RECIPES else 1
            return parts[: index + 1] + parts[index + 1 + tags :]
    return parts
