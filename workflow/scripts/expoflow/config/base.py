"""What all sections of a config have in common: names, alphas, paths, and strict models."""

import json
import math
import os
import re
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
LONGEST = 64  # characters of a name or an alpha; one file name holds several of them
LONGEST_FILE, LONGEST_PATH = 255, 4095  # bytes that Linux allows
ALPHA = r"-?\d+(\.\d+)?"
REFERENCE_ALPHAS = ("-1", "0")
REVISION = r"^[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*$"  # it becomes a path in the hub's cache, so it must not contain ..
COMMIT = re.compile(r"[0-9a-f]{40}")
VARIANTS = ("sft", "aligned", "expo")
DIFFERENCE = "expo-aligned"  # stands for the comparison of two variants
MINIATURE = "miniature"


def spell(alpha: float) -> str:
    """The one spelling of an alpha in file names and tables: `0.3`, `-0.5`, `25`."""
    text = format(Decimal(repr(alpha)), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _check_name(value: str) -> str:
    if not re.fullmatch(NAME, value) or len(value) > LONGEST:
        raise PydanticCustomError(
            "name",
            "a name is letters, digits, '.', '_' and '-', at most {longest}, and begins with a letter or a digit;"
            " rename it",
            {"longest": LONGEST},
        )
    return value


def check_path(value: str) -> str:
    if re.search(r"[{}\x00-\x1f\x7f]", value):
        raise PydanticCustomError(
            "path",
            "a path has no braces, which Snakemake takes for wildcards, and no control characters; rename it",
        )
    try:
        longest = max(map(len, value.encode().split(b"/")))
    except UnicodeEncodeError:
        raise PydanticCustomError("path", "a path is text; it holds half of a character") from None
    if longest > LONGEST_FILE or len(value.encode()) > LONGEST_PATH:
        raise PydanticCustomError("path", "a path is at most 4095 bytes long, each part 255; correct it")
    return value


def check_repository(value: str) -> str:
    if not re.fullmatch(rf"({NAME}/)?{NAME}", value):
        raise PydanticCustomError("hub", "a repository of the hub is ORG/NAME, as in its address on the hub")
    return value


def check_endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise PydanticCustomError(
            "endpoint", "an endpoint is an address such as http://127.0.0.1:8000/v1, without key or password"
        )
    return value.rstrip("/")


def _check_alpha(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PydanticCustomError("alpha", "an alpha is a finite number such as 0.3")
    if len(spell(float(value))) > LONGEST:  # it stands in file names
        raise PydanticCustomError("alpha", "an alpha is a number such as 0.3, of a few digits")
    return float(value)


def check_distinct(values: list[float]) -> list[float]:
    seen: set[str] = set()
    for value in values:
        if spell(value) in seen:
            raise PydanticCustomError(
                "alphas", "alpha {alpha} occurs twice; remove one", {"alpha": spell(value)}
            )
        seen.add(spell(value))
    return values


Name = Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": f"^{NAME}$"})]
PathName = Annotated[str, AfterValidator(check_path)]
Alpha = Annotated[float, BeforeValidator(_check_alpha)]
Fraction = Annotated[float, Field(gt=0, le=1)]


# Set in the environment of the process that writes the schema. Only that process reads the
# descriptions below the keys, because that takes as long as everything else.
DESCRIBED = "EXPOFLOW_DESCRIBED"


class Strict(BaseModel):
    """Base of all config sections: an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_by_name=True,
        # every job is a process of its own and uses only a few sections
        use_attribute_docstrings=DESCRIBED in os.environ,
        defer_build=True,
    )

    def canonical(self, **kwargs: Any) -> str:
        """Canonical JSON of this section with defaults filled in. Rules have it as a parameter."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True, **kwargs)
        return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _constrained(field: FieldInfo) -> Any:
    """The annotation of `field` with its constraints and without its default."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def partial(section: type[Strict]) -> type[Strict]:
    """`section` with every field optional, for the overrides of a pair."""
    fields = {
        name: (_constrained(field) | None, Field(None, description=field.description))
        for name, field in section.model_fields.items()
    }
    return create_model(f"Pair{section.__name__}", __base__=Strict, __doc__=section.__doc__, **fields)
