"""Where every result lies, below the folder results/ of the folder that a run runs in."""

from dataclasses import dataclass
from pathlib import Path

# Names of files that are known by them, wherever their folder lies.
RECIPE = "recipe.json"
ALPHAS = "alphas.csv"
THEORY = "theory.json"


@dataclass(frozen=True)
class Results:
    """The results in `folder`."""

    folder: Path = Path("results")

    @classmethod
    def of(cls, project: Path) -> "Results":
        """The results of the run in the folder `project`."""
        return cls(project / cls.folder)

    # What a run begins with.

    @property
    def models(self) -> Path:
        """The folder of all manifests, and of the weights that are trained here."""
        return self.folder / "models"

    def manifest(self, model: str) -> Path:
        """Where a model came from, and which bytes it is."""
        return self.models / f"{model}.json"

    def dataset(self, dataset: str) -> Path:
        """The manifest of a dataset that models are trained on."""
        return self.folder / "datasets" / f"{dataset}.json"

    def prompts(self, prompts: str) -> Path:
        """A prompt set."""
        return self.folder / "prompts" / f"{prompts}.jsonl"

    # The sweep over alpha of a pair.

    @property
    def pairs(self) -> Path:
        """The folder of all pairs."""
        return self.folder / "pairs"

    def preflight(self, pair: str) -> Path:
        """What was found when both models were compared."""
        return self.pairs / pair / "preflight.json"

    def alpha(self, pair: str, alpha: str) -> Path:
        """The folder of one alpha."""
        return self.pairs / pair / alpha_folder(alpha)

    def recipe(self, pair: str, alpha: str) -> Path:
        """The recipe of an alpha's model, whose other files lie beside it."""
        return self.alpha(pair, alpha) / "model" / RECIPE

    def generations(self, pair: str, alpha: str, prompts: str) -> Path:
        """An alpha's responses to a prompt set."""
        return self.alpha(pair, alpha) / f"{prompts}.generations.jsonl"

    def generation_times(self, pair: str, alpha: str, prompts: str) -> Path:
        """Time and memory of the job that wrote them, as Snakemake measures it."""
        return self.logs / "generate" / pair / f"{alpha_folder(alpha)}.{prompts}.tsv"

    def rewards(self, pair: str, alpha: str, prompts: str) -> Path:
        """The rewards of these responses."""
        return self.alpha(pair, alpha) / f"{prompts}.rewards.csv"

    def rewards_by(self, labeller: str, pair: str, alpha: str, prompts: str) -> Path:
        """Their rewards by another reward model than the run's."""
        return self.rewards(pair, alpha, f"{prompts}.{labeller}")

    def likelihoods(self, pair: str, alpha: str, prompts: str) -> Path:
        """How likely the pair's own models find these responses."""
        return self.alpha(pair, alpha) / f"{prompts}.likelihoods.csv"

    def alphas(self, pair: str) -> Path:
        """The evidence of the choice, a row for each alpha."""
        return self.pairs / pair / ALPHAS

    def best(self, pair: str) -> Path:
        """The chosen alpha, and why."""
        return self.pairs / pair / "best.json"

    def certificate(self, pair: str) -> Path:
        """The gain of the choice on prompts that took no part in it."""
        return self.pairs / pair / "certificate.json"

    def answers(self, pair: str) -> Path:
        """All responses of the sweep with their prompts, in one table."""
        return self.pairs / pair / "answers.parquet"

    def answers_page(self, pair: str) -> Path:
        """The page on which they are read."""
        return self.pairs / pair / "answers.html"

    def exported(self, pair: str) -> Path:
        """The folder of the model at the chosen alpha, to be published."""
        return self.pairs / pair / "expo"

    def exported_recipe(self, pair: str) -> Path:
        """The recipe of this model."""
        return self.exported(pair) / RECIPE

    # What is measured of the chosen model, and of delta.

    def benchmark(self, pair: str, variant: str, benchmark: str) -> Path:
        """The metrics of a variant; of `expo-aligned` those of the paired difference."""
        return self.pairs / pair / "benchmarks" / variant / f"{benchmark}.json"

    def benchmark_rows(self, pair: str, variant: str, benchmark: str) -> Path:
        """The responses, or answers, that the metrics are means of."""
        return self.benchmark(pair, variant, benchmark).with_suffix(".generations.jsonl")

    def benchmark_data(self, benchmark: str, source: str) -> Path:
        """What MT-Bench or the Open LLM Leaderboard asks, by the name of its source."""
        return self.folder / "benchmarks" / f"{benchmark}.{source}.json"

    def alpaca_eval(self, source: str, file: str) -> Path:
        """A file of AlpacaEval's dataset, by the name of its source."""
        return self.folder / "benchmarks" / f"alpaca_eval.{source}" / file

    @property
    def preferences(self) -> Path:
        """The preferences that the reward model is checked on."""
        return self.folder / "benchmarks" / "preferences.jsonl"

    def reward_check(self, model: str) -> Path:
        """How often a reward model prefers the better response."""
        return self.models / f"{model}.rewardbench.json"

    def reward_check_rows(self, model: str) -> Path:
        """What the reward model says of each preference."""
        return self.models / f"{model}.rewardbench.jsonl"

    def theory(self, pair: str) -> Path:
        """How small delta is, and how far the first order describes what it does."""
        return self.pairs / pair / THEORY

    def plane(self, plane: str) -> Path:
        """Rewards in the plane through an SFT model and two aligned ones."""
        return self.folder / "planes" / f"{plane}.csv"

    # What all of it comes to.

    def table(self, table: str) -> Path:
        """A table over all pairs: alphas, rewards, benchmarks, summary, cosines, claims, regrets or styles."""
        return self.folder / f"{table}.csv"

    @property
    def paper_tables(self) -> Path:
        """The folder of the tables in the paper's form."""
        return self.folder / "tables"

    def paper_table(self, table: str, kind: str) -> Path:
        """One of them, as csv or md."""
        return self.paper_tables / f"{table}.{kind}"

    @property
    def figures(self) -> Path:
        """The folder of all figures."""
        return self.folder / "figures"

    def figure(self, figure: str, kind: str) -> Path:
        """One of them, as svg or png."""
        return self.figures / f"{figure}.{kind}"

    @property
    def report(self) -> Path:
        """The page that shows the results."""
        return self.folder / "report.html"

    @property
    def partial(self) -> "Results":
        """Tables and page of a run that failed, of what there is."""
        return Results(self.folder / "partial")

    # What is kept beside the results.

    def costs(self, benchmark: str) -> Path:
        """What the benchmark's judge has cost."""
        return self.folder / "costs" / f"{benchmark}.json"

    def looks(self, pair: str) -> Path:
        """The results that were seen on the prompts that judge the choice."""
        return self.pairs / pair / "looks.jsonl"

    @property
    def logs(self) -> Path:
        """What every job said, and its time and memory: below it a folder or a file for each rule."""
        return self.folder / "logs"

    @property
    def events(self) -> Path:
        """What the last run did: the jobs that it had planned, and what became of each."""
        return self.logs / "run.jsonl"

    @property
    def snakemake_log(self) -> Path:
        """What Snakemake said of itself in a run that `expoflow run` showed."""
        return self.logs / "snakemake.log"

    def benchmark_log(self, pair: str, variant: str, benchmark: str) -> Path:
        """What a benchmark's job said."""
        return self.logs / "benchmark" / pair / f"{variant}.{benchmark}.log"

    def host_log(self, number: int, job: str = "") -> Path:
        """What the engine hosts of a slot said, in a local run or in a SLURM job."""
        return self.logs / "hosts" / job / f"slot-{number}.log"

    # What a place says of the result that lies there.

    def exported_pairs(self) -> list[str]:
        """The pairs that have the folder of an exported model."""
        return sorted(path.name for path in self.pairs.glob("*") if self.exported(path.name).exists())


RESULTS = Results()


def alpha_folder(alpha: str) -> str:
    """The name of the folder of one alpha."""
    return f"alpha={alpha}"


def weights(manifest: Path) -> Path:
    """The folder of the weights of a model that is trained here, beside its manifest."""
    return manifest.with_name(manifest.name.removesuffix(".json"))


def of_alpha(path: Path) -> str:
    """The alpha that rewards, likelihoods or generations are of."""
    return path.parent.name.removeprefix(alpha_folder(""))


def of_pair(path: Path) -> str:
    """The pair of what lies in the pair's own folder, such as best.json."""
    return path.parent.name


def of_benchmark(path: Path) -> tuple[str, str, str]:
    """Pair, variant and benchmark of a benchmark's result, or of its rows."""
    return path.parts[-4], path.parts[-2], path.name.partition(".")[0]


def of_prompts(path: Path) -> str:
    """The name of a prompt set."""
    return path.stem


def of_exported(folder: Path) -> tuple[Path, str] | None:
    """Project and pair of the absolute folder of an exported model; None if it is no such folder."""
    if len(folder.parents) < 4:
        return None
    project, pair = folder.parents[3], of_pair(folder)
    return (project, pair) if folder == Results.of(project).exported(pair) else None
