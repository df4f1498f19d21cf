"""AlpacaEval's files, local or from its dataset on the hub, and the annotators."""

import difflib
import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from expoflow.benchmarks.judge.costs import prompt_tokens, reply_tokens
from expoflow.config.base import MINIATURE
from expoflow.config.benchmarks import AlpacaEvalBenchmark
from expoflow.config.stages import GenerateConfig
from expoflow.data.prompts import prompt_id
from expoflow.errors import CheckpointError, ConfigError, DataError
from expoflow.files.atomic import replacing
from expoflow.files.records import Record
from expoflow.results import Message, Prompt

TEMPLATE_TOKENS = 700  # tokens of an annotator's prompt without instruction and outputs; a high estimate
OFFICIAL = "x" * 2300  # average length of instruction plus reference's output
# Options of an annotator that the package's own client supports and ours does not.
BIASES = {"tokens_to_avoid", "tokens_to_favor"}


class Question(Record):
    """An instruction, and the reference's output."""

    instruction: str
    output: str

    def prompt(self) -> Prompt:
        """The instruction as a conversation of one message."""
        messages = [Message(role="user", content=self.instruction)]
        return Prompt(prompt_id=prompt_id(messages), messages=messages)


def problems(config: AlpacaEvalBenchmark) -> Iterator[str]:
    """The problems of the files that a config names and of its annotator, one line each."""
    for name in config.FILES:
        path = getattr(config, name)
        if path not in (None, MINIATURE) and not Path(path).is_file():
            yield f"benchmarks.alpaca_eval.{name}: no file '{path}'; correct the path"
        elif path not in (None, MINIATURE) and name == "reference":
            try:
                read_questions(Path(path))
            except DataError as error:
                yield f"benchmarks.alpaca_eval.reference: {error}"
    try:
        find_annotator(config.annotator)
    except ConfigError as error:
        yield f"benchmarks.alpaca_eval.annotator: {error}"


def calls(config: AlpacaEvalBenchmark, max_tokens: int, first: int | None = None) -> tuple[int, int, int]:
    """The calls of one variant, the tokens of their prompts and of their replies.

    Responses count as `max_tokens` long. If there is no reference file yet, the questions are the
    official 805, with their mean length.
    """
    texts = _texts(config)[:first]
    prompt = sum(prompt_tokens({"messages": [{"content": text}]}) for text in texts)
    response = _max_tokens(config, max_tokens)
    settings = [each.get("completions_kwargs", {}) for each in read_annotator(config.annotator).values()]
    reply = max(map(reply_tokens, settings))
    return len(texts), prompt + len(texts) * (TEMPLATE_TOKENS + response), len(texts) * reply


def responses(
    config: AlpacaEvalBenchmark, generate: GenerateConfig, first: int | None = None
) -> tuple[int, int]:
    """The number of responses of one variant, and the most tokens that each may have."""
    return len(_texts(config)[:first]), _max_tokens(config, generate.max_tokens)


def _max_tokens(config: AlpacaEvalBenchmark, others: int) -> int:
    """The most tokens of a response, if the responses of the run have at most `others`."""
    return getattr(config.generate, "max_tokens", None) or others


def _texts(config: AlpacaEvalBenchmark) -> list[str]:
    """The instruction and then the reference's output of every question."""
    path = Path(config.inputs()["reference"])
    if path.is_file():
        return [question.instruction + question.output for question in read_questions(path)]
    return [OFFICIAL] * 805


def gather(config: AlpacaEvalBenchmark, seed: int, result: Path) -> None:
    """Get the dataset's file of this name, or make the miniature's reference outputs.

    Raises DataError.
    """
    if config.made():
        miniature = importlib.import_module(
            "expoflow.miniature.alpaca_eval"
        )  # not needed for the user's own files
        miniature.write(result, seed)
    else:
        _download(config, result)


def _download(config: AlpacaEvalBenchmark, path: Path) -> None:
    from expoflow.hub import cache

    try:
        _, folder, found = cache.fetch(
            config.hub, config.revision, "dataset", lambda _, sizes: [path.name] if path.name in sizes else []
        )
        if not found:
            raise CheckpointError("it has no such file")
    except CheckpointError as error:
        raise DataError(
            f"alpaca_eval: {path.name} of dataset '{config.hub}' cannot be fetched ({error}); correct hub, or"
            " give the file's path"
        ) from None
    with open(folder / path.name, "rb") as source, replacing(path, "wb") as target:
        shutil.copyfileobj(source, target)


def read_questions(path: Path) -> list[Question]:
    """Read the set, a JSON list or JSON lines, in the order of the file. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.split("\n") if line.strip()]
        rows = json.loads(text) if text.lstrip()[:1] == "[" else list(map(json.loads, lines))
        questions = [Question(**{name: row[name] for name in Question.model_fields}) for row in rows]
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; correct the path") from None
    except (ValueError, LookupError, TypeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: not a list of {{instruction, output}} objects ({reason})") from None
    if not questions:
        raise DataError(f"{path}: no questions; give the reference's outputs")
    return questions


def prompts(questions: Sequence[Question]) -> list[Prompt]:
    """The prompts to answer: every instruction once."""
    asked = (question.prompt() for question in questions)
    return list({prompt.prompt_id: prompt for prompt in asked}.values())


def find_annotator(name: str) -> Path:
    """The configs.yaml of an annotator: from the package, or from a folder if the name has a slash.

    Raises ConfigError if the annotator does not exist or cannot be used, or if the package is not
    installed.
    """
    spec = importlib.util.find_spec("alpaca_eval")
    if spec is None:
        raise ConfigError(["alpaca_eval is not installed; pip install 'expoflow[bench]'"])
    shipped = Path(spec.origin).parent / "evaluators_configs"
    path = (Path(name) if "/" in name else shipped / name) / "configs.yaml"
    if not path.is_file():
        known = sorted(each.parent.name for each in shipped.glob("*/configs.yaml"))
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = (
            f"did you mean '{close[0]}'?" if close else "name one of alpaca_eval's, or a folder with a slash"
        )
        raise ConfigError([f"annotator '{name}': no configs.yaml; {hint}"])
    for config in _yaml(path).values():
        client = config.get("fn_completions", "openai_completions")
        if client != "openai_completions":
            raise ConfigError([f"annotator '{name}' needs {client}; take one that has openai_completions"])
        if biases := BIASES & set(config.get("completions_kwargs", {})):
            raise ConfigError([f"annotator '{name}' sets {', '.join(sorted(biases))}; take another one"])
    return path.resolve()


def read_annotator(name: str) -> dict[str, dict[str, Any]]:
    """Read the configs.yaml of an annotator: prompt, settings and parser of every judge."""
    return _yaml(find_annotator(name))


def _yaml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot be read as YAML ({' '.join(str(error).split())})"]) from None
    if not isinstance(found, dict) or not all("prompt_template" in (each or {}) for each in found.values()):
        raise ConfigError([f"{path}: every annotator needs a prompt_template, as those of alpaca_eval have"])
    return found
