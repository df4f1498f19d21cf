"""Which edits of the library change which rules' digests."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from edits import change_code
from expoflow.config.base import DIFFERENCE
from expoflow.config.benchmarks import (
    BENCHMARKS,
    SECTIONS,
    AlpacaEvalBenchmark,
    LmEvalBenchmark,
    MtBenchBenchmark,
    OpenLlmBenchmark,
    RewardCheck,
)
from expoflow.config.sources import ModelConfig, PromptsConfig
from expoflow.config.theory import TheoryConfig
from expoflow.dag import code, digest

LIBRARY = digest.PACKAGE
# Of which models give answers.
ASKING = [name for name in BENCHMARKS if DIFFERENCE not in SECTIONS[name].RESULTS]
RULES = (
    *(
        "local",
        "preflight",
        "extrapolate",
        "generate",
        "score",
        "likelihood",
        "select",
        "export",
        "rewardbench",
    ),
    *(
        "tables",
        "benchmark_table",
        "paper_tables",
        "answers",
        "appendices",
        "claims",
        "cosines",
        "plane",
        "first",
    ),
)


def trained(recipe: str, **settings) -> ModelConfig:
    base = {} if recipe == "reward" else {"from": "sft"}
    return ModelConfig.model_validate({"train": {"recipe": recipe, **base, **settings}})


def digests() -> dict[str, str]:
    """The digest of every rule, and of its variants."""
    found = {rule: code.rule(rule) for rule in RULES}
    found["figure"] = code.figure()
    found |= {"answers_page": code.page("answers_page"), "report": code.page("report", answers=False)}
    found |= {f"benchmark_{name}": code.benchmark(name) for name in ASKING}
    found |= {f"compare_{name}": code.comparison(name) for name in BENCHMARKS}
    found |= {f"responses_{name}": code.responses(name) for name in ASKING}
    found |= {
        "train_loop_dpo": code.training(trained("dpo", data="miniature")),
        "train_loop_reward": code.training(trained("reward", data="miniature")),
        "train_trl_miniature": code.training(trained("dpo", data="miniature", trainer="trl")),
        "train_trl_dataset": code.training(trained("dpo", data="pairs")),
        "train_trl_labelled": code.training(trained("iterative_dpo", data="pairs", reward_model="rm")),
        "prompts_file": code.prompts(PromptsConfig(file="a.jsonl")),
        "prompts_miniature": code.prompts(PromptsConfig(miniature="dev")),
        "preferences_file": code.preferences(RewardCheck(file="a.jsonl")),
        "preferences_miniature": code.preferences(RewardCheck(miniature=True)),
        "theory_file": code.theory(TheoryConfig(preferences="a.jsonl")),
        "theory_miniature": code.theory(TheoryConfig()),
        "alpaca_eval_data": code.benchmark_data("alpaca_eval", AlpacaEvalBenchmark(reference="miniature")),
        "mt_bench_data_file": code.benchmark_data("mt_bench", MtBenchBenchmark(data="folder")),
        "mt_bench_data_miniature": code.benchmark_data("mt_bench", MtBenchBenchmark(data="miniature")),
        "open_llm_data_file": code.benchmark_data("open_llm", OpenLlmBenchmark(data="folder")),
        "open_llm_data_miniature": code.benchmark_data(
            "open_llm", OpenLlmBenchmark(data="miniature", tasks=["miniature_choice"])
        ),
        "lm_eval_data": code.benchmark_data("lm_eval", LmEvalBenchmark(tasks=["ifeval"])),
    }
    return found


def forget() -> None:
    """What digests remember of files, and of each other."""
    for each in [*vars(digest).values(), *vars(code).values()]:
        if hasattr(each, "cache_clear"):
            each.cache_clear()


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    forget()
    return digests()


@pytest.fixture
def copy(before, tmp_path, monkeypatch) -> Path:
    """A copy of the library that digests are made of."""
    shutil.copytree(LIBRARY, tmp_path / "expoflow", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digest, "PACKAGE", tmp_path / "expoflow")
    forget()
    yield tmp_path / "expoflow"
    forget()


def variants(kinds: str, *names: str) -> set[str]:
    """`benchmark_reward` and so on: every one of `kinds` with every one of `names`."""
    return {f"{kind}_{name}" for kind in kinds.split() for name in names}


LOADING = {"generate", "likelihood", *variants("benchmark responses", "reward", "alpaca_eval", "mt_bench")}
LOADING |= {"train_trl_labelled"}
THEORY = {"plane", *variants("theory", "file", "miniature")}
TRL = variants("train_trl", "miniature", "dataset", "labelled")
JOBS = variants("benchmark", *ASKING)
HARNESSES = ("open_llm", "lm_eval")
# A module of which every function is changed, and the digests that change with it: no more, and no less.
EDITS = {
    # what a person reads, and how files, hosts and downloads work, is in no result
    "errors": set(),
    "config/stages": set(),
    "config/engine": set(),
    "engines/memory": set(),
    "engines/package": set(),
    "files/atomic": set(),
    "files/latex": set(),
    "hosts/host": set(),
    "hosts/count": set(),
    "system/progress": set(),
    "training/trl/watched": set(),
    "hub/cache": set(),
    "store": set(),
    "project/begin": set(),
    "reporting/run_end": set(),
    "benchmarks/judge/judge": set(),
    "data/first": {"first"},
    # weights
    "extrapolation/model_card": {"export"},
    "extrapolation/extrapolate": {"extrapolate", "export"} | JOBS,
    "extrapolation/likeness": {"preflight"},
    "extrapolation/kernel": {"extrapolate", "export", *variants("benchmark", *HARNESSES)} | LOADING | THEORY,
    # responses
    "engines/vllm": LOADING,
    "engines/transformers": LOADING | THEORY,
    "engines/in_place": LOADING | THEORY,
    "engines/sharing": LOADING,
    "engines/unfinished": {"select"},
    "scoring/likelihood": {"likelihood"},
    "scoring/degenerate": {"score", "answers_page"},
    "scoring/refusals": {"answers", "answers_page"},
    "scoring/answers": {"answers", "answers_page", "compare_human"},
    # the choice, and what shows it
    "selection/select": {"select"},
    "selection/choice": {"select"},
    "selection/tables": {"select"},
    "selection/degenerate": {"select", "claims"},
    "reporting/tables": {"tables", "benchmark_table", "appendices", "report"},
    "reporting/pages/report": {"report"},
    "reporting/pages/curves": {"report"},
    "reporting/pages/answers": {"answers_page"},
    "reporting/rehearsal": {
        "tables",
        "benchmark_table",
        "paper_tables",
        "appendices",
        "figure",
        "export",
        "report",
        "answers_page",
        "claims",
    },
    "reporting/figures/sweeps": {"figure"},
    "reporting/appendices": {"appendices"},
    "reporting/paper_tables": {"paper_tables"},
    "reporting/printed_table": {"paper_tables", "appendices", "report"},
    "reporting/remarks": {"paper_tables", "report"},
    "claims/geometry": {"claims"},
    # loaded by their names
    "benchmarks/alpaca_eval/win_rates": variants("benchmark compare", "alpaca_eval"),
    "benchmarks/human/benchmark": {"compare_human"},
    "benchmarks/human/files": {"compare_human", "answers_page"},
    "benchmarks/lm_eval/backend": variants("benchmark responses", *HARNESSES),
    "benchmarks/lm_eval/definitions": {"lm_eval_data"},
    "theory/answers": THEORY,
    "training/trl/trainers": TRL,
    "training/loop/dpo": {"train_loop_dpo", "train_trl_miniature"},
    "miniature/writers": {"train_loop_dpo", "train_loop_reward", "train_trl_miniature"}
    | variants("preferences theory", "miniature"),
}


@pytest.mark.parametrize("module", EDITS)
def test_an_edit_changes_the_digests_of_what_depends_on_it_and_no_others(copy, before, module):
    change_code(copy / f"{module}.py")
    after = digests()
    assert {name for name in before if before[name] != after[name]} == EDITS[module]


@pytest.mark.parametrize(
    "module", ["checkpoints/pickles", "checkpoints/vocabulary", "extrapolation/preflight"]
)
def test_the_words_of_an_error_change_no_digest(copy, before, module):
    path = copy / f"{module}.py"
    text = path.read_text()
    changed = re.sub(r"(raise \w+Error\(\s*f?\")", r"\1Other words: ", text)
    assert changed != text
    path.write_text(changed)
    assert digests() == before


def test_an_edit_of_a_pages_files_changes_the_digests_of_pages_alone(copy, before):
    path = copy / "reporting" / "pages" / "assets" / "base.css"
    path.write_text(path.read_text() + "p { margin: 0; }\n")
    after = digests()
    assert {name for name in before if before[name] != after[name]} == {"answers_page", "report"}


def test_a_comment_and_a_docstring_change_no_digest(copy, before):
    for path in copy.rglob("*.py"):
        text = path.read_text()
        path.write_text(text.replace('"""\n', '  More.\n"""\n# a comment\n', 1))
    assert digests() == before


def test_a_column_changes_the_digests_of_the_tables_that_have_it(copy, before):
    path = copy / "columns.py"
    path.write_text(path.read_text().replace('"chosen_share",', '"share",', 1))
    after = digests()
    assert {name for name in before if before[name] != after[name]} == {"select", "tables", "report"}


def test_small_digests_stay_small():
    """Modules that a rule's digest holds, its script aside: 32, 35, 33 and 36 before they went by definition."""
    most = {"tables": 3, "report": 20, "appendices": 5, "select": 11, "score": 25}
    for rule, count in most.items():
        roots = code.work(*code.TASKS.get(rule, ()))
        found = digest.reached(roots, code.script(rule), code.NEUTRAL)
        assert len({name.partition(":")[0] for name in found} - {"script"}) <= count, rule


def named_by_strings() -> dict[str, set[str]]:
    """Modules of expoflow that the library names in a string, with the modules that do."""
    found: dict[str, set[str]] = {}
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for text in re.findall(r"^expoflow\.([\w.]*\w)(?::\w+)?$", node.value):
                    place = digest._longest(text)[0]
                    found.setdefault(place, set()).add(path.relative_to(LIBRARY).as_posix())
    return found


def test_what_is_loaded_by_a_name_in_a_string_counts_for_some_rule(before, copy):
    """`dag.code` names all that `importlib`, a new process or an engine host loads, but for what is neutral."""
    for module in named_by_strings():
        if not digest._within(module, code.NEUTRAL):
            path = digest._path(module)
            text = path.read_text()
            change_code(path)
            forget()
            assert digests() != before, module
            path.write_text(text)
