"""A finished run as evidence: means over prompts at every alpha, with bootstrap draws over prompts.

The first axis of an array of draws has the estimate and then its `RESAMPLES` bootstrap draws. Pairs
that were swept on the same prompts share their draws: differences between pairs are paired.
"""

import json
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from expoflow.config import Config
from expoflow.config.claims import ClaimsConfig
from expoflow.errors import DataError
from expoflow.files.records import read_jsonl
from expoflow.miniature import world
from expoflow.paths import Results
from expoflow.results import Generation, Prompt, Scored
from expoflow.selection import statistics
from expoflow.selection.degenerate import may_be_chosen
from expoflow.selection.statistics import Values

RESAMPLES = 2000
# What a response in the miniature's world says beside its answer.
STYLES = (
    "correct",
    "right_reason",
    "wrong_reason",
    "polite",
    "rude",
    "hedge",
    "closings",
    "repeats",
    "malformed",
)
SCORED = {"reward": "reward", "quality": "quality", "accuracy": "correct", "length": "response_tokens"}


class Run:
    """The `results` of a run of `config`, which has a section `claims`.

    Whatever was read stays in memory as long as the process lives.
    """

    def __init__(self, config: Config, results: Results):
        self.config, self.results = config, results

    @property
    def claims(self) -> ClaimsConfig:
        """Which pairs answer which claim."""
        return self.config.claims or ClaimsConfig()

    @property
    def aligned(self) -> list[str]:
        """The pairs whose second model was aligned from the first: all but the combinations."""
        others = self.claims.combinations.pairs()
        return [pair for pair in self.config.pairs if pair not in others]

    def ordered(self, key: str, setting: str) -> list[str]:
        """The pairs of a key of `claims`, in ascending order of the setting that they differ in."""
        return sorted(getattr(self.claims, key), key=lambda pair: self.config.setting(pair, setting))

    @cached_property
    def alphas(self) -> pd.DataFrame:
        """results/alphas.csv."""
        return pd.read_csv(self.results.table("alphas"), dtype={"pair": str, "alpha": str})

    @cached_property
    def _rewards(self) -> dict[str, pd.DataFrame]:
        """The rows of results/rewards.csv by pair, with the column `unfinished` added."""
        table = pd.read_csv(
            self.results.table("rewards"), dtype={"pair": str, "alpha": str, "prompt_id": str, "prompts": str}
        )
        table["unfinished"] = table["finish_reason"] == "length"
        return dict(iter(table.groupby("pair", sort=False)))

    @cache  # noqa: B019
    def swept(self, pair: str) -> pd.DataFrame:
        """The pair's rows of alphas.csv in ascending order of alpha; the index counts from 0."""
        table = self.alphas[self.alphas["pair"] == pair].copy()
        table["alpha"] = table["alpha"].astype(float)
        return table.sort_values("alpha").reset_index(drop=True)

    @cache  # noqa: B019
    def grid(self, pair: str) -> Values:
        """The pair's alphas in ascending order."""
        return self.swept(pair)["alpha"].to_numpy()

    def place(self, pair: str, alpha: float) -> int:
        """The place of `alpha` in the pair's grid. Raises DataError if it is not in the grid."""
        found = np.flatnonzero(np.isclose(self.grid(pair), alpha))
        if not len(found):
            raise DataError(f"pair '{pair}': alpha {alpha:g} is not in its grid; add it to alphas")
        return int(found[0])

    def chosen(self, pair: str) -> int:
        """The place of the chosen alpha in the pair's grid."""
        return int(np.flatnonzero(self.swept(pair)["chosen"] == 1)[0])

    def best_alpha(self, pair: str) -> float:
        """The chosen alpha."""
        return float(self.grid(pair)[self.chosen(pair)])

    @property
    def knows_quality(self) -> bool:
        """Whether the true quality of all responses is known."""
        return bool(self.alphas["quality"].notna().all())

    @cache  # noqa: B019
    def values(self, pair: str, quantity: str) -> Values:
        """Mean over samples of a quantity, shape (alphas, prompts), in the order of the grid.

        The quantity is reward, quality, accuracy, length (tokens), unfinished, one of STYLES, or
        `reward by MODEL` for the scores of another reward model.
        """
        if quantity in STYLES:
            table = self._styles(pair)
        elif quantity.startswith("reward by "):
            table, quantity = self._scored_by(pair, quantity.removeprefix("reward by ")), "reward"
        else:
            table, quantity = self._rewards[pair], SCORED.get(quantity, quantity)
        means = table.groupby([table["alpha"].astype(float), "prompt_id"], sort=False)[quantity].mean()
        matrix = means.unstack("prompt_id", sort=False).sort_index()
        return matrix.to_numpy(dtype=float)

    @cache  # noqa: B019
    def draws(self, pair: str, quantity: str) -> Values:
        """Draws of the mean over prompts at every alpha, shape (1 + RESAMPLES, alphas)."""
        return _means(self.values(pair, quantity))

    def at(self, pair: str, quantity: str, alpha: float) -> Values:
        """Draws of the mean at an alpha, shape (1 + RESAMPLES,).

        The mean is interpolated linearly between the alphas of the grid.
        """
        grid, draws = self.grid(pair), self.draws(pair, quantity)
        if not grid[0] <= alpha <= grid[-1]:
            raise DataError(f"pair '{pair}': alpha {alpha:g} is outside its grid; add alphas")
        above = int(np.searchsorted(grid, alpha))
        if grid[above] == alpha:
            return draws[:, above]
        share = (alpha - grid[above - 1]) / (grid[above] - grid[above - 1])
        return (1 - share) * draws[:, above - 1] + share * draws[:, above]

    def aligned_mean(self, pair: str, quantity: str) -> Values:
        """Draws of the mean at alpha 0."""
        return self.draws(pair, quantity)[:, self.place(pair, 0)]

    def peak(self, pair: str, quantity: str = "reward") -> Values:
        """Draws of the mean at the chosen alpha."""
        return self.draws(pair, quantity)[:, self.chosen(pair)]

    def gain(self, pair: str, quantity: str = "reward") -> Values:
        """Draws of the change from alpha 0 to the chosen alpha."""
        return self.peak(pair, quantity) - self.aligned_mean(pair, quantity)

    def allowed(self, pair: str) -> NDArray[np.bool_]:
        """Which alphas of the grid may be chosen: those >= 0 whose responses are not degenerate."""
        rise = self.config.section(pair, "select").degenerate_rise
        return (self.grid(pair) >= 0) & may_be_chosen(self.swept(pair)["degenerate_change_low"], rise)

    def best_alphas(self, pair: str) -> Values:
        """Draws of the alpha with the largest mean reward among those that may be chosen."""
        grid, draws, allowed = self.grid(pair), self.draws(pair, "reward"), self.allowed(pair)
        return grid[allowed][draws[:, allowed].argmax(axis=1)]

    def prompts(self, pair: str) -> int:
        """The number of prompts that choose the pair's alpha."""
        return self.values(pair, "reward").shape[1]

    @cache  # noqa: B019
    def test_values(self, pair: str, variant: str, quantity: str) -> Values:
        """Mean over samples on the prompts of the benchmark `reward`, shape (prompts,)."""
        rows = self._benchmark(pair, variant)
        values = pd.Series([float(getattr(row, SCORED[quantity])) for row in rows])
        return values.groupby([row.prompt_id for row in rows], sort=False).mean().to_numpy()

    def test(self, pair: str, variant: str, quantity: str = "reward") -> Values:
        """Draws of the mean on the prompts of the benchmark `reward`."""
        return _means(self.test_values(pair, variant, quantity)[None])[:, 0]

    @cache  # noqa: B019
    def _benchmark(self, pair: str, variant: str) -> list[Scored]:
        return read_jsonl(self.results.benchmark_rows(pair, variant, "reward"), Scored)

    @cached_property
    def benchmarks(self) -> pd.DataFrame:
        """results/benchmarks.csv."""
        return pd.read_csv(self.results.table("benchmarks"), dtype={"pair": str})

    @cache  # noqa: B019
    def theory(self, pair: str) -> dict | None:
        """The pair's theory.json, or None if the config has no section `theory`."""
        path = self.results.theory(pair)
        return json.loads(path.read_text(encoding="utf-8")) if self.config.theory else None

    @cached_property
    def cosines(self) -> pd.DataFrame | None:
        """results/cosines.csv, or None if it was not made.

        That is the case without a section `theory`, or if no two pairs share their SFT model.
        """
        names = {"pair_a": str, "pair_b": str}
        if not self.config.theory or not self.config.kin():
            return None
        return pd.read_csv(self.results.table("cosines"), dtype=names)

    @cached_property
    def planes(self) -> dict[str, pd.DataFrame]:
        """The tables results/planes/{name}.csv by name."""
        names = self.config.theory.planes if self.config.theory else {}
        return {name: pd.read_csv(self.results.plane(name)) for name in names}

    def dev(self, pair: str) -> str:
        """The name of the prompt set that chooses the pair's alpha."""
        return self.config.section(pair, "generate").prompts

    @cache  # noqa: B019
    def _styles(self, pair: str) -> pd.DataFrame:
        """The STYLES of every response of the pair's sweep."""
        prompts = read_jsonl(self.results.prompts(self.dev(pair)), Prompt)
        metas, rows = {prompt.prompt_id: prompt.meta for prompt in prompts}, []
        for alpha in self.config.pairs[pair].grid():
            for each in read_jsonl(self.results.generations(pair, alpha, self.dev(pair)), Generation):
                truth = world.truth(metas[each.prompt_id], each.response, each.finish_reason == "stop")
                said = {name: getattr(truth, name) for name in STYLES}
                rows.append({"alpha": alpha, "prompt_id": each.prompt_id, **said})
        return pd.DataFrame(rows)

    def _scored_by(self, pair: str, model: str) -> pd.DataFrame:
        """Rewards that another reward model gave the pair's responses."""
        grid, dev = self.config.pairs[pair].grid(), self.dev(pair)
        files = [self.results.rewards_by(model, pair, alpha, dev) for alpha in grid]
        return pd.concat([pd.read_csv(file, dtype={"prompt_id": str}) for file in files])

    def labeller(self, pair: str) -> str:
        """The reward model that labelled the aligned model's training and does not choose alpha."""
        labellers = set(self.config.labellers(self.config.pairs[pair].aligned))
        (name,) = labellers - {self.config.reward_model}
        return name


def _means(values: Values) -> Values:
    """Estimate and bootstrap draws of the mean over the last axis, shape (1 + RESAMPLES, rows)."""
    prompts = values.shape[-1]
    weights = np.vstack([np.ones(prompts), statistics.resampled(prompts, RESAMPLES)])
    return weights @ values.T / prompts


def correlation(settings: Sequence[float], draws: Sequence[Values]) -> Values:
    """Draws of Spearman's rank correlation between settings and quantities.

    `draws` has one array per setting. The correlation is 0 if all quantities are equal.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.stack(draws, axis=1), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    order = rankdata(settings) - (len(settings) + 1) / 2
    size = np.sqrt((ranks**2).sum(axis=1) * (order**2).sum())
    return np.divide(ranks @ order, size, out=np.zeros(len(ranks)), where=size > 0)
