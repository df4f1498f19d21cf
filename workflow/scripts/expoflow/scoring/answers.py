"""results/pairs/{pair}/answers.parquet: all prompts and responses of a sweep in one table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from expoflow.data.prompts import prompt_text
from expoflow.errors import DataError
from expoflow.files.atomic import replacing
from expoflow.files.records import read_csv
from expoflow.paths import of_alpha, of_pair, of_prompts
from expoflow.scoring.refusals import refuses, repeats_prompt
from expoflow.scoring.responses import read_responses

# A row is one response. Texts may be empty. Unknown values are null, such as a reward without a
# reward model.
SCHEMA = pa.schema(
    [
        pa.field("pair", pa.string(), nullable=False),
        pa.field("alpha", pa.string(), nullable=False),  # as spelled in the config: 0 is aligned
        pa.field("prompts", pa.string(), nullable=False),  # the prompt set
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("response_tokens", pa.int32(), nullable=False),  # without the stop token
        pa.field("finish_reason", pa.string(), nullable=False),  # stop, length
        pa.field("engine", pa.string(), nullable=False),
        pa.field("reward", pa.float64()),
        pa.field("quality", pa.float64()),  # a miniature's truth
        pa.field("correct", pa.bool_()),
        pa.field("degenerate", pa.string(), nullable=False),  # empty, repeating, unfinished, ""
        pa.field("refusal", pa.bool_(), nullable=False),  # heuristics of scoring.refusals
        pa.field("repeats_prompt", pa.bool_(), nullable=False),
    ]
)


def write_answers(path: Path, prompts: Path, generations: Sequence[Path], rewards: Sequence[Path]) -> None:
    """Write the table, with a row group per alpha in the order of the files.

    Prompts are in the order of their set. Only the responses of one alpha are in memory at a time.
    Raises DataError if the rewards do not belong to the responses.
    """
    with replacing(path, "wb") as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for responses, scores in zip(generations, rewards, strict=True):
            rows = [*_rows(of_pair(path), prompts, responses, scores)]
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def read_answers(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table, or some of its columns; DataError if it is missing or malformed."""
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run snakemake to make it") from None
    except (OSError, pa.ArrowException):
        raise DataError(f"{path}: not a complete table; delete it and run snakemake again") from None
    wanted = SCHEMA.names if columns is None else columns
    if lacking := next((name for name in wanted if name not in table.column_names), None):
        raise DataError(f"{path}: has no column {lacking}; delete it and run snakemake again")
    return table


def _rows(pair: str, prompts: Path, generations: Path, rewards: Path) -> Iterator[dict[str, Any]]:
    asked, responses = read_responses(prompts, generations)
    texts = {prompt.prompt_id: prompt_text(prompt) for prompt in asked}
    last = {prompt.prompt_id: prompt.messages[-1].content for prompt in asked}
    scored = {(row["prompt_id"], row["sample"]): row for row in read_csv(rewards, ("prompt_id", "sample"))}
    alpha = of_alpha(generations)
    if len(scored) != len(responses):
        raise _of_others(rewards, generations)
    for row in responses:
        score = scored.get((row.prompt_id, str(row.sample)))
        if score is None or score["alpha"] != alpha or int(score["response_tokens"]) != row.response_tokens:
            raise _of_others(rewards, generations)
        yield {
            "pair": pair,
            "alpha": alpha,
            "prompts": of_prompts(prompts),
            "prompt": texts[row.prompt_id],
            **row.model_dump(exclude={"stop_token"}),
            "reward": _number(score["reward"]),
            "quality": _number(score["quality"]),
            "correct": None if score["correct"] == "" else score["correct"] == "1",
            "degenerate": score["degenerate"],
            "refusal": refuses(row.response),
            "repeats_prompt": repeats_prompt(last[row.prompt_id], row.response),
        }


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _of_others(rewards: Path, generations: Path) -> DataError:
    return DataError(
        f"{rewards}: are not the rewards of the responses in {generations}; delete both and run snakemake again"
    )
