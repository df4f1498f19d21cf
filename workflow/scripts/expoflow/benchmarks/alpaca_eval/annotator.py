"""Verdicts by an annotator of alpaca_eval: its prompts, order of outputs and parser, our client.

An annotator is a folder with configs.yaml, from the package or from the user. The package calls a
function for the completions of its prompts. Here that function is `Judge.ask`, which caches, pays
for and limits all calls in one place. The package's own cache of annotations, beside its code, is
switched off.
"""

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from expoflow.benchmarks.alpaca_eval.files import find_annotator, read_annotator
from expoflow.benchmarks.alpaca_eval.win_rates import REFERENCE, package
from expoflow.benchmarks.judge.verdicts import Accept, JudgeRequest, Reply, text

if TYPE_CHECKING:
    from alpaca_eval.annotators import PairwiseAnnotator, SinglePairwiseAnnotator


Ask = Callable[[list[JudgeRequest], Accept], list[Reply | None]]
# What the package's own client sends if an annotator does not set it.
DEFAULTS = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 2048}
# Arguments of the package's client that are not part of a request.
CLIENT = {
    "model_name", "num_procs", "batch_size", "price_per_token", "requires_chatml", "is_chat", "is_strip",
    "client_kwargs", "client_config_path", "n_retries", "sleep_time",
}  # fmt: skip
CHAT = "<|im_start|>"


def preferences(
    instructions: Sequence[str],
    references: Sequence[str],
    responses: Sequence[str],
    annotator: str,
    ask: Ask,
) -> list[float]:
    """The judge's preference for each response over the reference's.

    It ranges from 1 (none) to 2 (full), and is NaN without a verdict. Equal outputs have 1.5 and
    cost no call. `annotator` is a name in the package, or a folder, whose path has a slash. As in
    the package, the instruction seeds the draw of which output the judge sees first.
    """
    pool = _load(annotator)
    for single in pool.annotators.values():
        single.fn_completions = _Completions(single, ask)
    with _quiet():
        rows = pool.annotate_head2head(
            _outputs(instructions, references, REFERENCE),
            _outputs(instructions, responses, "model"),
            is_ordered=True,
            chunksize=None,
        )
    found = [row["preference"] for row in rows]
    if len(found) != len(instructions):
        raise AssertionError(f"alpaca_eval gave {len(found)} verdicts on {len(instructions)} instructions")
    return [math.nan if value is None else float(value) for value in found]


def describe(annotator: str) -> dict[str, Any]:
    """An annotator for a result's provenance: name, its model, settings, sha256 of the prompt."""
    pool = _load(annotator)
    settings = read_annotator(annotator)
    return {
        "annotator": annotator,
        "settings": {
            name: {
                "completions": config.get("completions_kwargs", {}),
                "parser": config["fn_completion_parser"],
            }
            for name, config in settings.items()
        },
        "prompt_sha256": {
            name: hashlib.sha256(single.prompt_template.encode()).hexdigest()
            for name, single in pool.annotators.items()
        },
    }


def _load(annotator: str) -> "PairwiseAnnotator":
    return package().annotators.PairwiseAnnotator(
        annotators_config=str(find_annotator(annotator)),
        caching_path=None,
        is_avoid_reannotations=False,
        is_store_missing_annotations=False,
    )


def _outputs(instructions: Sequence[str], outputs: Sequence[str], generator: str) -> list[dict[str, str]]:
    return [
        {"instruction": instruction, "output": output, "generator": generator}
        for instruction, output in zip(instructions, outputs, strict=True)
    ]


class _Completions:
    """The function that the package calls for completions, like its `openai_completions`."""

    def __init__(self, annotator: "SinglePairwiseAnnotator", ask: Ask):
        self.annotator, self.ask = annotator, ask

    def __call__(self, prompts: Sequence[str], **settings: Any) -> dict[str, list[Any]]:
        replies = self.ask([_request(prompt, settings) for prompt in prompts], self._readable)
        choices = [_choice(reply) for reply in replies]
        return {"completions": [choice["text"] for choice in choices], "completions_all": choices}

    def _readable(self, reply: Reply) -> bool:
        """Whether the annotator's parser finds a verdict in a reply."""
        choice = _choice(reply)
        try:
            found = self.annotator.fn_completion_parser(
                choice if self.annotator.completion_key == "completions_all" else choice["text"]
            )
        except Exception:  # the parsers may raise anything
            return False
        return len(found) == self.annotator.batch_size and not any(
            value is None or math.isnan(value) for value in found
        )


def _request(prompt: str, settings: Mapping[str, Any]) -> JudgeRequest:
    prompt = prompt.strip()
    if prompt.startswith(CHAT):
        messages = package().utils.prompt_to_chatml(prompt)
    else:
        messages = [{"role": "user", "content": prompt}]
    sent = {name: value for name, value in settings.items() if name not in CLIENT}
    return {"messages": messages, **DEFAULTS, **sent}


def _choice(reply: Reply | None) -> dict[str, Any]:
    """The first choice in the form of the package's parsers.

    Without a reply it is a choice in which they find nothing.
    """
    try:
        choice = reply["choices"][0]
    except (LookupError, TypeError):
        return {"text": ""}
    return {**choice, "text": text(reply) or " "}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the package's log, which has a traceback for every missing verdict."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
