"""Complete loads: every weight of a model's class comes from the checkpoint.

Transformers initialises missing weights at random and leaves out unknown tensors, with only a
warning. Here both are errors. The class itself knows what it needs: on the device `meta` a model of
any size is loaded in a moment from the names and shapes of its tensors, without reading a byte of
them.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from expoflow.checkpoints import reward_heads
from expoflow.checkpoints.checkpoint import read_json_file
from expoflow.checkpoints.findings import ungathered
from expoflow.checkpoints.header import Tensor
from expoflow.checkpoints.tensor_names import AGAIN, BUFFER, HEAD, WRAPPERS, leftover
from expoflow.errors import CheckpointError, first_of
from expoflow.system.lean import without_sklearn

Role = Literal["language model", "reward model", "any model"]
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?)\.(\d+)\.")
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
MOST_LAYERS = 10_000  # building a class from a wrong config would take forever
# Names of classifiers' heads: those of transformers, and those that are renamed.
HEADS = ("score.", "classifier.", "head.", *(f"{name}." for name in reward_heads.LINEAR))
SHOWN = 3  # names in a message


@contextmanager
def offline(remote: bool = False) -> Iterator[None]:
    """Keep transformers from contacting the hub, unless the model has its own code (`remote`).

    Some configs name a backbone on the hub.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not remote
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def read_config(folder: Path, remote: bool = False) -> Any:
    """The model's config as read by transformers. Raises CheckpointError for an unknown config."""
    import transformers

    without_sklearn()
    for key, value in read_json_file(folder / "config.json").items():
        if key in DEPTHS and isinstance(value, int) and value > MOST_LAYERS:
            raise CheckpointError(f"{folder}: {key} is {value} in its config.json; correct it")
    try:
        with offline(remote):
            return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote)
    except Exception as error:  # a user's config.json, or code next to it, may contain anything
        kind = read_json_file(folder / "config.json").get("model_type")
        raise CheckpointError(
            f"{folder}: transformers {transformers.__version__} cannot read its config.json (model_type {kind!r}):"
            f" {_first_line(error)}; correct it, or, for a model with code of its own, read that code and set"
            " trust_remote_code: true"
        ) from None


def require_loadable(
    folder: Path, tensors: Mapping[str, Tensor], role: Role = "language model", remote: bool = False
) -> Any:
    """The model's class. Raises CheckpointError if `tensors` lack something that it needs, or have
    something unknown.

    Returns None in the same case as `load_report`.
    """
    architecture, report = load_report(folder, tensors, role, remote) or (None, None)
    if architecture:
        require_whole(report, folder, role)
    return architecture


def load_report(
    folder: Path, tensors: Mapping[str, Tensor], role: Role = "language model", remote: bool = False
) -> tuple[Any, dict[str, Any]] | None:
    """(the model's class, transformers' `output_loading_info`). Raises CheckpointError if the
    config gives no class.

    Reads no weights: `tensors` come from the headers of the files. For the role `any model` the
    class is the one that config.json names. If transformers has no such class, None is returned and
    nothing is checked.
    """
    import torch
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.utils import logging

    from expoflow.checkpoints.torch_types import TORCH

    kind = read_json_file(folder / "config.json").get("model_type")
    if role == "any model" and not remote and kind not in CONFIG_MAPPING_NAMES:
        return None
    config = read_config(folder, remote)
    if role == "reward model":
        config = reward_config(config, folder, tensors)
    names = reward_heads.renamed(tensors) if role == "reward model" else {}
    state = {
        names.get(name, name): torch.empty(
            tensor.shape, dtype=TORCH.get(tensor.dtype, torch.float32), device="meta"
        )
        for name, tensor in tensors.items()
    }
    settings = {"config": copy.deepcopy(config), "state_dict": state, "device_map": "meta", **PLAIN}
    architecture = named_class(config) if role == "any model" else model_class(config, folder, role, remote)
    if architecture is None:
        return None
    logging.set_verbosity_error()  # the error reports it
    logging.disable_progress_bar()
    try:
        with offline(remote):
            _, report = architecture.from_pretrained(None, **settings, **REPORT)
    except Exception as error:
        raise CheckpointError(
            f"{folder}: transformers cannot build this {role} by its config.json: {_first_line(error)}; correct it"
        ) from None
    return architecture, report


