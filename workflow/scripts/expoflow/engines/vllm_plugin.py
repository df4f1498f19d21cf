"""vLLM plugin: load format `expo`, and workers that change alpha without a restart.

    vllm serve ALIGNED --load-format expo --model-loader-extra-config '{"sft": "SFT", "alpha": 0.3}'

vLLM finds it by the entry point `vllm.general_plugins`. The workers compute theta1 + alpha *
(theta1 - theta0) tensor by tensor while they load (`sharing`). Each worker keeps its own share, as
for any checkpoint.
"""

import dataclasses
import difflib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from vllm.config import ModelConfig
from vllm.config.load import LoadConfig
from vllm.distributed import get_tp_group, get_world_group
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, RMSNorm
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload
from vllm.platforms import current_platform

from expoflow.engines import in_place
from expoflow.engines.ahead import tensors_for
from expoflow.engines.sharing import Ranks, shared
from expoflow.errors import ConfigError, ExpoflowError, PairError
from expoflow.extrapolation.options import RULES
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import opened, require_equal

FORMAT = "expo"
KEYS = ("sft", "alpha", "aligned", *RULES)
LINEAR = (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)
NORMS = (RMSNorm, GemmaRMSNorm, nn.LayerNorm)
TOWER = "vision_model"
UNKNOWN = "There is no module or parameter named"  # in vLLM's error


def register() -> None:
    """Register load format `expo`; vLLM calls this in each of its processes."""
    register_model_loader(FORMAT)(ExpoLoader)


def extra_config(streamed: Streamed) -> dict[str, Any]:
    """Return the --model-loader-extra-config for `streamed`, as plain JSON data."""
    data = streamed.model_dump(mode="json")
    return {key: (data | data["options"])[key] for key in KEYS}


def parse(extra: Mapping[str, Any], folder: str) -> Streamed:
    """Return the checkpoint that a --model-loader-extra-config describes.

    `folder` is the model that vLLM was given. `sft` and `alpha` are required; `aligned` defaults to
    `folder`; `alpha_for` is a list of [regex, alpha] or an object {regex: alpha}. Raises
    ConfigError with one line per key that is unknown, missing or has an invalid value.
    """
    problems = [_unknown(key) for key in extra if key not in KEYS]
    problems += [f"{_where(key)}: missing; add it" for key in ("sft", "alpha") if key not in extra]
    if problems:
        raise ConfigError(problems)
    options = {key: extra[key] for key in RULES if key in extra}
    if isinstance(options.get("alpha_for"), dict):
        options["alpha_for"] = list(options["alpha_for"].items())
    values = {"aligned": folder, **{key: extra[key] for key in extra if key not in RULES}}
    try:
        return Streamed.model_validate({**values, "options": options})
    except ValidationError as error:
        raise ConfigError([_refused(each) for each in error.errors(include_url=False)]) from None


def _where(key: object) -> str:
    return f"model-loader-extra-config {key}"


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
    return f"{_where(key)}: unknown key; " + (
        f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(KEYS)}"
    )


def _refused(problem: Mapping[str, Any]) -> str:
    key = next(part for part in problem["loc"] if part != "options")
    return f"{_where(key)}: {problem['input']!r} is not accepted: {problem['msg']}"


def known(name: str, towers: Sequence[str]) -> str:
    """Return a tensor's name as vLLM knows it.

    `towers` are vLLM's modules called `vision_model`. For CLIP and SigLIP, transformers 5 saves
    `vision_tower.encoder...`; vLLM 0.32 knows only transformers 4's
    `vision_tower.vision_model.encoder...`.
    """
    for tower in towers:
        outer = re.escape(tower.removesuffix(TOWER))
        name = re.sub(rf"^((?:.*\.)?{outer})(?!{TOWER}\.)", rf"\1{TOWER}.", name)
    return name


def reason(error: Exception, folder: Path | str) -> str:
    """Return in one line why the model in `folder` was not loaded."""
    if isinstance(error, ExpoflowError):
        return str(error)
    if UNKNOWN in str(error):
        return (
            f"{folder}: vLLM's class does not know the names of its tensors ({str(error).partition('. The available')[0]}); load"
            " it with transformers 5 and save it again by save_pretrained, which writes the names of the hub, or set"
            " generate.engine: transformers"
        )
    return f"{folder}: {error!r}"


