"""What transformers' class of a checkpoint says of it: its tensors and their places, what is tied, the config as it is read.

The class is built on torch's device `meta`, which takes a moment for a model of any size; but importing torch and transformers
takes seconds. So it is asked only if something depends on the answer. The answer is kept in the store, by the content of
config.json, the names of the tensors and the versions.
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

FORM = 3  # of a kept answer; raised if it means something else


class Conversion(Record):
    """How the loader makes one tensor of the class of several in the files, or of one that is laid out otherwise.

    `parts` has a list of names in files for each of the loader's patterns, in the order in which it takes them. `operations`
    are transformers' own, one after the other, as they print themselves: `MergeModulelist(dim=0)`, `Concatenate(dim=1)`.
    """

    parts: list[list[str]]
    operations: list[str]


class ModelClass(Record):
    """A class of transformers, built by a config.json. Its own names of tensors are those of its state dict.

    `tensors`: shape by name. `tied`: by the name of a tensor the one whose values it shares. `vocabulary`: by
    the name of a tensor the dimension that counts tokens; of the input and output embeddings, their biases, what is tied to them,
    and whatever else the class resizes with them. `conv1d`: weights that are stored as (in, out). `config`: as the class
    reads it, with all its defaults.

    Of the names that were asked for, in files or of modules: `renamed` has the class' own name of those that have another
    one, `converted` says how a tensor of the class is made of those that are no tensor of it, and `ignored` are those that
    the class leaves out on purpose.
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
        """Names that no tensor of the class has alone: it is made of several, or laid out otherwise."""
        return frozenset(
            name for each in self.converted.values() for names in each.parts for name in names
        ) - set(self.renamed)

    def place(self, name: str) -> str | None:
        """The class' own name of a tensor that was asked for; None for one that is no tensor of the class alone."""
        if name in self.renamed:
            return self.renamed[name]
        return name if name in self.tensors and name not in self.parts else None

    def tie(self, name: str) -> str:
        """The name that all tensors have in common that are tied to one another: the source; of others their own."""
        while name in self.tied:
            name = self.tied[name]
        return name

    @property
    def scales_by_tie(self) -> bool:
        """Whether the tie may mean more than shared values: encoder-decoders such as T5 scale their logits by it."""
        return bool(self.config.get("is_encoder_decoder"))

    def shares(self, name: str) -> bool:
        """Whether another tensor of the class has the same values, by a tie."""
        return name in self.tied or name in self.tied.values()


def ask(checkpoint: Checkpoint, names: Iterable[str] = ()) -> ModelClass:
    """What the class says that loads `checkpoint`; places for its tensors' names and for `names`.

    Reads its config.json alone. Raises CheckpointError if transformers has no class for it, or cannot build it.
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

    logging.set_verbosity_error()  # what is wrong is said here
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
    except Exception as error:  # whatever stands in a user's config.json
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
        vocabulary=_vocabulary(model, tensors, tied),  # the last, for it changes the model
    )


def _architecture(config: Any) -> Any:
    """The class that a config names, or the one for its type if it names none for it; None without either."""
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
    """The dimension that counts tokens, by tensor: of the modules that the class calls its input and output embeddings, of what
    it resizes with them, such as Bart's `final_logits_bias`, and of all that is tied to these. Resizes `model`.
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
    """The dimension whose size changes if the model has a token less, by tensor; none if its class cannot be resized."""
    import torch

    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with suppress(Exception):  # whatever a class does not foresee
        tokens = model.get_input_embeddings().weight.shape[0]
        with torch.device("meta"):
            model.resize_token_embeddings(tokens - 1)  # with a token more some would look at the weights
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
    """(the class' name by name in files, conversions by the class' name, names without a place), as the loader finds them."""
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
    for name in sorted(names, key=dot_natural_key):  # the order counts: the parts of a conversion come in it
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
    """Of the names without a place those that the loader does not call unexpected."""
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
