"""A small pair whose answers are read on a page."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from expoflow.files.records import write_json, write_jsonl
from expoflow.paths import Results
from expoflow.reporting.pages import answers
from expoflow.results import Best, Certificate, Generation, Message, Prompt, Scored
from expoflow.scoring.answers import write_answers
from expoflow.scoring.responses import write_rewards

ALPHAS = ("-1", "0", "0.5", "2")
PAIR = "mine"


@dataclass
class Answered:
    """What models answered: a text by prompt and alpha; None: nothing. `rewards` are the same for every sample."""

    folder: Path
    responses: dict[str, dict[str, str | None]]
    rewards: dict[str, dict[str, float | None]] | None = None
    chosen: str = "0.5"
    samples: int = 1
    judged: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of the benchmark reward, by prompt and variant."""
    asked: dict[str, str] = field(default_factory=dict)
    """Texts of prompts by their names; the others ask for their name."""
    judge: float | None = None
    """The share of prompts that judge the choice."""

    def page(self) -> Path:
        """Write all that the page needs, and the page."""
        results, best = Results(self.folder), self._best()
        self._sweep(results)
        write_json(results.best(PAIR), best)
        write_json(results.certificate(PAIR), self._certificate(best))
        page = results.answers_page(PAIR)
        rows, inputs = (
            ({"reward": self._held_out()}, {"reward": {"prompts": results.prompts("test")}})
            if self.judged
            else ({}, {})
        )
        answers.write(
            page,
            results.answers(PAIR),
            results.best(PAIR),
            results.certificate(PAIR),
            rows,
            inputs,
            ["my-sft", "my-dpo"],
            self.judge,
        )
        return page

    def _sweep(self, results: Results) -> None:
        asked = prompts(self.responses, self.asked)
        write_jsonl(results.prompts("dev"), asked)
        generations, rewards = [], []
        for alpha in ALPHAS:
            rows = [
                generation(name, sample, text)
                for name, said in self.responses.items()
                for sample in range(self.samples)
                if (text := said[alpha]) is not None
            ]
            generations.append(results.generations(PAIR, alpha, "dev"))
            rewards.append(results.rewards(PAIR, alpha, "dev"))
            write_jsonl(generations[-1], rows)
            scored = [Scored(**row.model_dump(), reward=self._reward(row.prompt_id, alpha)) for row in rows]
            write_rewards(rewards[-1], scored, PAIR, alpha, "dev")
        write_answers(results.answers(PAIR), results.prompts("dev"), generations, rewards)

    def _reward(self, prompt: str, alpha: str) -> float | None:
        return self.rewards[prompt][alpha] if self.rewards else None

    def _held_out(self) -> list[Path]:
        results = Results(self.folder)
        write_jsonl(results.prompts("test"), prompts(self.judged, self.asked))
        paths = [results.benchmark_rows(PAIR, variant, "reward") for variant in ("sft", "aligned", "expo")]
        for path in paths:
            variant = path.parent.name
            write_jsonl(
                path,
                [
                    Scored(**generation(name, 0, said[variant]).model_dump(), reward=len(said[variant]) / 10)
                    for name, said in self.judged.items()
                ],
            )
        return paths

    def _best(self) -> Best:
        return Best(
            pair=PAIR, alpha=self.chosen, certified=False, chosen_share=1, edge=False, reason="a test"
        )

    def _certificate(self, best: Best) -> Certificate:
        held_out = bool(self.judged)
        return Certificate(
            pair=PAIR,
            alpha=best.alpha,
            choice=best.digest(),
            held_out=held_out,
            certified=held_out,
            measure="reward" if held_out else None,
            gain=0.2 if held_out else None,
            low=0.1 if held_out else None,
            high=0.3 if held_out else None,
            confidence=0.95,
            chosen_on="dev",
            judged_on="test" if held_out else None,
            prompts=len(self.judged),
            looks=1,
        )


def prompts(names: Iterable[str], asked: dict[str, str]) -> list[Prompt]:
    """A prompt for each name, which `asked` may give its text."""
    texts = {name: asked.get(name, f"tell me of {name}") for name in names}
    return [
        Prompt(prompt_id=name, messages=[Message(role="user", content=text)]) for name, text in texts.items()
    ]


def generation(name: str, sample: int, text: str) -> Generation:
    """A response; one that ends with three points was cut off."""
    return Generation(
        prompt_id=name,
        sample=sample,
        seed=42 + sample,
        response=text,
        response_tokens=len(text.split()),
        finish_reason="length" if text.endswith("...") else "stop",
        engine="transformers",
    )
