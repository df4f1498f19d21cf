"""What a config will cost: downloads, disk space, GPU memory and tokens.

Sizes come from finished manifests and folders, or else from the hub (file sizes and config.json; no
weights are read), or else from the model's name, such as `7b` or `1_8b`. A model whose name does
not say is assumed to be as large as its partner. A model that is trained here is as large as its
base. Every figure names its source. `dag.resources.Needs` says what jobs request from a cluster.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expoflow import benchmarks
from expoflow.benchmarks import bill
from expoflow.checkpoints.checkpoint import ADAPTER, read_json_file
from expoflow.config import Config
from expoflow.config.base import VARIANTS
from expoflow.config.benchmarks import OnPrompts
from expoflow.config.engine import EngineConfig
from expoflow.config.sources import ModelConfig, PromptsConfig
from expoflow.config.stages import GenerateConfig
from expoflow.dag import resources
from expoflow.dag.resources import Needs
from expoflow.data import prompts as prompt_sets
from expoflow.errors import ConfigError, DataError, ExpoflowError
from expoflow.files.records import read_json
from expoflow.files.weights import weight_bytes
from expoflow.paths import RESULTS, Results
from expoflow.results import Manifest
from expoflow.system.gpu_memory import hold, loaded

SIZE = re.compile(r"(?<![a-z0-9])(?:(\d+)x)?(\d+(?:[._]\d+)?)b(?![a-z])", re.IGNORECASE)
GB = 1e9
CARDS = (24, 48, 80)  # GB of GPU memory, in the order in which they are tried
OVERHEAD = 2 * GB  # estimated CUDA context, activations and graphs of one process
PROMPT_TOKENS = 1024  # assumed length of the prompt of the one response whose cache must fit
ASSUMED_PROMPTS = 1000  # for a hub set whose size is unknown
# Cache per token if config.json is unknown: layers x key-value heads x head size, by parameters.
TYPICAL = {1e9: 24 * 8 * 128, 9e9: 32 * 8 * 128, 15e9: 40 * 40 * 128, 40e9: 48 * 8 * 128, 1e12: 80 * 8 * 128}


@dataclass(frozen=True)
class Facts:
    """A model's size: bytes of weights, bytes of keys and values per token, and their source."""

    weights: float
    cache: float
    says: str
    here: bool = False  # no download
    trained: bool = False  # will be written here
    pickled: bool = False  # will be converted: a second copy
    adapter: bool = False  # on the SFT model: the model that is run and exported is as large as that


@dataclass
class PairPlan:
    """One pair: bytes of its sweep (0 if streamed) and export, memory, responses, tokens."""

    pair: str
    stored: float
    exported: float
    memory: float
    cards: str
    responses: int
    tokens: int


@dataclass
class Estimate:
    """The whole config: bytes, responses, and the maximum number of tokens."""

    models: dict[str, Facts]
    needs: Needs
    """What the jobs of a model request from a cluster."""
    pairs: list[PairPlan] = field(default_factory=list)
    prompts: dict[str, tuple[int, str]] = field(default_factory=dict)
    reward_memory: float = 0
    """Memory of the reward model's GPU; 0 without one."""
    reward_cards: str = ""
    """GPUs that hold the reward model."""
    bill: list[str] = field(default_factory=list)
    """What the judges may cost, a line per benchmark."""
    notes: list[str] = field(default_factory=list)
    """Other notes on benchmarks."""

    @property
    def downloads(self) -> float:
        """Bytes of weights that come from the hub."""
        return sum(facts.weights for facts in self.models.values() if not facts.here)

    @property
    def checkpoints(self) -> dict[str, int]:
        """Extra bytes on disk that each pending training needs while it runs."""
        sizes = {name: self.needs.training_disk(name) for name, facts in self.models.items() if facts.trained}
        return {name: size for name, size in sizes.items() if size}

    @property
    def disk(self) -> float:
        """Bytes on disk at the end. Nothing is removed earlier, except checkpoints of trainings."""
        made = sum(facts.weights for facts in self.models.values() if facts.pickled or facts.trained)
        return self.downloads + made + sum(pair.stored + pair.exported for pair in self.pairs)


