"""The folder that vLLM gets for a model.

It is the same at every alpha, because vLLM looks up compiled code by the folder's path.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expoflow import store
from expoflow.engines.memory import headers
from expoflow.engines.model import Model
from expoflow.engines.tokenizer import FILES
from expoflow.files.folder import appearing
from expoflow.files.hashing import json_digest, sha256


def package(model: Model, config: Any) -> Path:
    """Return a folder of the store with everything that vLLM reads of a model except its weights.

    The folder is found by its content. `config` is the model's, as transformers reads it. The
    model's own folder is returned if the store cannot be written to, or if vLLM must read the
    weight files, for their type or for a head that the config calls tied.
    """
    if not model.streamed and (config.dtype is None or _has_tied_head(model, config)):
        return model.folder
    files = sorted(_files(model.folder, sees=config.get_text_config() is not config))
    folder = store.root() / "packages" / json_digest([[path.name, sha256(path)] for path in files])
    try:
        with store.locked(folder):
            if not folder.is_dir():
                with appearing(folder, replace=False) as unfinished:
                    for path in files:
                        shutil.copyfile(path, unfinished / path.name)
    except OSError:
        return model.folder
    return folder


def _files(folder: Path, sees: bool) -> Iterator[Path]:
    """Yield config and code files, and those of tokenizer and processor if the model `sees`.

    Other models need no tokenizer here: vLLM gets token ids.
    """
    for path in folder.iterdir():
        reads = sees and (FILES.fullmatch(path.name) or path.name.endswith("processor_config.json"))
        if path.is_file() and (path.name == "config.json" or path.suffix == ".py" or reads):
            yield path


def _has_tied_head(model: Model, config: Any) -> bool:
    tied = getattr(config, "tie_word_embeddings", False)
    return tied and any(name.endswith("lm_head.weight") for name in headers(model))
