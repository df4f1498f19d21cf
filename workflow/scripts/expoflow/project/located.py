"""A config as plain data that means the same in any folder."""

import datetime
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from expoflow.config import Config
from expoflow.config.base import MINIATURE, check_path
from expoflow.system.installed import workflow_folder


def located(config: Config, base: Path) -> dict[str, Any]:
    """Return `config` with relative paths made absolute from `base`; keys left out stay out."""
    return _data(config, base.absolute())


def _data(value: Any, base: Path) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            fields[name].alias or name: _path(name, getattr(value, name), fields[name], base)
            for name in fields
            if name in value.model_fields_set
        }
    if isinstance(value, dict):
        return {key: _data(each, base) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_data(each, base) for each in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def _path(name: str, value: Any, field: Any, base: Path) -> Any:
    """Return the value of a field; a path becomes absolute, unless it names something shipped."""
    if not isinstance(value, str) or not _is_path(name, value, field):
        return _data(value, base)
    return str(base / value)


def _is_path(name: str, value: str, field: Any) -> bool:
    if name == "annotator":  # a name of alpaca_eval's, or a folder
        return "/" in value
    if name == "mlflow":  # an address, or a folder
        return ":" not in value
    if name == "accelerate":
        return not (workflow_folder() / "config/accelerate" / f"{value}.yaml").is_file()
    known = [*field.metadata, *(each for part in _parts(field.annotation) for each in get_args(part)[1:])]
    return value != MINIATURE and any(getattr(each, "func", None) is check_path for each in known)


def _parts(annotation: Any) -> list[Any]:
    """Return an annotation and, if it is a union, its members."""
    return [annotation, *get_args(annotation)]
