"""docs/reference/configuration.md: every key of a config, from config/schema.json."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from config_values import EXAMPLES, UNITS

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "config/schema.json").read_text(encoding="utf-8"))
DEFINED: dict[str, Any] = SCHEMA["$defs"]
# Where examples are looked for, in this order.
SHIPPED = (
    "example",
    "paper",
    "controlled",
    "combinations",
    "config",
    "miniature-benchmarks",
    "miniature-controlled",
)
LONGEST = 48  # characters of an example in a table
HEAD = """<!-- Made by `make reference` from config/schema.json; do not edit. -->

# Every key of a config

This page lists every key that a config may have. [configuration.md](../configuration.md) says how a
config works. `{name}` stands for a name that you choose. A key without a default is required. An
unknown key is an error, with the nearest key in the message.
"""
BOUNDS = {
    "exclusiveMinimum": "more than {}",
    "minimum": "at least {}",
    "exclusiveMaximum": "less than {}",
    "maximum": "at most {}",
    "minLength": "not empty",
}
TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "`true` or `false`"}


@dataclass(frozen=True)
class Key:
    """A key of a config: where it stands, what the schema says of it, and the section that it opens, if any."""

    path: str
    schema: dict[str, Any]
    required: bool


def keys(definition: dict[str, Any], path: str) -> list[Key]:
    """The keys of a section at `path`."""
    needed = definition.get("required", ())
    return [
        Key(f"{path}.{name}".lstrip("."), schema, name in needed)
        for name, schema in definition.get("properties", {}).items()
    ]


def by_name(schema: dict[str, Any]) -> dict[str, Any] | None:
    """What stands under names that the user chooses; None if the names are the config's."""
    found = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return found[0] if isinstance(found[0], dict) else None


