"""Where results lie: the rules and the library say the same, and the library says it once."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from expoflow import paths
from expoflow.paths import RESULTS, Results

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
# Every rule is in it: it has the section theory, with planes.
CONFIG = ROOT / "config" / "miniature-claims.yaml"
LOAD = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.io import strip_wildcard_constraints as plain
from snakemake.settings.types import ConfigSettings, ResourceSettings

config = ConfigSettings(configfiles=[Path(sys.argv[2])])
with SnakemakeApi() as api:
    workflow = api.workflow(ResourceSettings(cores=1), config, snakefile=Path(sys.argv[1]))._workflow
    for kind in ("output", "log"):
        print(json.dumps({rule.name: [plain(file) for file in getattr(rule, kind)] for rule in workflow.rules}))
    print(json.dumps({rule.name: [plain(rule.benchmark)] for rule in workflow.rules if rule.benchmark}))
"""
# What no rule declares: folders, and what is kept beside the results.
NO_OUTPUT = {"alpha", "exported", "costs", "looks", "benchmark_log", "host_log", "generation_times"}


def patterns() -> dict[str, str]:
    """By method of Results a regular expression: for a parameter stands the wildcard of its name, or a value."""
    found = {}
    for name, method in inspect.getmembers(Results, inspect.isfunction):
        signature = inspect.signature(method)
        if not name.startswith("_") and signature.return_annotation is Path:
            names = list(signature.parameters)[1:]
            text = re.escape(str(method(RESULTS, *(f"<{each}>" for each in names))))
            for each in names:
                text = text.replace(f"<{each}>", rf"(\{{{each}\}}|[\w-]+)")
            found[name] = text
    return found


@pytest.fixture(scope="module")
def rules(tmp_path_factory) -> list[dict[str, list[str]]]:
    """Outputs, logs and times of every rule, as Snakemake has them."""
    command = [sys.executable, "-c", LOAD, str(ROOT / "Snakefile"), str(CONFIG)]
    folder = tmp_path_factory.mktemp("run")
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return [*map(json.loads, done.stdout.splitlines())]


def test_every_output_lies_where_paths_says(rules):
    known = [*patterns().values(), str(RESULTS.report), str(RESULTS.preferences)]
    files = [file for outputs in rules[0].values() for file in outputs]
    assert len(files) > 40
    assert [file for file in files if sum(bool(re.fullmatch(each, file)) for each in known) != 1] == []


def test_what_paths_says_is_made_by_a_rule(rules):
    files = [file for outputs in rules[0].values() for file in outputs]
    unmade = {
        name for name, text in patterns().items() if not any(re.fullmatch(text, file) for file in files)
    }
    assert unmade == NO_OUTPUT
    assert {str(RESULTS.report), str(RESULTS.preferences)} <= set(files)


def test_the_logs_of_benchmarks_lie_where_the_last_words_say(rules):
    logs = [file for name, files in rules[1].items() if name.startswith("benchmark_") for file in files]
    of_variants = [file for file in logs if "{variant}" in file]
    assert len(of_variants) == 5
    assert all(re.fullmatch(patterns()["benchmark_log"], file) for file in of_variants)


def test_the_times_of_a_generation_lie_where_speeds_are_read(rules):
    assert re.fullmatch(patterns()["generation_times"], *rules[2]["generate"])


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The texts in a module, those of docstrings left out."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node


OWN = {node.value for node in strings(ast.parse(Path(paths.__file__).read_text(encoding="utf-8")))}
# Too short to tell a place; and what a module may be named, too.
COMMON = {"", ".", ".json", ".jsonl", ".csv", ".log", "results"}
NO_PLACES = {
    "expoflow/benchmarks/lm_eval/answers.py: results",  # a key of what lm-eval gives
    "expoflow/dag/code.py: results",  # the module of this name
    "expoflow/hosts/host.py: slot-",  # in the hosts' own folder
    "expoflow/hosts/slot.py: slot-",
    "expoflow/project/conversation.py: model",  # in a temporary folder
}


def spelt(tree: ast.AST) -> Iterator[str]:
    """The texts of a module that name a place: those that begin like one, and those that a path goes on with."""
    for node in strings(tree):
        if re.match(r"results(/|$)", node.value):
            yield node.value
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield from (each.value for each in strings(node.right) if each.value in OWN - COMMON)


def test_no_other_module_spells_a_place():
    files = [file for file in SCRIPTS.rglob("*.py") if file != Path(paths.__file__)]
    found = {
        f"{file.relative_to(SCRIPTS).as_posix()}: {text}"
        for file in files
        for text in spelt(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert found == NO_PLACES


def test_names_are_read_back_from_places():
    assert paths.of_alpha(RESULTS.rewards("p", "-0.5", "dev")) == "-0.5"
    assert paths.of_pair(RESULTS.best("p")) == paths.of_pair(RESULTS.theory("p")) == "p"
    assert paths.of_prompts(RESULTS.prompts("dev.1")) == "dev.1"
    for file in (RESULTS.benchmark, RESULTS.benchmark_rows):
        assert paths.of_benchmark(file("p", "expo-aligned", "mt_bench")) == ("p", "expo-aligned", "mt_bench")
    assert paths.weights(RESULTS.manifest("m.1")) == RESULTS.models / "m.1"


def test_an_exported_model_tells_its_project(tmp_path):
    results = Results.of(tmp_path)
    assert results.exported_pairs() == []
    results.exported("q").mkdir(parents=True)
    results.exported("p").mkdir(parents=True)
    results.alpha("r", "1").mkdir(parents=True)
    assert results.exported_pairs() == ["p", "q"]
    assert paths.of_exported(results.exported("p")) == (tmp_path, "p")
    for folder in (tmp_path, results.alpha("p", "1"), tmp_path / "pairs" / "p" / "expo", Path("/expo")):
        assert paths.of_exported(folder) is None