def plain(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters if vLLM only joined what it read; otherwise an empty dict.

    The dict is empty if vLLM transforms parameters or derives anything from them: weights that a
    CPU packs (the parameter is then empty), experts, quantised weights, latent attention, the state
    matrices of Mamba, and a class' own layers.
    """
    for module in model.modules():
        own = [each for _, each in module.named_parameters(recurse=False)]
        known = type(getattr(module, "quant_method", None)) in LINEAR or isinstance(module, NORMS)
        derives = (
            callable(getattr(module, "process_weights_after_loading", None)) and type(module) is not Attention
        )
        if derives or (own and not known) or not all(each.numel() for each in own):
            return {}
    return {name: each.detach() for name, each in model.named_parameters()}


def beside(model: nn.Module) -> list[Tensor]:
    """Return copies of all tensors of a model that are not parameters.

    A class may fill them while it loads, such as Gemma 4's scale of a layer.
    """
    return [
        each.clone()
        for module in model.modules()
        for name, each in (*module.named_buffers(recurse=False), *vars(module).items())
        if isinstance(each, Tensor) and name != "kv_cache"
    ]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether two such lists have the same bits."""
    return len(one) == len(other) and all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )


def workers() -> Ranks:
    """Return this worker among all workers of a model."""
    world = get_world_group()
    gpu = get_tp_group().device_group if current_platform.is_cuda_alike() else None
    return Ranks(world.rank_in_group, world.world_size, world.cpu_group, gpu)


def sharers() -> Ranks:
    """Return this worker among those that read for each other.

    These are all workers if each has a share of every layer; otherwise only this one.
    """
    return ranks if (ranks := workers()).size == get_tp_group().world_size else Ranks()


def managed(step: Callable[[], bool | None]) -> bool:
    """Whether a step in this worker's share succeeds.

    It may fail for lack of memory or because of a value that is not finite. The full read that
    follows then reports it.
    """
    try:
        return step() is not False
    except (PairError, MemoryError, RuntimeError):
        return False


def everywhere(step: str, flag: bool) -> bool:
    """Whether `flag` is true in all workers, each of which calls this at the same step."""
    return all(workers().everyone(step, int(flag)))


class ExpoLoader(DefaultModelLoader):
    """vLLM's own loader, fed by `extrapolation.tensor_stream` instead of files.

    A pair that does not fit raises the same PairError or CheckpointError as `expoflow extrapolate`.
    """

    def __init__(self, load_config: LoadConfig):
        super().__init__(dataclasses.replace(load_config, model_loader_extra_config={}))
        self.extra = load_config.model_loader_extra_config

    def get_all_weights(self, model_config: ModelConfig, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) on the CPU, in the aligned model's order and file types."""
        self.counter_before_loading_weights = time.perf_counter()
        towers = [name for name, _ in model.named_modules() if name.endswith(f".{TOWER}")]
        for name, tensor in _tensors(parse(self.extra, model_config.model)):
            yield known(name, towers), tensor

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Load the initial weights, in all workers or in none."""
        with sharers().together(partial(reason, folder=model_config.model)):
            super().load_weights(model, model_config)

    def download_model(self, model_config: ModelConfig) -> None:
        """Do nothing: both checkpoints are local folders."""


def _tensors(streamed: Streamed) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of `streamed`; workers on one machine compute a part each."""
    ranks = sharers()
    if ranks.size == 1 or not ranks.on_one_machine():
        yield from tensors_for(streamed, "cuda" if current_platform.is_cuda_alike() else "cpu")
        return
    with opened(streamed, pinned=ranks.gpu is not None) as stream:
        if ranks.rank == 0:
            require_equal(stream.pair)
        yield from shared(stream, ranks)


