"""The paths of all results, below the folder results/ of a run's folder."""

from dataclasses import dataclass
from pathlib import Path

# Files that are recognised by their names, in any folder.
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

    # The inputs of a run.

    @property
    def models(self) -> Path:
        """The folder of all manifests, and of the weights trained in this run."""
        return self.folder / "models"

    def manifest(self, model: str) -> Path:
        """The manifest of a model: where it came from, and its exact bytes."""
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
        """The findings of the comparison of both models."""
        return self.pairs / pair / "preflight.json"

    def alpha(self, pair: str, alpha: str) -> Path:
        """The folder of one alpha."""
        return self.pairs / pair / alpha_folder(alpha)

    def recipe(self, pair: str, alpha: str) -> Path:
        """The recipe of an alpha's model. The model's other files are in the same folder."""
        return self.alpha(pair, alpha) / "model" / RECIPE

    def generations(self, pair: str, alpha: str, prompts: str) -> Path:
        """An alpha's responses to a prompt set."""
        return self.alpha(pair, alpha) / f"{prompts}.generations.jsonl"

    def generation_times(self, pair: str, alpha: str, prompts: str) -> Path:
        """Time and memory of the job that wrote the responses, as measured by Snakemake."""
        return self.logs / "generate" / pair / f"{alpha_folder(alpha)}.{prompts}.tsv"

    def rewards(self, pair: str, alpha: str, prompts: str) -> Path:
        """The rewards of these responses."""
        return self.alpha(pair, alpha) / f"{prompts}.rewards.csv"

    def rewards_by(self, labeller: str, pair: str, alpha: str, prompts: str) -> Path:
        """The rewards of these responses by `labeller`, which is not the run's reward model."""
        return self.rewards(pair, alpha, f"{prompts}.{labeller}")

    def likelihoods(self, pair: str, alpha: str, prompts: str) -> Path:
        """How likely the pair's own models find these responses."""
        return self.alpha(pair, alpha) / f"{prompts}.likelihoods.csv"

    def alphas(self, pair: str) -> Path:
        """The evidence for the choice, one row per alpha."""
        return self.pairs / pair / ALPHAS

    def best(self, pair: str) -> Path:
        """The chosen alpha, and why it was chosen."""
        return self.pairs / pair / "best.json"

    def certificate(self, pair: str) -> Path:
        """The gain of the choice on prompts that took no part in it."""
        return self.pairs / pair / "certificate.json"

    def answers(self, pair: str) -> Path:
        """All responses of the sweep with their prompts, in one table."""
        return self.pairs / pair / "answers.parquet"

    def answers_page(self, pair: str) -> Path:
        """The page that shows these answers."""
        return self.pairs / pair / "answers.html"

    def exported(self, pair: str) -> Path:
        """The folder of the model at the chosen alpha, ready to publish."""
        return self.pairs / pair / "expo"

    def exported_recipe(self, pair: str) -> Path:
        """The recipe of this model."""
        return self.exported(pair) / RECIPE

    # Measurements of the chosen model and of delta.

    def benchmark(self, pair: str, variant: str, benchmark: str) -> Path:
        """The metrics of a variant; for `expo-aligned`, those of the paired difference."""
        return self.pairs / pair / "benchmarks" / variant / f"{benchmark}.json"

    def benchmark_rows(self, pair: str, variant: str, benchmark: str) -> Path:
        """The responses or answers behind the metrics, which are means over them."""
        return self.benchmark(pair, variant, benchmark).with_suffix(".generations.jsonl")

    def benchmark_data(self, benchmark: str, source: str) -> Path:
        """The questions of a benchmark such as MT-Bench, by the name of their source."""
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
        """The reward model's verdict on each preference."""
        return self.models / f"{model}.rewardbench.jsonl"

    def theory(self, pair: str) -> Path:
        """The size of delta, and how well the first-order prediction describes its effect."""
        return self.pairs / pair / THEORY

    def plane(self, plane: str) -> Path:
        """Rewards in the plane through an SFT model and two aligned ones."""
        return self.folder / "planes" / f"{plane}.csv"

    # Summaries over all pairs.

    def table(self, table: str) -> Path:
        """A table over all pairs: alphas, rewards, benchmarks, summary, cosines, claims, regrets or
        styles."""
        return self.folder / f"{table}.csv"

    @property
    def paper_tables(self) -> Path:
        """The folder of the tables in the paper's format."""
        return self.folder / "tables"

    def paper_table(self, table: str, kind: str) -> Path:
        """One of these tables, as csv or md."""
        return self.paper_tables / f"{table}.{kind}"

    @property
    def figures(self) -> Path:
        """The folder of all figures."""
        return self.folder / "figures"

    def figure(self, figure: str, kind: str) -> Path:
        """One figure, as svg or png."""
        return self.figures / f"{figure}.{kind}"

    @property
    def report(self) -> Path:
        """The page that shows the results."""
        return self.folder / "report.html"

    @property
    def partial(self) -> "Results":
        """Tables and page of a failed run, made from the results that exist."""
        return Results(self.folder / "partial")

    # Files that are kept in addition to the results.

    def costs(self, benchmark: str) -> Path:
        """The costs of the benchmark's judge so far."""
        return self.folder / "costs" / f"{benchmark}.json"

    def looks(self, pair: str) -> Path:
        """The results seen so far on the prompts that judge the choice."""
        return self.pairs / pair / "looks.jsonl"

    @property
    def logs(self) -> Path:
        """The output of every job, and its time and memory, in a folder or file per rule."""
        return self.folder / "logs"

    @property
    def events(self) -> Path:
        """The events of the last run: the planned jobs, and how each of them ended."""
        return self.logs / "run.jsonl"

    @property
    def snakemake_log(self) -> Path:
        """Snakemake's own output in a run that `expoflow run` displayed."""
        return self.logs / "snakemake.log"

    def benchmark_log(self, pair: str, variant: str, benchmark: str) -> Path:
        """The output of a benchmark's job."""
        return self.logs / "benchmark" / pair / f"{variant}.{benchmark}.log"

    def host_log(self, number: int, job: str = "") -> Path:
        """The output of the engine hosts of a slot, in a local run or in a SLURM job."""
        return self.logs / "hosts" / job / f"slot-{number}.log"

    # What the path of a result says about it.

    def exported_pairs(self) -> list[str]:
        """The pairs that have a folder with an exported model."""
        return sorted(path.name for path in self.pairs.glob("*") if self.exported(path.name).exists())


RESULTS = Results()


def alpha_folder(alpha: str) -> str:
    """The name of the folder of one alpha."""
    return f"alpha={alpha}"


def weights(manifest: Path) -> Path:
    """The folder with the weights of a model trained in this run, next to its manifest."""
    return manifest.with_name(manifest.name.removesuffix(".json"))


def of_alpha(path: Path) -> str:
    """The alpha of a file of rewards, likelihoods or generations."""
    return path.parent.name.removeprefix(alpha_folder(""))


def of_pair(path: Path) -> str:
    """The pair of a file in the pair's own folder, such as best.json."""
    return path.parent.name


def of_benchmark(path: Path) -> tuple[str, str, str]:
    """Pair, variant and benchmark of a benchmark's result, or of its rows."""
    return path.parts[-4], path.parts[-2], path.name.partition(".")[0]


def of_prompts(path: Path) -> str:
    """The name of a prompt set."""
    return path.stem


def of_exported(folder: Path) -> tuple[Path, str] | None:
    """Project and pair of the absolute folder of an exported model; None for any other folder."""
    if len(folder.parents) < 4:
        return None
    project, pair = folder.parents[3], of_pair(folder)
    return (project, pair) if folder == Results.of(project).exported(pair) else None