def plan(config: Config, results: Results = RESULTS, online: bool = True) -> Estimate:
    """Estimate the cost of `config`; if `online`, ask the hub about its models and prompts."""
    ask = _Hub(online)
    known = {name: _facts(name, model, results, ask) for name, model in config.models.items()}
    for pair in config.pairs.values():
        for one, other in ((pair.sft, pair.aligned), (pair.aligned, pair.sft)):
            partner = known[other]
            if known[one] is None and partner and not partner.adapter and not config.models[one].base:
                known[one] = Facts(partner.weights, partner.cache, f"as {other}")
    known |= {name: _inherited(config, name, known) for name, facts in known.items() if facts is None}
    if lacking := [name for name, facts in known.items() if facts is None and not config.models[name].base]:
        raise ConfigError(
            [
                f"models.{name}: its size is not known; leave out --offline, or write it into the name, as in my-model-7b"
                for name in lacking
            ]
        )
    result = Estimate(
        known,
        Needs(config, lambda name: int(known[name].weights)),
        prompts={name: _count(name, config, ask) for name in config.prompts},
    )
    if (rewards := config.reward_model) and result.needs.gpus(rewards):
        engine = config.engine_of(rewards)
        result.reward_memory = loaded(known[rewards].weights, engine) + OVERHEAD
        result.reward_cards = _cards(result.needs, rewards, result.reward_memory, engine)
    seen: set[tuple[str, str]] = set()
    for name in config.pairs:
        result.pairs.append(_pair(config, name, result, seen))
    result.bill = list(bill.lines(config, results))
    result.notes = list(_notes(config))
    return result


def _inherited(config: Config, name: str, known: Mapping[str, Facts | None]) -> Facts | None:
    """Return the facts of a model that is still to be trained: it is as large as its base."""
    if (base := config.models[name].base) is None:
        return None
    facts = known[base] or _inherited(config, base, known)
    return facts and Facts(facts.weights, facts.cache, f"trained from {base}", here=True, trained=True)


def _pair(config: Config, name: str, made: Estimate, seen: set[tuple[str, str]]) -> PairPlan:
    pair, generate = config.pairs[name], config.section(name, "generate")
    facts = made.models[pair.aligned]
    facts = made.models[pair.sft] if facts.adapter else facts
    new = [alpha for alpha in pair.grid() if float(alpha) not in (-1, 0)]
    # Responses of alpha -1 and 0 are shared between pairs with a parent in common.
    parents = {(pair.sft, f"-1 of {pair.aligned}"), (pair.aligned, "0")} - seen
    seen |= parents
    responses = (len(new) + len(parents)) * made.prompts[generate.prompts][0] * generate.samples
    tokens = responses * generate.max_tokens
    for _, count, limit in benchmark_responses(config, name, made):
        responses += len(VARIANTS) * count
        tokens += len(VARIANTS) * count * limit
    engine = config.engine_of(pair.aligned)
    memory = loaded(facts.weights, engine) + OVERHEAD + _sequence(facts, generate, engine)
    return PairPlan(
        pair=name,
        stored=len(new) * facts.weights if config.extrapolate.weights == "stored" else 0,
        exported=facts.weights,
        memory=memory,
        cards=_cards(made.needs, pair.aligned, memory, engine),
        responses=responses,
        tokens=tokens,
    )


def benchmark_responses(config: Config, pair: str, made: Estimate) -> Iterator[tuple[str, int, int]]:
    """Yield each benchmark's name, responses per variant, and maximum tokens per response."""
    generate = config.section(pair, "generate")
    for name, section in config.section(pair, "benchmarks").sections().items():
        if isinstance(section, OnPrompts):
            yield name, made.prompts[section.prompts][0] * generate.samples, generate.max_tokens
        elif responses := benchmarks.light(name, "responses"):
            yield name, *responses(section, generate, config.limit)


