"""What the transformers class of a checkpoint says about it: tensors and their places, ties, the
config as it is read.

The class is built on torch's device `meta`, which takes a moment for a model of any size. Importing
torch and transformers takes seconds, so the class is asked only if something depends on the answer.
The answer is kept in the store, by the content of config.json, the names of the tensors and the
versions.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from typing import Any

from pydantic import ConfigDict

from expoflow import store
from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.errors import CheckpointError
from expoflow.files.records import Record

FORM = 3  # version of the kept answers; raised if their meaning changes


class Conversion(Record):
    """How the loader makes one tensor of the class from several in the files, or from one with
    another layout.

    `parts` has a list of names in the files for each of the loader's patterns, in the loader's
    order. `operations` are those of transformers in order, as printed by transformers:
    `MergeModulelist(dim=0)`, `Concatenate(dim=1)`.
    """

    parts: list[list[str]]
    operations: list[str]


class ModelClass(Record):
    """A class of transformers, built from a config.json. Its own names of tensors are those of its
    state dict.

    `tensors`: shapes by name. `tied` maps a tensor's name to the tensor with which it shares its
    values. `vocabulary` maps a tensor's name to the dimension that counts tokens; it has the input
    and output embeddings, their biases, tensors tied to them, and anything else that the class
    resizes with them. `conv1d`: weights that are stored as (in, out). `config`: the config as the
    class reads it, with all defaults.

    The caller asks for names of tensors in files, or of modules. `renamed` maps those with another
    name in the class to that name. `converted` says how the class makes a tensor from others that
    it does not have itself. `ignored` are the names that the class leaves out on purpose.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    config: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    tied: dict[str, str]
    vocabulary: dict[str, int]
    conv1d: list[str]
    renamed: dict[str, str]
    converted: dict[str, Conversion]
    ignored: list[str]

    @cached_property
    def parts(self) -> frozenset[str]:
        """Names of parts: the class combines several of them into one tensor, or changes their
        layout."""
        return frozenset(
            name for each in self.converted.values() for names in each.parts for name in names
        ) - set(self.renamed)

    def place(self, name: str) -> str | None:
        """The class' own name of a tensor that was asked for; None if it is not a whole tensor of
        the class."""
        if name in self.renamed:
            return self.renamed[name]
        return name if name in self.tensors and name not in self.parts else None

    def tie(self, name: str) -> str:
        """The common source of tensors that are tied to one another; for others, their own name."""
        while name in self.tied:
            name = self.tied[name]
        return name

    @property
    def scales_by_tie(self) -> bool:
        """Whether the tie may mean more than shared values: encoder-decoders such as T5 then scale
        their logits."""
        return bool(self.config.get("is_encoder_decoder"))

    def shares(self, name: str) -> bool:
        """Whether a tensor is tied to another tensor of the class."""
        return name in self.tied or name in self.tied.values()


def ask(checkpoint: Checkpoint, names: Iterable[str] = ()) -> ModelClass:
    """Ask the class that loads `checkpoint`, including the places of its tensors' names and of
    `names`.

    Reads only its config.json. Raises CheckpointError if transformers has no class for it, or
    cannot build it.
    """
    kind = checkpoint.config.get("model_type")
    if not kind:
        raise CheckpointError(
            f"{checkpoint.users}: its config.json {'names no model_type' if checkpoint.config else 'is missing'};"
            " give the config.json that belongs to the weights"
        )
    names = sorted({*checkpoint.tensors, *names})
    versions = [version(package) for package in ("torch", "transformers")]
    key = [FORM, checkpoint.config, names, versions]
    try:
        return store.kept("classes", key, ModelClass, lambda: _asked(checkpoint, names))
    except CheckpointError as error:
        raise CheckpointError(checkpoint.in_users(str(error))) from None


def _asked(checkpoint: Checkpoint, names: list[str]) -> ModelClass:
    import torch
    from transformers.utils import logging

    from expoflow.checkpoints.loading import PLAIN, offline, read_config

    logging.set_verbosity_error()  # problems are reported here instead
    config = read_config(checkpoint.folder)
    architecture = _architecture(config)
    if architecture is None:
        raise CheckpointError(
            f"{checkpoint.folder}: transformers has no class for model_type {config.model_type!r}"
            f" (architectures: {config.architectures}); correct its config.json"
        )
    try:
        with torch.device("meta"), offline():
            model = architecture._from_config(config, **PLAIN)
    except Exception as error:  # a user's config.json may contain anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise CheckpointError(
            f"{checkpoint.folder}: transformers cannot build {architecture.__name__} by its config.json: {reason};"
            " correct it"
        ) from None
    tensors = model.state_dict()
    renamed, converted, unknown = _placed(model, tensors, names)
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    return ModelClass(
        name=architecture.__name__,
        config=json.loads(config.to_json_string(use_diff=False)),
        tensors={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        tied=tied,
        conv1d=list(_conv1d(model)),
        renamed=renamed,
        converted=converted,
        ignored=_ignored(model, unknown),
        vocabulary=_vocabulary(model, tensors, tied),  # last, because it changes the model
    )


def _architecture(config: Any) -> Any:
    """The class that a config names, or else the class for its model type; None if there is
    neither."""
    from transformers.models.auto import modeling_auto

    from expoflow.checkpoints.loading import named_class

    if named := named_class(config):
        return named
    mappings = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_MAPPING,
    )
    return next((each[type(config)] for each in mappings if type(config) in each), None)