def opened(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """The sections that a key opens: the name of each definition, and its path."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2], path
    for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from opened(each, path)
    if (within := by_name(schema)) is not None:
        yield from opened(within, f"{path}.{{name}}")
    if isinstance(schema.get("items"), dict):
        yield from opened(schema["items"], f"{path}[]")


def base(name: str) -> str:
    """The definition that has the keys of `name`: of a pair's overrides that of the section which they override."""
    whole = name.removeprefix("Pair")
    return whole if whole in DEFINED else name


def places() -> dict[str, str]:
    """The path at which the page shows each definition: the shortest one, in the order of the config."""
    found: dict[str, str] = {}
    waiting = [("", SCHEMA)]
    while waiting:
        path, definition = waiting.pop(0)
        for key in keys(definition, path):
            for name, at in opened(key.schema, key.path):
                if base(name) == name and name not in found:
                    found[name] = at
                    waiting.append((at, DEFINED[name]))
    # A section of the whole config is shown there, also if a model or a pair has one too.
    top = {
        name: at
        for key in keys(SCHEMA, "")
        for name, at in opened(key.schema, key.path)
        if name == base(name)
    }
    return found | top


PLACES = places()


def anchor(heading: str) -> str:
    """The anchor of a heading, as repository hosts and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _link(name: str) -> str:
    path = PLACES[base(name)]
    return f"[`{path}`](#{anchor(heading(base(name)))})"


def heading(name: str) -> str:
    """The heading of a definition's section."""
    recipe = DEFINED[name].get("properties", {}).get("recipe", {}).get("const")
    if recipe is None:
        return f"`{PLACES[name]}`"
    return f"Recipe `{recipe}` {'in the miniature' if name.startswith('Miniature') else 'on a dataset'}"


def kind(schema: dict[str, Any]) -> str:
    """What a key may be, in words."""
    if "$ref" in schema:
        return f"section {_link(schema['$ref'].rpartition('/')[2])}"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{each}`" for each in schema["enum"])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        shown = [each for each in options if each.get("type") != "null"]
        if recipes := [
            name for each in shown for name, _ in opened(each, "") if "recipe" in DEFINED[name]["properties"]
        ]:
            return "a recipe: " + ", ".join(
                f"[{heading(name)[7:]}](#{anchor(heading(name))})" for name in recipes
            )
        return " or ".join(dict.fromkeys(kind(each) for each in shown))
    if schema.get("type") == "array":
        text = f"list of {_count(schema)}{_many(kind(schema.get('items', {})))}"
    elif (within := by_name(schema)) is not None:
        text = f"{_many(kind(within))} by name"
    elif schema.get("format") == "date":
        text = "date"
    elif schema.get("pattern", "").startswith("^[A-Za-z0-9][A-Za-z0-9._-]*$"):
        text = "name"
    else:
        text = TYPES[schema["type"]]
    bounds = [BOUNDS[key].format(value) for key, value in schema.items() if key in BOUNDS]
    return ", ".join([text, *bounds])


def _count(schema: dict[str, Any]) -> str:
    """How many values a list has, in words."""
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low is not None and low == high:
        return f"{low} "
    return f"at most {high} " if high is not None else f"{low} or more " if low else ""


def _many(text: str) -> str:
    first = text.partition(" ")[0]
    plural = {
        "name": "names",
        "text": "texts",
        "number": "numbers",
        "integer": "integers",
        "section": "sections",
        "list": "lists",
    }
    bare = first.rstrip(",")
    return text.replace(bare, plural[bare], 1) if bare in plural else f"values, each {text}"


def default(key: Key) -> str:
    """The default, as it is written in a config."""
    if key.required:
        return "required"
    value = key.schema.get("default")
    if value is None:
        return "none"
    if isinstance(value, dict) and value and "$ref" in key.schema:
        own = DEFINED[key.schema["$ref"].rpartition("/")[2]]["properties"]
        other = {name: each for name, each in value.items() if each != own[name].get("default")}
        return "its defaults" + (f", but `{written(other)}`" if other else "")
    return f"`{written(value)}`"


def written(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, float) and (0 < abs(value) < 1e-3):
        return f"{value:.15g}".replace("e-0", "e-")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def numeric(schema: dict[str, Any]) -> bool:
    """Whether a key may be a number, or a list of numbers."""
    options = (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ()))
    return schema.get("type") in ("integer", "number") or any(map(numeric, options))


def unit(key: Key) -> str | None:
    """The unit of a number: what the longest end of its path that is listed has."""
    parts = key.path.split(".") if numeric(key.schema) else []
    return next((UNITS[end] for at in range(len(parts)) if (end := ".".join(parts[at:])) in UNITS), None)


def example(key: Key, shipped: dict[str, Any]) -> Any:
    """An example: one that is stated, else one of a shipped config, else the default."""
    parts = key.path.split(".")
    for at in range(len(parts)):
        if (end := ".".join(parts[at:])) in EXAMPLES:
            return EXAMPLES[end]
    if "const" in key.schema:
        return key.schema["const"]
    return shipped.get(key.path, key.schema.get("default"))


def shipped_values() -> dict[str, Any]:
    """Values of the shipped configs by path, with {name} for names."""
    found: dict[str, Any] = {}

    def walk(value: Any, schema: dict[str, Any], path: str) -> None:
        if path and not isinstance(value, dict) and len(written(value)) <= LONGEST:
            found.setdefault(path, value)
        if not isinstance(value, dict):
            return
        options = [each for each in (schema, *schema.get("anyOf", ()), *schema.get("oneOf", ()))]
        for option in options:
            if (within := by_name(option)) is not None:
                for each in value.values():
                    walk(each, within, f"{path}.{{name}}")
        for name, _ in opened(schema, path):
            properties = DEFINED[name].get("properties", {})
            for key in value.keys() & properties.keys():
                walk(value[key], properties[key], f"{path}.{key}")

    for name in SHIPPED:
        config = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text(encoding="utf-8"))
        for key in config.keys() & SCHEMA["properties"].keys():
            walk(config[key], SCHEMA["properties"][key], key)
    return found


def row(key: Key, shipped: dict[str, Any]) -> str:
    """A key's row of a table."""
    what = kind(key.schema) + (f" ({counted})" if (counted := unit(key)) else "")
    shown = example(key, shipped)
    opens = [DEFINED[name].get("description", "") for name, _ in opened(key.schema, "")]
    meaning = key.schema.get("description") or (opens[0] if opens else "")
    given = (
        ""
        if shown is None or (isinstance(shown, dict) and not shown)
        else f"`{key.path.rpartition('.')[2]}: {written(shown)}`"
    )
    cells = (f"`{key.path}`", what, default(key), " ".join(meaning.split()), given)
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def table(some: list[Key], shipped: dict[str, Any]) -> str:
    """The table of a section's keys."""
    head = "| key | type | default | meaning | example |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(f"{row(key, shipped)}\n" for key in some)


def recipes(names: list[str], title: str, shipped: dict[str, Any]) -> str:
    """The recipes of one kind: the keys that they all have alike, then each one's own."""
    own = {name: keys(DEFINED[name], PLACES[name]) for name in names}
    first, *others = own.values()
    shared = [key for key in first if all(key in each for each in others)]
    parts = [f"### {title}\n\nAll of these recipes have these keys.\n\n{table(shared, shipped)}"]
    for name, every in own.items():
        text = " ".join(DEFINED[name]["description"].split())
        parts.append(
            f"### {heading(name)}\n\n{text}\n\n{table([key for key in every if key not in shared], shipped)}"
        )
    return "\n".join(parts)


def page() -> str:
    """The whole page."""
    shipped = shipped_values()
    parts = [HEAD, "## The whole config\n\n" + table(keys(SCHEMA, ""), shipped)]
    ordered = [key.path for key in keys(SCHEMA, "")]
    names = sorted(
        PLACES, key=lambda name: (ordered.index(re.split(r"[.\[]", PLACES[name])[0]), PLACES[name].count("."))
    )
    trained = [name for name in names if "recipe" in DEFINED[name].get("properties", {})]
    for name in names:
        if name in trained:
            if name == trained[0]:
                made = [each for each in trained if each.startswith("Miniature")]
                parts.append(recipes(made, "Recipes in the miniature", shipped))
                parts.append(
                    recipes([each for each in trained if each not in made], "Recipes on a dataset", shipped)
                )
            continue
        text = " ".join(DEFINED[name].get("description", "").split())
        level = "##" if "." not in PLACES[name].replace(".{name}", "") else "###"
        parts.append(
            f"{level} {heading(name)}\n\n{text}\n\n{table(keys(DEFINED[name], PLACES[name]), shipped)}"
        )
    return "\n".join(parts)