# Settings for a class that is only asked. Kernels that a config asks for may be missing here; they
# change no name or shape.
PLAIN = {"attn_implementation": "eager"}
# Arguments of `from_pretrained` that let `require_whole` see everything.
REPORT = {"output_loading_info": True, "ignore_mismatched_sizes": True}


def model_class(config: Any, folder: Path, role: Role, remote: bool = False) -> Any:
    """The transformers class for a config. Raises CheckpointError if there is none for the role.

    A language model has a class for text, or one for images and text. If both exist, the one that
    its config.json names is used.
    """
    import torch

    auto = _auto_class(config, role)
    try:
        # only the class is needed: unlike `auto`, it accepts a state dict without a folder
        with torch.device("meta"), offline(remote):
            return type(auto.from_config(copy.deepcopy(config), trust_remote_code=remote, **PLAIN))
    except Exception as error:
        remedy = (
            "`expoflow extrapolate` makes its checkpoints"
            if role == "language model"
            else f"it is no sequence classifier: {reward_heads.USUAL}"
        )
        raise CheckpointError(
            f"{folder}: transformers has no {role} for model_type {config.model_type!r} ({_first_line(error)}); {remedy}"
        ) from None


def _auto_class(config: Any, role: Role) -> Any:
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForSequenceClassification,
    )

    if role != "language model":
        return AutoModelForSequenceClassification
    known = {
        auto: getattr(auto._model_mapping[type(config)], "__name__", None)
        for auto in (AutoModelForCausalLM, AutoModelForImageTextToText)
        if type(config) in auto._model_mapping
    }
    named = architectures(config)[:1]
    return next(
        (auto for auto, name in known.items() if [name] == named), next(iter(known), AutoModelForCausalLM)
    )


def sees(architecture: type) -> bool:
    """Whether a class of transformers is one for images and text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return architecture.__name__ in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()


def architectures(config: Any) -> list[str]:
    """The names of classes in a config; empty if its entry is not a list."""
    names = getattr(config, "architectures", None)
    return [*map(str, names)] if isinstance(names, list) else []


def named_class(config: Any) -> Any:
    """The first transformers model class that a config names; None if it names none."""
    import transformers

    for name in architectures(config):
        try:
            named = getattr(transformers, name, None)
        except ImportError:  # its package is not installed
            continue
        if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel) and named.config_class:
            return named
    return None


def reward_config(config: Any, folder: Path, tensors: Mapping[str, Any]) -> Any:
    """A reward model's config with the number of logits of its head. `tensors` by name, with
    shapes, if they are known.

    Raises CheckpointError for a model that needs its own code, or that does not have exactly one
    logit.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    said = read_json_file(folder / "config.json")
    if reason := reward_heads.refused(said, shapes):
        raise CheckpointError(f"reward model {folder}: {reason}")
    labelled = {"id2label", "num_labels"} & said.keys()
    if reward_heads.logits(shapes) == 1 and not labelled:
        config.num_labels = 1  # transformers assumes 2 if config.json does not say
    elif shapes and not any(name.startswith(HEADS) for name in shapes):
        raise CheckpointError(
            f"reward model {folder}: has no trained head, like a language model; {reward_heads.USUAL}"
        )
    # nothing is known about pickles without labels before they are converted
    if (shapes or labelled) and config.num_labels != 1:
        raise CheckpointError(
            f"reward model {folder}: has {config.num_labels} logits by its config.json; one with num_labels 1 is needed:"
            f" {reward_heads.USUAL}"
        )
    return config


