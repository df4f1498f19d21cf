"""Answers to a user's questions at several alphas of a pair, with its run's engine and settings.

The run's folder is not changed.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import zip_longest
from pathlib import Path

from expoflow.checkpoints import manifests
from expoflow.checks.machine import check_engine
from expoflow.config import Config
from expoflow.config.base import REFERENCE_ALPHAS
from expoflow.config.stages import GenerateConfig
from expoflow.data.prompts import prompt_id
from expoflow.engines import responses
from expoflow.engines.answering import Loaded
from expoflow.engines.generate import request_seed
from expoflow.engines.model import Completion, Model, Request, chosen
from expoflow.errors import ConfigError, DataError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.likeness import looked_at
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.pair import require_different
from expoflow.files.records import from_jsonl, read_json, require_own
from expoflow.hosts.head import Head
from expoflow.hosts.task import Task
from expoflow.hosts.width import shares_cores, width
from expoflow.paths import RESULTS
from expoflow.project.begin import asked_gpus
from expoflow.results import Best, Generation, Manifest, Message, Prompt
from expoflow.system import gpu_memory, gpus
from expoflow.system.logs import settle

Counted = Callable[[int], None]


def pair_of(config: Config, name: str | None) -> str:
    """Return the pair called `name`, or else the only one. Raises ConfigError."""
    names = ", ".join(config.pairs)
    if name is None and len(config.pairs) > 1:
        raise ConfigError([f"the config has the pairs {names}; choose one with --pair"])
    if name is not None and name not in config.pairs:
        raise ConfigError([f"--pair: the config has no pair '{name}'; there are: {names}"])
    return name or names


def chosen_alpha(pair: str) -> str | None:
    """Return the alpha that the run in this folder chose; None if it has not chosen one yet."""
    path = RESULTS.best(pair)
    if not path.is_file():
        return None
    best = read_json(path, Best)
    require_own(path, {"pair": best.pair}, {"pair": pair})
    return best.alpha


def compared(config: Config, pair: str) -> tuple[str, str]:
    """Return 0 and the chosen alpha. Raises ConfigError if that is not two alphas."""
    alpha = chosen_alpha(pair)
    if alpha not in (None, "0"):
        return "0", alpha
    other = next((each for each in config.pairs[pair].grid() if each not in REFERENCE_ALPHAS), "0.3")
    why = "alpha 0 is chosen, the aligned model itself" if alpha else "is not there, no alpha is chosen yet"
    raise ConfigError([f"{RESULTS.best(pair)}: {why}; name two alphas: --alphas 0,{other}"])


class Speaker:
    """A pair's models, loaded; they answer at any alpha as the jobs of `generate` do."""

    def __init__(self, model: Model, config: GenerateConfig):
        """Load the models. Raises CheckpointError if they do not fit into memory."""
        self.model, self.config = model, config
        with redirect_stdout(sys.stderr):
            self._loaded = Loaded(model, chosen(config.engine))

    def answer(self, alpha: str, messages: list[Message], seed_of: str, told: Counted) -> Completion:
        """Return the answer to a conversation: the first sample, by the seed of prompt `seed_of`.

        `told` is called with the number of tokens so far. Raises DataError for a conversation that
        is too long, or that the chat template refuses.
        """
        with redirect_stdout(sys.stderr):
            self._loaded.move(_at(self.model, alpha))
            engine, prompt = self._loaded.engine, Prompt(prompt_id=prompt_id(messages), messages=messages)
            ((token_ids, _),) = self._loaded.read([prompt])
            if len(token_ids) >= engine.context:
                raise DataError(
                    f"this conversation has {len(token_ids)} tokens, the model's context is {engine.context}; ask a shorter question, or begin a"
                    " new one"
                )
            request = Request(token_ids, request_seed(self.config.seed, 0, seed_of), prompt.prompt_id)
            finished = []
            for tokens, steps in enumerate(engine.generate([request], self.config), 1):
                finished += steps
                told(tokens)
        ((_, completion),) = finished
        return completion

    def close(self) -> None:
        """Free the memory."""
        self._loaded.close()


def _at(model: Model, alpha: str) -> Model:
    """Return the model, whose weights are computed while it is loaded, at another alpha."""
    return model.model_copy(update={"streamed": model.streamed.model_copy(update={"alpha": float(alpha)})})