def _notes(config: Config) -> Iterator[str]:
    """Yield the benchmarks' own notes, pair by pair."""
    for pair in config.pairs:
        for name, section in config.section(pair, "benchmarks").sections().items():
            if told := benchmarks.light(name, "notes"):
                yield from told(section, pair)


def _sequence(facts: Facts, generate: GenerateConfig, engine: EngineConfig) -> float:
    """Return the bytes of keys and values of one full-length response with its prompt."""
    return facts.cache * engine.cache() * engine.shortened(PROMPT_TOKENS + generate.max_tokens)


def _cards(needs: Needs, model: str, memory: float, engine: EngineConfig) -> str:
    """Return the number of a job's GPUs, and their size that holds the model and `memory`."""
    if not (count := needs.gpus(model)):
        return "a CPU"
    for card in CARDS:
        size = int(card * GB)
        if hold(count, needs.weights(model), size, engine) and memory <= count * size * engine.utilization():
            return f"{count} x {card} GB"
    return f"more than {count} x {CARDS[-1]} GB"


class _Hub:
    """Sizes according to the hub; once it does not answer, it is not asked again."""

    def __init__(self, online: bool):
        self.online = online

    def model(self, repo: str, revision: str | None) -> Facts | None:
        """Return a model's size; None if the hub must not be asked or does not answer."""
        if not self.online:
            return None
        from huggingface_hub.errors import HfHubHTTPError, HTTPError

        from expoflow.hub import http
        from expoflow.hub.cache import bring, checkpoint_names, describe

        try:
            commit, files = describe(repo, revision)
            names = checkpoint_names(repo, {name: each.size for name, each in files.items()})
            said = [files[name] for name in ("config.json",) if name in names]  # adapters have none
            config = read_json_file(bring(repo, commit, said)[0] / "config.json") if said else {}
        except HTTPError as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                raise ConfigError([http.explain(error, repo, revision)]) from None
            self.online = False
            return None
        weights = [name for name in names if name.endswith((".safetensors", ".bin"))]
        pickled = any(name.endswith(".bin") for name in weights)
        size = sum(files[name].size for name in weights)
        adapter = ADAPTER in names
        cache = _cache(config) or _typical_cache(size)
        return Facts(size, cache, "hub", pickled=pickled and not adapter, adapter=adapter)

    def prompts(self, source: PromptsConfig) -> int | None:
        """Return the rows of a split according to the dataset's card; None if it does not say."""
        if not self.online:
            return None
        from expoflow.hub import cache, cards

        try:
            _, folder, card = cache.fetch(
                source.hub,
                source.revision,
                "dataset",
                lambda _, sizes: [cards.CARD] if cards.CARD in sizes else [],
            )
        except ExpoflowError:
            return None
        return cards.said_rows(
            (folder / cards.CARD).read_text("utf-8") if card else "", source.config, source.split
        )


def _facts(name: str, model: ModelConfig, results: Results, ask: _Hub) -> Facts | None:
    manifest = results.manifest(name)
    made = read_json(manifest, Manifest) if manifest.is_file() else None
    if made and all(made.source.get(key) == getattr(model, key) for key in ("hub", "path")):
        sizes = {file: each.size for file, each in made.files.items()}
        return _of_files(sizes, read_json_file(Path(made.folder) / "config.json"), "manifest")
    if model.path:
        folder = Path(model.path)
        if not folder.is_dir():
            raise ConfigError([f"models.{name}.path: no folder '{folder}'; correct the path"])
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        return _of_files(sizes, read_json_file(folder / "config.json"), "folder")
    if model.base:
        return None
    if model.train:
        return Facts(0, 0, "trained here", here=True, trained=True)
    return ask.model(model.hub, model.revision) or _of_name(name, model.hub)


def _of_files(sizes: Mapping[str, int], config: Mapping[str, Any], says: str) -> Facts:
    weights, suffix = weight_bytes(sizes)
    cache = (_cache(config) or _typical_cache(weights)) if weights else 0
    adapter = ADAPTER in sizes
    return Facts(weights, cache, says, here=True, pickled=suffix == ".bin" and not adapter, adapter=adapter)