def _vocabulary(model: Any, tensors: dict[str, Any], tied: dict[str, str]) -> dict[str, int]:
    """The dimension that counts tokens, by tensor. Resizes `model`.

    It covers the class' input and output embeddings, tensors that are resized with them, such as
    Bart's `final_logits_bias`, and everything that is tied to these.
    """
    found = []
    for question in (model.get_input_embeddings, model.get_output_embeddings):
        with suppress(NotImplementedError):
            found.append(question())
    own = {
        f"{name}.{part}"
        for name, module in model.named_modules(remove_duplicate=False)
        if any(module is each for each in found)
        for part in ("weight", "bias")
    }
    found = dict.fromkeys(own & tensors.keys(), 0) | _resized(model, tensors)
    sources = {tied.get(name, name): dimension for name, dimension in found.items()}
    return {
        name: found.get(name, sources.get(tied.get(name, name)))
        for name in tensors
        if name in found or tied.get(name, name) in sources
    }


def _resized(model: Any, tensors: dict[str, Any]) -> dict[str, int]:
    """The dimension that shrinks if the model has one token fewer, by tensor; empty if the class
    cannot be resized."""
    import torch

    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with suppress(Exception):  # a class may not support this
        tokens = model.get_input_embeddings().weight.shape[0]
        with torch.device("meta"):
            model.resize_token_embeddings(
                tokens - 1
            )  # with one token more, some classes would read the weights
    return {
        name: differing[0]
        for name, tensor in model.state_dict().items()
        if name in shapes
        and len(tensor.shape) == len(shapes[name])
        and (differing := [at for at, size in enumerate(tensor.shape) if size != shapes[name][at]])
    }


def _conv1d(model: Any) -> Iterator[str]:
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, Conv1D):
            yield f"{name}.weight"


def _placed(
    model: Any, tensors: dict[str, Any], names: list[str]
) -> tuple[dict[str, str], dict[str, Conversion], list[str]]:
    """Place names like the loader does: (class' name by name in files, conversions by class' name,
    unknown names)."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    rules = get_model_conversion_mapping(model)
    renamings = [each for each in rules if isinstance(each, WeightRenaming)]
    converters = [each for each in rules if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    prefix = model.base_model_prefix
    renamed, unknown = {}, []
    gathered: dict[str, tuple[Any, dict[str, list[str]]]] = {}
    for name in sorted(
        names, key=dot_natural_key
    ):  # the order matters: it is the order of a conversion's parts
        new, pattern = rename_source_key(name, renamings, converters, prefix, tensors)
        if new not in tensors and name in tensors:
            new, pattern = rename_source_key(name, [], [], prefix, tensors)
        if new not in tensors:
            unknown.append(name)
        elif pattern is not None:
            converter = by_pattern[pattern]
            parts = gathered.setdefault(new, (converter, {each: [] for each in converter.source_patterns}))[1]
            parts.setdefault(pattern, []).append(name)
        elif new != name:
            renamed[name] = new
    converted = {
        name: Conversion(parts=list(parts.values()), operations=[repr(each) for each in converter.operations])
        for name, (converter, parts) in gathered.items()
    }
    return renamed, converted, unknown


def _ignored(model: Any, unknown: list[str]) -> list[str]:
    """The names without a place that the loader does not report as unexpected."""
    buffers = [name for name, _ in model.named_buffers()]
    patterns = set(model._keys_to_ignore_on_load_unexpected or ())
    patterns |= {
        pattern
        for end, pattern in (
            ("rotary_emb.inv_freq", r"rotary_emb\.inv_freq"),
            ("position_ids", r"(^|\.)position_ids$"),
        )
        if any(name.endswith(end) for name in buffers)
    }
    return [name for name in unknown if any(re.search(pattern, name) for pattern in patterns)]
