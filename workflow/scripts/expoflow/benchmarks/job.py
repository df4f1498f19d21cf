"""One benchmark of one variant: the input of the rule, and steps that several benchmarks share."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from expoflow import store
from expoflow.benchmarks.comparison import words
from expoflow.benchmarks.judge.judge import Judge
from expoflow.checkpoints import manifests
from expoflow.checkpoints.adapter import is_adapter
from expoflow.config import Config
from expoflow.config.base import MINIATURE
from expoflow.config.benchmarks import JudgeConfig
from expoflow.config.stages import GenerateConfig
from expoflow.dag import code as code_digests
from expoflow.engines import generate
from expoflow.engines.model import Model, chosen
from expoflow.extrapolation.pair import aligned_folder
from expoflow.extrapolation.recipe import ExtrapolationRecipe
from expoflow.files import hashing
from expoflow.files.records import Record, Row, provenance, read_json, write_json, write_jsonl
from expoflow.paths import RESULTS
from expoflow.results import BenchmarkResult, Generation, Manifest, Metric, Prompt, Scored
from expoflow.scoring.responses import evaluate
from expoflow.scoring.rewards import reward_model


@dataclass(frozen=True)
class Job:
    """The argument of a benchmark's `run`.

    `inputs` has the rule's input files by name. `model` is the manifest of sft or aligned, or the
    recipe.json of an exported folder. `base` is sft's manifest; it comes with aligned's, which may
    be an adapter. The other files are those of the benchmark. `usage` says how to run the model
    (`Config.usage`). `code` is the digest of the code that makes the kept responses. `result` and
    `rows` are the files to write.
    """

    pair: str
    variant: str
    benchmark: str
    config: Config
    inputs: Mapping[str, Path]
    usage: str
    code: str
    result: Path
    rows: Path
    say: Callable[[str], None] = print

    @cached_property
    def settings(self) -> Any:
        """The benchmark's section of the config, with the pair's overrides."""
        return getattr(self.config.section(self.pair, "benchmarks"), self.benchmark)

    @cached_property
    def folder(self) -> Path:
        """The checkpoint folder of the variant's model."""
        if self.variant == "expo":
            return self.inputs["model"].parent
        return aligned_folder(self._base, self._manifest, self.code) if self._base else self._own

    @cached_property
    def content(self) -> Any:
        """The identity of the model as plain data: equal for equal weights, in any folder."""
        if self.variant == "expo":
            return read_json(self.inputs["model"], ExtrapolationRecipe).content_digest()
        own = self._manifest.sha256s()
        return [self._base.sha256s(), own] if self._base else own

    @cached_property
    def _manifest(self) -> Manifest:
        return read_json(self.inputs["model"], Manifest)

    @cached_property
    def _own(self) -> Path:
        """The folder of the manifest's files: a checkpoint or an adapter."""
        return manifests.model_folder(self._manifest)

    @cached_property
    def _base(self) -> Manifest | None:
        """The base of an adapter."""
        return read_json(self.inputs["base"], Manifest) if is_adapter(self._own) else None

    @cached_property
    def model(self) -> Model:
        """The variant's model in the form that an engine accepts."""
        pair = self.config.pairs[self.pair]
        return Model.used(
            pair.sft if self.variant == "sft" else pair.aligned, self.folder, json.loads(self.usage)
        )

    def generate(
        self, prompts: Sequence[Prompt], config: GenerateConfig, step: str = "responses"
    ) -> list[Generation]:
        """The model's responses, from the store if they were made before.

        `step` names a part of the job.
        """
        key = self._key(prompts, config)
        rows, kept = self.cached(
            "generations", key, lambda: self._respond(prompts, config, step, key), Generation
        )
        self._done(step, kept, len(rows))
        return rows

    def score(self, prompts: Sequence[Prompt], config: GenerateConfig) -> list[Scored]:
        """The model's responses, with rewards if `inputs` has a reward_model.

        The store keeps responses and rewards as one.
        """
        key, manifest, usage = self._key(prompts, config), self.inputs.get("reward_model"), ""
        if self.config.reward_model:
            usage = self.config.usage(self.config.reward_model)
            key |= {
                "reward_model": read_json(manifest, Manifest).sha256s(),
                "reward_model_usage": usage,
                "score": self.config.score.model_dump(),
            }

        def make() -> list[Scored]:
            responses = self._respond(prompts, config, "responses", key)
            scorer = reward_model(manifest, usage) if self.config.reward_model else None
            return evaluate(prompts, responses, scorer, self.config.score)

        rows, kept = self.cached("benchmarks", key, make, Scored)
        self._done("responses", kept, len(rows))
        return rows

    def cached(
        self, kind: str, key: dict[str, Any], make: Callable[[], list[Row]], record: type[Row]
    ) -> tuple[list[Row], bool]:
        """`store.cached` with the digest of the code in the key."""
        return store.cached(kind, key | {"code": self.code}, make, record)

    def judge(self, config: JudgeConfig) -> Judge:
        """The client of a judge. All jobs of the benchmark share one ledger."""
        ledger = RESULTS.costs(self.benchmark)
        if config.base_url != MINIATURE:
            return Judge(config, ledger, self.say)
        # Its verdicts are kept by what it knows, not by its port, which changes.
        from expoflow.miniature import judge

        name = f"{MINIATURE}:{self.config.seed}:{code_digests.truth()}"
        known = config.model_copy(update={"base_url": name, "api_key_env": ""})
        return Judge(known, ledger, self.say, address=judge.serve(self.config.seed))

    def write(
        self,
        rows: Sequence[Record],
        metrics: list[Metric],
        prompts: str,
        packages: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """Write rows and result, and print a line.

        The result contains the versions of `packages`, and `settings`.
        """
        write_jsonl(self.rows, rows)
        made_with = provenance("torch", "transformers", *packages)
        made_with |= {"model": self.inputs["model"].as_posix(), **settings}
        result = BenchmarkResult(
            pair=self.pair,
            variant=self.variant,
            benchmark=self.benchmark,
            prompts=prompts,
            metrics=metrics,
            provenance=made_with,
        )
        write_json(self.result, result)
        self.say(f"{self.pair}: {self.variant}: {self.benchmark}: {words(metrics)}")
        for part in self.rows.parent.glob(f".{self.rows.name}.*.part"):
            part.unlink()

    def _respond(
        self, prompts: Sequence[Prompt], config: GenerateConfig, step: str, key: dict[str, Any]
    ) -> list[Generation]:
        part = self.rows.with_name(f".{self.rows.name}.{step.replace(' ', '-')}.part")
        name = hashing.json_digest(key | {"code": self.code})
        return generate.generate(self.model, prompts, config, part, name, self.say)

    def _key(self, prompts: Sequence[Prompt], config: GenerateConfig) -> dict[str, Any]:
        return {
            "model": self.content,
            "usage": self.usage,
            "prompts": [prompt.model_dump() for prompt in prompts],
            "generate": config.model_dump(exclude={"prompts", "engine"}),
            "engine": chosen(config.engine),
        }

    def _done(self, step: str, kept: bool, count: int) -> None:
        if kept:
            self.say(f"{self.pair}: {self.variant}: {self.benchmark}: {count} {step} are kept from before")