class ExpoWorker:
    """Methods for vLLM's workers, added by --worker-extension-cls.

    Pass `--worker-extension-cls expoflow.engines.vllm_plugin.ExpoWorker`. Call the methods through
    `collective_rpc` while no request runs, and reset the prefix cache afterwards: it holds keys and
    values of the old weights. They return None, or the reason why the old weights are still loaded.
    They do not raise: an exception in several workers would leave vLLM 0.32 with unread answers of
    the slower ones.
    """

    _expo_parents: in_place.Parents | None = None

    def set_alpha(self, alpha: float | str) -> str | None:
        """Load again with another alpha; alphas of `alpha_for` stay."""
        config = self.vllm_config
        extra = config.load_config.model_loader_extra_config
        return self.set_weights(config.model_config.model, {**extra, "alpha": alpha})

    def set_weights(self, folder: str, extra: dict[str, Any]) -> str | None:
        """Load what `extra` describes, of the model in `folder`.

        It must have the architecture that runs.
        """
        loading, model = self.vllm_config.load_config, self.vllm_config.model_config
        if loading.load_format != FORMAT:
            return f"load format is {loading.load_format}; start vLLM with --load-format {FORMAT}"
        before = model.model, loading.model_loader_extra_config
        try:
            with workers().together(partial(reason, folder=folder)):
                self._take(folder, extra)
            return None
        except Exception as error:
            told = reason(error, folder)
        # By now the error is freed, with the tensors that its frames held.
        finalize_layerwise_reload(self.model_runner.get_model(), model)  # drop half-loaded weights
        with workers().together():
            self._load(*before)
        return told

    def _take(self, folder: str, extra: dict[str, Any]) -> None:
        """Load the weights, or write them in place from theta1 and theta0 in this worker's layout.

        All workers do the same.
        """
        streamed = parse(extra, folder)
        loading, model = self.vllm_config.load_config, self.vllm_config.model_config
        again = streamed.same_pair(parse(loading.model_loader_extra_config, model.model))
        if streamed.sft == streamed.aligned:  # a stored model; the kept parents of a pair stay
            self._load(folder, extra)
            return
        key, live = self._writable(streamed)
        kept = self._expo_parents if key and self._expo_parents and self._expo_parents.key == key else None
        if everywhere("kept", kept is not None) and everywhere(
            "written", managed(lambda: kept.write(live, streamed.alpha, streamed.options))
        ):
            loading.model_loader_extra_config = extra
            model.model = folder
            self._pack_embeddings()
            return
        self._expo_parents = None
        place = None
        if key and again and streamed.alpha not in (0, -1):
            ranks = self.vllm_config.parallel_config.world_size
            place = in_place.room(live, needed=None, processes=ranks)
        if everywhere("room", place is not None):
            self._load_and_keep(folder, extra, streamed, in_place.Parents(key), place)
        else:
            self._load(folder, extra)

    def _load_and_keep(
        self,
        folder: str,
        extra: dict[str, Any],
        streamed: Streamed,
        parents: in_place.Parents,
        place: dict[str, Any],
    ) -> None:
        """Load alphas 0 and -1, which are kept, and then the alpha that is asked for.

        The parents are kept as vLLM lays them out, in main memory because the GPU's memory is
        vLLM's. They are kept only if theta2 computed from them equals, bit for bit, what vLLM loads
        for this alpha, and if nothing else in the model differs.
        """
        copied, others = True, []
        for side, alpha in ((parents.theta1, 0.0), (parents.theta0, -1.0)):
            self._load(folder, {**extra, "alpha": alpha})
            live = plain(self.model_runner.get_model())
            copied = copied and managed(
                lambda side=side, live=live: side.update(
                    {name: in_place.copied(each, place) for name, each in live.items()}
                )
            )
            others.append(beside(self.model_runner.get_model()))
        self._load(folder, extra)
        live, now = plain(self.model_runner.get_model()), beside(self.model_runner.get_model())
        agrees = (
            copied
            and all(same(each, now) for each in others)
            and managed(lambda: parents.agrees(live, streamed.alpha, streamed.options))
        )
        if everywhere("agrees", agrees):
            self._expo_parents = parents

    def _writable(self, streamed: Streamed) -> tuple[Any, dict[str, Tensor]]:
        """Return what theta1 and theta0 depend on, and the live weights.

        Returns None and {} if theta2 cannot be written into these weights.
        """
        try:
            found = in_place.key_of(streamed)
        except (ExpoflowError, OSError):  # reading will report it
            found = None
        live = plain(self.model_runner.get_model()) if found else {}
        if not live or not in_place.usable(live.values()):
            return None, {}
        key, types = found
        return (
            (key, live)
            if len({*types.values(), *(each.dtype for each in live.values())}) == 1
            else (None, {})
        )

    def _load(self, folder: str, extra: dict[str, Any]) -> None:
        self.vllm_config.load_config.model_loader_extra_config = extra
        methods = [
            (layer.quant_method, layer)
            for layer in self.model_runner.get_model().modules()
            if hasattr(layer, "quant_method")
        ]
        for method, _ in methods:
            if current_platform.is_cpu() and hasattr(method, "moe_kernel"):
                # vLLM 0.32 packs experts for a CPU only if it has no kernel yet. Otherwise it reads
                # the new ones as if they were packed.
                method.moe_kernel = None
        self.reload_weights(weights_path=folder)
        self._pack_embeddings()

    def _pack_embeddings(self) -> None:
        """Pack a head that is tied to the embeddings again, which vLLM 0.32 omits.

        On a CPU the head has a packed copy, which would still be that of the old weights.
        """
        for layer in self.model_runner.get_model().modules():
            if isinstance(method := getattr(layer, "quant_method", None), UnquantizedEmbeddingMethod):
                method.process_weights_after_loading(layer)
