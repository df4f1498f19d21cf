"""A finished run as evidence: means over prompts at every alpha, and what a bootstrap over prompts makes of them.

Draws are arrays whose first axis has the estimate and then `RESAMPLES` bootstrap draws of it; pairs that were swept
on the same prompts are drawn together, so that differences between pairs are paired.
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
# Of a response in the miniature's world: what it says beside its answer.
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

    What is read is kept: a run lives as long as its process.
    """

    def __init__(self, config: Config, results: Results):
        self.config, self.results = config, results

    @property
    def claims(self) -> ClaimsConfig:
        """Which pairs answer which claim."""
        return self.config.claims or ClaimsConfig()

    @property
    def aligned(self) -> list[str]:
        """The pairs whose second model was aligned from the first: all that are no combination."""
        others = self.claims.combinations.pairs()
        return [pair for pair in self.config.pairs if pair not in others]

    def ordered(self, key: str, setting: str) -> list[str]:
        """The pairs of a key of `claims`, by the setting that they differ in, ascending."""
        return sorted(getattr(self.claims, key), key=lambda pair: self.config.setting(pair, setting))

    @cached_property
    def alphas(self) -> pd.DataFrame:
        """results/alphas.csv."""
        return pd.read_csv(self.results.table("alphas"), dtype={"pair": str, "alpha": str})

    @cached_property
    def _rewards(self) -> dict[str, pd.DataFrame]:
        """By pair the rows of results/rewards.csv, and `unfinished`."""
        table = pd.read_csv(
            self.results.table("rewards"), dtype={"pair": str, "alpha": str, "prompt_id": str, "prompts": str}
        )
        table["unfinished"] = table["finish_reason"] == "length"
        return dict(iter(table.groupby("pair", sort=False)))

    @cache  # noqa: B019
    def swept(self, pair: str) -> pd.DataFrame:
        """The pair's rows of alphas.csv, ascending, with their index from 0."""
        table = self.alphas[self.alphas["pair"] == pair].copy()
        table["alpha"] = table["alpha"].astype(float)
        return table.sort_values("alpha").reset_index(drop=True)

    @cache  # noqa: B019
    def grid(self, pair: str) -> Values:
        """The pair's alphas, ascending."""
        return self.swept(pair)["alpha"].to_numpy()

    def place(self, pair: str, alpha: float) -> int:
        """Where `alpha` stands in the pair's grid. Raises DataError where it does not."""
        found = np.flatnonzero(np.isclose(self.grid(pair), alpha))
        if not len(found):
            raise DataError(f"pair '{pair}': alpha {alpha:g} is not in its grid; add it to alphas")
        return int(found[0])

    def chosen(self, pair: str) -> int:
        """Where the chosen alpha stands in the pair's grid."""
        return int(np.flatnonzero(self.swept(pair)["chosen"] == 1)[0])

    def best_alpha(self, pair: str) -> float:
        """The chosen alpha."""
        return float(self.grid(pair)[self.chosen(pair)])

    @property
    def knows_quality(self) -> bool:
        """Whether true quality is known of all responses."""
        return bool(self.alphas["quality"].notna().all())

    @cache  # noqa: B019
    def values(self, pair: str, quantity: str) -> Values:
        """Mean over samples of a quantity, shape (alphas, prompts), in the order of grid and prompts.

        reward, quality, accuracy, length (tokens), unfinished; one of STYLES; `reward by MODEL` of another
        reward model's scores.
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
        """Draws of the mean over prompts at every alpha of the grid: shape (1 + RESAMPLES, alphas)."""
        return _means(self.values(pair, quantity))

    def at(self, pair: str, quantity: str, alpha: float) -> Values:
        """Draws of the mean at an alpha, linear between those of the grid; shape (1 + RESAMPLES,)."""
        grid, draws = self.grid(pair), self.draws(pair, quantity)
        if not grid[0] <= alpha <= grid[-1]:
            raise DataError(f"pair '{pair}': alpha {alpha:g} is outside of its grid; add alphas")
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
        """Which alphas of the pair's grid may be chosen: those >= 0 whose responses have not become degenerate."""
        rise = self.config.section(pair, "select").degenerate_rise
        return (self.grid(pair) >= 0) & may_be_chosen(self.swept(pair)["degenerate_change_low"], rise)

    def best_alphas(self, pair: str) -> Values:
        """Draws of the alpha with the largest mean reward, of those that may be chosen."""
        grid, draws, allowed = self.grid(pair), self.draws(pair, "reward"), self.allowed(pair)
        return grid[allowed][draws[:, allowed].argmax(axis=1)]

    def prompts(self, pair: str) -> int:
        """The number of prompts that the pair's alpha is chosen on."""
        return self.values(pair, "reward").shape[1]

    @cache  # noqa: B019
    def test_values(self, pair: str, variant: str, quantity: str) -> Values:
        """Mean over samples on the prompts of benchmark reward, shape (prompts,)."""
        rows = self._benchmark(pair, variant)
        values = pd.Series([float(getattr(row, SCORED[quantity])) for row in rows])
        return values.groupby([row.prompt_id for row in rows], sort=False).mean().to_numpy()

    def test(self, pair: str, variant: str, quantity: str = "reward") -> Values:
        """Draws of the mean on the prompts of benchmark reward."""
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
        """The pair's theory.json; None where the config has no section `theory`."""
        path = self.results.theory(pair)
        return json.loads(path.read_text(encoding="utf-8")) if self.config.theory else None

    @cached_property
    def cosines(self) -> pd.DataFrame | None:
        """results/cosines.csv; None where no two pairs share their SFT model, or without the section `theory`."""
        names = {"pair_a": str, "pair_b": str}
        if not self.config.theory or not self.config.kin():
            return None
        return pd.read_csv(self.results.table("cosines"), dtype=names)

    @cached_property
    def planes(self) -> dict[str, pd.DataFrame]:
        """results/planes/{name}.csv by name."""
        names = self.config.theory.planes if self.config.theory else {}
        return {name: pd.read_csv(self.results.plane(name)) for name in names}

    def dev(self, pair: str) -> str:
        """The name of the prompt set that the pair's alpha is chosen on."""
        return self.config.section(pair, "generate").prompts

    @cache  # noqa: B019
    def _styles(self, pair: str) -> pd.DataFrame:
        """What every response of the pair's sweep says, by STYLES."""
        prompts = read_jsonl(self.results.prompts(self.dev(pair)), Prompt)
        metas, rows = {prompt.prompt_id: prompt.meta for prompt in prompts}, []
        for alpha in self.config.pairs[pair].grid():
            for each in read_jsonl(self.results.generations(pair, alpha, self.dev(pair)), Generation):
                truth = world.truth(metas[each.prompt_id], each.response, each.finish_reason == "stop")
                said = {name: getattr(truth, name) for name in STYLES}
                rows.append({"alpha": alpha, "prompt_id": each.prompt_id, **said})
        return pd.DataFrame(rows)

    def _scored_by(self, pair: str, model: str) -> pd.DataFrame:
        """The rewards of the pair's responses by another reward model."""
        grid, dev = self.config.pairs[pair].grid(), self.dev(pair)
        files = [self.results.rewards_by(model, pair, alpha, dev) for alpha in grid]
        return pd.concat([pd.read_csv(file, dtype={"prompt_id": str}) for file in files])

    def labeller(self, pair: str) -> str:
        """The reward model that labelled the training of the pair's aligned model, and does not choose alpha."""
        labellers = set(self.config.labellers(self.config.pairs[pair].aligned))
        (name,) = labellers - {self.config.reward_model}
        return name


def _means(values: Values) -> Values:
    """Estimate and bootstrap draws of the mean over the last axis: shape (1 + RESAMPLES, rows)."""
    prompts = values.shape[-1]
    weights = np.vstack([np.ones(prompts), statistics.resampled(prompts, RESAMPLES)])
    return weights @ values.T / prompts


def correlation(settings: Sequence[float], draws: Sequence[Values]) -> Values:
    """Draws of Spearman's rank correlation between settings and quantities, one array of draws a setting.

    0 where all quantities are equal.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.stack(draws, axis=1), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    order = rankdata(settings) - (len(settings) + 1) / 2
    size = np.sqrt((ranks**2).sum(axis=1) * (order**2).sum())
    return np.divide(ranks @ order, size, out=np.zeros(len(ranks)), where=size > 0)