class Conversation:
    """Questions and the answers to them at each alpha. Each alpha sees only its own answers.

    An alpha that joins later is asked the earlier questions first.
    """

    def __init__(self, speaker: Speaker):
        self._speaker = speaker
        self.begin()

    def begin(self) -> None:
        """Forget all questions and answers."""
        self._questions: list[str] = []
        self._answers: dict[str, list[Completion]] = {}

    def __bool__(self) -> bool:
        """Return whether anything has been asked."""
        return bool(self._questions)

    def ask(self, question: str) -> None:
        """Add the next question, for all alphas."""
        self._questions.append(question)

    def withdraw(self) -> None:
        """Forget the last question."""
        self._questions.pop()
        for answers in self._answers.values():
            del answers[len(self._questions) :]

    def answer(self, alpha: str, told: Counted = lambda tokens: None) -> Completion:
        """Return the answer at an alpha to the last question; raises as `Speaker.answer` does.

        Every alpha uses the same random numbers for a question: those of a prompt that consists of
        the questions alone.
        """
        answers = self._answers.setdefault(alpha, [])
        while len(answers) < len(self._questions):
            asked = [_says("user", each) for each in self._questions[: len(answers) + 1]]
            said = [_says("assistant", each.text) for each in answers]
            turns = [turn for both in zip_longest(asked, said) for turn in both if turn is not None]
            answers.append(self._speaker.answer(alpha, turns, prompt_id(asked), told))
        return answers[-1]


def _says(role: str, text: str) -> Message:
    return Message(role=role, content=text)


@contextmanager
def speaking(
    config: Config, pair: str, alpha: str, remedy: str, say: Callable[[str], None]
) -> Iterator[Speaker]:
    """Yield the loaded models of a pair of the run in this folder, with the weights of `alpha`.

    The same checks and steps as in the rules preflight, extrapolate and generate are done in a
    temporary folder. `say` reports how far they are. `remedy` is the command that makes missing
    results. Raises ConfigError, PairError and CheckpointError.
    """
    check_engine(config, pair)
    members = config.pairs[pair]
    sft, aligned = (_manifest(config, name, remedy) for name in (members.sft, members.aligned))
    require_different(sft, aligned)
    parents = [manifests.model_folder(sft), manifests.model_folder(aligned)]
    _settle(config, pair, parents)
    say(f"{pair}: comparing {sft.model} and {aligned.model}")
    with tempfile.TemporaryDirectory(prefix="expoflow-") as scratch:
        folder = Path(scratch) / "model"
        recipe = extrapolate(
            *parents,
            {"0": folder},
            Options.of(dict(config.extrapolate)),
            known=dict(zip(parents, (sft.sha256s(), aligned.sha256s()), strict=True)),
            write_weights=False,
            look=lambda found: looked_at(found, members.unrelated)[0],
        )["0"]
        usage, generate = config.usage(members.aligned), config.section(pair, "generate")
        engine, other = chosen(generate.engine), _wrote(RESULTS.generations(pair, "0", generate.prompts))
        say(f"{pair}: loading alpha {alpha} with {engine}")
        if other not in (None, engine):
            say(
                f"the run's own answers are from {other}, which samples differently; generate.engine sets the engine"
            )
        model = responses.model(recipe, folder, sft, aligned, usage)
        speaker = Speaker(_at(model, alpha), generate)
        yield speaker
        speaker.close()  # not after an error or Ctrl-C: the engine may be half moved, and the process ends


def _wrote(generations: Path) -> str | None:
    """Return the engine that wrote the first of these responses; None if there are none."""
    if not generations.is_file():
        return None
    with generations.open(encoding="utf-8") as file:
        first = from_jsonl(file.readline(), Generation, str(generations))
    return first[0].engine if first else None


def _manifest(config: Config, name: str, remedy: str) -> Manifest:
    """Return the manifest of model `name`. Raises ConfigError if it is missing or another's."""
    path, source = RESULTS.manifest(name), config.models[name]
    if not path.is_file():
        raise ConfigError([f"{path}: is not there, the model has not been made yet; run: {remedy}"])
    made = read_json(path, Manifest)
    wanted, found = json.loads(source.result()), made.source
    same = {
        "hub": lambda: [found.get(key) for key in ("hub", "revision")] == [source.hub, source.revision],
        "path": lambda: os.path.realpath(found.get("path", "")) == os.path.realpath(source.path),
        "train": lambda: wanted["train"].items() <= found.get("train", {}).items(),
    }
    if made.model != name or not same[source.source]():
        raise ConfigError([f"{path}: is not of the model that the config says; run: {remedy}"])
    return made


def _settle(config: Config, pair: str, parents: Sequence[Path]) -> None:
    """Set up the environment of a `generate` job that runs alone, with its GPUs or cores."""
    os.environ.setdefault("EXPOFLOW_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
    os.environ |= {"EXPOFLOW_ENGINE": config.free_engines(), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    settle(threads=1)  # before the hub's library is imported, since it reads the variables then
    devices = gpus.gpus()
    asked = tuple((os.path.abspath(folder), number) for folder, number in asked_gpus(config).items())
    head = Head.here(tuple(devices) or (None,)).model_copy(
        update={"memory": gpu_memory.smallest(devices), "asked": asked}
    )
    engine = config.engine_of(config.pairs[pair].aligned).model_dump()
    arguments = {"sft": str(parents[0]), "aligned": str(parents[1]), "engine": engine}
    task = Task(kind="generate", arguments=arguments)
    if devices:
        os.environ[gpus.VISIBLE] = ",".join(devices[: width(head, task)])
    elif shares_cores(head, task):
        settle(threads=len(os.sched_getaffinity(0)))