def require_whole(report: Mapping[str, Any], folder: Path, role: Role) -> None:
    """Raise CheckpointError for an incomplete load. `report` is transformers'
    `output_loading_info`."""
    missing = sorted(report["missing_keys"])
    unexpected = sorted(name for name in report["unexpected_keys"] if not BUFFER.search(name))
    if role == "reward model":  # the language model's old head may remain beside the new head
        unexpected = [name for name in unexpected if not HEAD.search(name)]
    mismatched = sorted(report["mismatched_keys"])
    if missing or unexpected or mismatched:
        raise CheckpointError(f"{folder}: {_cause(missing, unexpected, mismatched, role)}")
    if errors := report.get("error_msgs"):
        raise CheckpointError(
            f"{folder}: transformers does not load it: {'; '.join(map(str, errors))}; save it again"
        )


def _cause(missing: list[str], unexpected: list[str], mismatched: list[Any], role: Role) -> str:
    """The problem of a checkpoint, as far as names and shapes show it, with the remedy."""
    if missing and unexpected and (prefix := _prefix(missing, unexpected)):
        wrapper = next(
            (WRAPPERS[each] for each in WRAPPERS if prefix.endswith(each)), "what wrapped the model"
        )
        return (
            f"its tensors are named {prefix}..., as in {unexpected[0]}: {wrapper} wrapped the model that was saved, and"
            f" {len(missing)} weights would be random; save the model inside it (unwrap it, then save_pretrained)"
        )
    if role != "reward model" and (text := leftover(unexpected)):
        return text
    if mismatched and (text := ungathered({name: have for name, have, _ in mismatched})):
        return text
    if mismatched:
        _, have, need = mismatched[0]
        names = first_of(name for name, *_ in mismatched)
        return (
            f"tensor {names} is {_shape(have)} in its files and {_shape(need)} by its config.json; give the config.json"
            " that belongs to the weights"
        )
    if missing:
        return _missing(missing, unexpected, role)
    layers = _layers(unexpected)
    if len(layers) and min(layers) > 0 and all(LAYER.search(name) for name in unexpected):
        return (
            f"its files have layers that its config.json does not, up to layer {max(layers)}: {_some(unexpected)}: they would"
            " be left out; correct num_hidden_layers"
        )
    return (
        f"its files have tensors that its class does not know: {_some(unexpected)}: they would be left out; give the model"
        f" that its config.json describes, or {AGAIN}"
    )


def _missing(missing: list[str], unexpected: list[str], role: Role) -> str:
    layers, random = _layers(missing), f"{len(missing)} weights would be random"
    beside = f"; its files have {_some(unexpected)} instead" if unexpected else ""
    if role == "reward model" and all(name.startswith(HEADS) for name in missing):
        return (
            f"no trained head: {_some(missing)} is not in its files{beside}; is it a language model, or a reward model with"
            f" another head? {reward_heads.USUAL}"
        )
    if all(HEAD.search(name) for name in missing):
        return (
            f"the head {missing[0]} is not in its files and would be random; if it is tied to the embeddings, set"
            f" tie_word_embeddings: true in its config.json, else save the model with its head{beside}"
        )
    if layers and all(LAYER.search(name) for name in missing):
        return (
            f"its config.json has more layers than its files: {_some(missing)}: {random}; correct num_hidden_layers, or"
            f" give the whole model{beside}"
        )
    return f"tensors that its class needs are not in its files: {_some(missing)}: {random}{beside}; give a whole model"


def _prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """The prefix that turns missing names into unexpected ones. A tied head is in no file and is
    ignored."""
    wanted = {name for name in missing if not HEAD.search(name)}
    if not wanted:
        return None
    longest = max(wanted, key=len)
    found = next((name for name in unexpected if name.endswith(longest)), "")
    prefix = found.removesuffix(longest)
    return prefix if prefix and wanted <= {name.removeprefix(prefix) for name in unexpected} else None


def _layers(names: Iterable[str]) -> set[int]:
    return {int(found[1]) for name in names if (found := LAYER.search(name))}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "0-d"


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