def _of_name(*names: str) -> Facts | None:
    """Return the size of a 16-bit model whose name states the number of parameters."""
    for name in names:
        if found := SIZE.search(name):
            weights = 2e9 * int(found[1] or 1) * float(found[2].replace("_", "."))
            return Facts(weights, _typical_cache(weights), "its name")
    return None


def _cache(config: Mapping[str, Any]) -> float:
    """Return the bytes of 16-bit keys and values per token; 0 if the config does not say."""
    config = config.get("text_config", config)
    heads = config.get("num_attention_heads")
    layers = config.get("num_hidden_layers")
    if not heads or not layers or not config.get("hidden_size"):
        return 0
    head = config.get("head_dim") or config["hidden_size"] // heads
    return 2 * 2 * layers * (config.get("num_key_value_heads") or heads) * head


def _typical_cache(weights: float) -> float:
    return 2 * 2 * next(numbers for parameters, numbers in TYPICAL.items() if weights / 2 <= parameters)


def _count(name: str, config: Config, ask: _Hub) -> tuple[int, str]:
    """Return the number of prompts of a set, and the source of that number."""
    source = config.prompts[name]
    if not source.hub:
        try:
            count, says = len(prompt_sets.load(source, config.seed)), "counted"
        except DataError as error:
            raise ConfigError([f"prompts.{name}.file: {error}"]) from None
    else:
        said = ask.prompts(source)
        count, says = (said, "its card") if said else (ASSUMED_PROMPTS, "assumed")
    return min(filter(None, (count, source.subset, config.limit))), says


def lines(made: Estimate) -> list[str]:
    """Return the estimate as tables and totals."""
    rows = [("model", "weights", "a job's GPUs", "main memory", "known from")]
    for name, facts in made.models.items():
        memory = resources.engine_memory(made.needs.weights(name), 1) * 1e6
        rows.append((name, _gb(facts.weights), str(made.needs.gpus(name)), _gb(memory), facts.says))
    said = [*_table(rows), ""]
    if trained := [
        name for name, facts in made.models.items() if facts.trained and not made.needs.miniature(name)
    ]:
        rows = [("training", "GPUs", "main memory")]
        rows += [
            (name, str(made.needs.training_gpus(name)), _gb(made.needs.training_memory(name, 1) * 1e6))
            for name in trained
        ]
        said += [*_table(rows), ""]
    rows = [("pair", "sweep on disk", "exported", "GPU memory", "fits", "responses", "tokens, at most")]
    rows += [
        (
            each.pair,
            _gb(each.stored),
            _gb(each.exported),
            _gb(each.memory),
            each.cards,
            f"{each.responses:,}",
            f"{each.tokens:,}",
        )
        for each in made.pairs
    ]
    said += [*_table(rows), ""]
    said += [f"prompts {name}: {count:,} ({says})" for name, (count, says) in made.prompts.items()]
    responses, tokens = sum(each.responses for each in made.pairs), sum(each.tokens for each in made.pairs)
    if made.reward_memory:
        said.append(f"reward model: {_gb(made.reward_memory)} of GPU memory, {made.reward_cards}")
    return [
        *said,
        *made.bill,
        *made.notes,
        f"downloads: {_gb(made.downloads)}",
        f"disk at the end, hub cache included: {_gb(made.disk)}",
        *_checkpoints(made.checkpoints),
        f"responses: {responses:,}, with at most {tokens:,} tokens",
    ]


def _checkpoints(sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the extra disk space of trainings while they run."""
    if sizes:
        largest = max(sizes, key=sizes.__getitem__)
        at_once = f", {_gb(sum(sizes.values()))} if all {len(sizes)} trainings run at once" * (len(sizes) > 1)
        yield f"disk for checkpoints while {largest} is trained: {_gb(sizes[largest])} more{at_once}"


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
