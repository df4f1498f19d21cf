"""`expoflow run` up to Snakemake's start, `init`, `status` and `clean`, as a user runs them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from expoflow import checks
from expoflow.cli import main
from expoflow.project import create, folder


def run(*arguments):
    return main([str(each) for each in arguments])


@pytest.fixture
def asked(make_pair, tmp_path, monkeypatch):
    """Options of a pair that is in order, in an empty current folder."""
    sft, aligned = make_pair()
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "Hello?"}) + "\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return {"--sft": sft, "--aligned": aligned, "--reward-model": sft, "--prompts": prompts}


def options(asked):
    return [each for pair in asked.items() for each in pair]


BAD = {
    "no such folder": ({"--sft": "../nowhere"}, "models.sft.path: no folder"),
    "no prompts": ({"--prompts": "../absent.jsonl"}, "prompts.dev.file: cannot read"),
    "alpha no number": (
        {"--alphas": "0.1,much"},
        "pairs.aligned.alphas.1: 'much' is not accepted: an alpha is",
    ),
    "alpha twice": ({"--alphas": "0.1,0.10"}, "pairs.aligned.alphas: alpha 0.1 occurs twice; remove one"),
    "alpha infinite": (
        {"--alphas": "inf"},
        "pairs.aligned.alphas.0: inf is not accepted: an alpha is a finite",
    ),
    "out is a checkpoint": ({"--out": "../sft"}, "--out: '../sft' is a file or a checkpoint; give a folder"),
    "a pair and a config": ({"--config": "my.yaml"}, "--config says what to run; leave out the options"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_and_nothing_is_written(asked, case, capsys):
    change, expected = BAD[case]
    assert run("run", *options(asked | change)) == 2
    assert f"expoflow: {expected}" in capsys.readouterr().err
    assert os.listdir() == []


def test_all_problems_are_told_at_once(asked, capsys):
    change = {"--sft": "../nowhere", "--reward-model": "../none", "--prompts": "../absent", "--alphas": "x"}
    assert run("run", *options(asked | change)) == 2
    told = capsys.readouterr().err
    for start in ("models.sft.path", "models.reward.path", "prompts.dev.file", "pairs.aligned.alphas.0"):
        assert told.count(f"expoflow: {start}: ") == 1


def test_models_that_do_not_fit_together_are_told_before_anything_is_written(make_pair, asked, capsys):
    for model in (asked["--sft"], asked["--aligned"]):
        shutil.rmtree(model)
    make_pair(aligned={"vocab": 336})
    assert run("run", *options(asked)) == 2
    assert (
        "expoflow: tensor model.embed_tokens.weight is 320x32 in sft and 336x32 in" in capsys.readouterr().err
    )
    assert os.listdir() == []


def test_what_is_missing_is_told(capsys):
    assert run("run", "--sft", "a") == 2
    assert (
        "--aligned is missing: give the model after DPO or RLHF, or a whole config" in capsys.readouterr().err
    )


def test_prompts_that_judge_need_a_judge(asked, capsys):
    del asked["--reward-model"]
    assert run("run", *options(asked | {"--test-prompts": asked["--prompts"]})) == 2
    assert "expoflow: --test-prompts needs a judge of their responses: give" in capsys.readouterr().err
    assert os.listdir() == []


def test_a_reward_model_that_a_kept_config_lacks_is_told(asked, capsys, monkeypatch):
    monkeypatch.setattr(folder, "run_workflow", lambda *_: None)
    run("run", *options({key: value for key, value in asked.items() if key != "--reward-model"}))
    kept = Path("aligned-expo/config.yaml").read_text()
    assert "select: {by: nll}" in kept
    Path("aligned-expo/results/pairs/aligned/alpha=0").mkdir(parents=True)
    assert run("run", *options(asked)) == 2
    assert (
        "config.yaml: reward_model is not set, but reward was asked for; change it there"
        in capsys.readouterr().err
    )
    assert Path("aligned-expo/config.yaml").read_text() == kept


def test_what_is_not_said_is_the_papers(asked, monkeypatch):
    kept = []
    monkeypatch.setattr(
        folder, "run_workflow", lambda config, *_: kept.append(folder.read_config(config.parent))
    )
    run("run", "--sft", asked["--sft"], "--aligned", asked["--aligned"])
    (config,) = kept
    assert set(config.models) == {"sft", "aligned"}
    assert (config.reward_model, config.select.by) == (None, "nll")
    dev = config.prompts["dev"]
    assert (dev.hub, dev.split, dev.field) == ("HuggingFaceH4/ultrafeedback_binarized", "test_gen", "prompt")
    assert [float(alpha) for alpha in config.pairs["aligned"].grid()] == [-1, 0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert config.benchmarks.names() == []


def test_the_config_says_what_was_asked(asked, tmp_path):
    request = create.Request(
        "org/sft@v1.0", str(asked["--aligned"]), "org/rm", "3,0.10", "p.jsonl", "t.jsonl"
    )
    assert request.name == "aligned"
    config = request.config()
    assert config["models"]["sft"] == {"hub": "org/sft", "revision": "v1.0"}
    assert config["models"]["aligned"] == {"path": str(asked["--aligned"])}
    assert config["pairs"]["aligned"]["alphas"] == [0.1, 3]
    assert config["prompts"]["dev"] == {"file": str(Path.cwd() / "p.jsonl")}
    assert create.prompt_source("org/data@v2:dev") == {"hub": "org/data", "revision": "v2", "split": "dev"}
    assert config["benchmarks"] == {"reward": {"prompts": "test"}}
    assert yaml.safe_load(create._commented(config)) == config
    assert checks.parse(config).benchmarks.names() == ["reward"]


def test_a_folder_like_a_hub_id_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "org").mkdir()
    monkeypatch.chdir(tmp_path)
    request = create.Request("org/sft", "other/dpo", "org/rm", "1", "p.jsonl")
    assert request.config()["models"]["sft"] == {"path": str(tmp_path / "org/sft")}
    assert request.config()["models"]["aligned"] == {"hub": "other/dpo"}


def prepared(*request, folder="out", **more):
    project, said = create.prepare(create.Request(*request, **more), Path(folder))
    if project.text is not None:
        project._write()
    return project.config, said


def test_a_config_that_was_run_is_reused_and_another_request_is_an_error(asked):
    sft, aligned, reward_model, prompts = map(str, asked.values())
    path, _ = prepared(sft, aligned, reward_model, "1,2", prompts)
    edited = path.read_text().replace("2048", "100")
    path.write_text(edited)
    assert prepared(sft, aligned, reward_model, "1,2", prompts) == (path, [])
    assert path.read_text() == edited
    Path("out/results/pairs/aligned/alpha=1").mkdir(parents=True)
    other = create.Request(sft, aligned, reward_model, None, prompts, field="text", generate={"samples": 2})
    with pytest.raises(create.ConfigError) as error:
        create.prepare(other, Path("out"))
    for difference in (
        "prompts.dev.field is not set, but text was asked for",
        "generate.samples is not set, but 2 was asked for",
    ):
        assert f"{path}: {difference}; change it there and run: expoflow run --config {path}" in str(
            error.value
        )
    assert path.read_text() == edited


def test_other_alphas_are_added_to_a_config_that_was_run(asked):
    given = [*map(str, asked.values())]
    path, _ = prepared(*given[:3], "1,2", given[3])
    edited = path.read_text() + "# mine, once alphas: [1]\n"
    path.write_text(edited)
    Path("out/results/pairs/aligned/alpha=1").mkdir(parents=True)
    wanted = edited.replace("[1, 2]", "[0.5, 1, 2]")
    said = [f"{path}: the alphas of aligned were [1, 2], and are now [0.5, 1, 2]"]
    for project, words in (
        create.prepare(create.Request(*given[:3], "2,1,0.5", given[3]), Path("out")),
        create.with_alphas(folder.Project.find(Path("out")), "0.5,1,2"),
    ):
        assert (project.text, words) == (wanted, said)
    assert path.read_text() == edited  # nothing is written before the run
    assert prepared(*given[:3], None, given[3]) == (path, [])
    for alphas, words in (("1,much", "an alpha is a finite number"), ("1,1", "alpha 1 occurs twice")):
        with pytest.raises(create.ConfigError, match=words):
            create.with_alphas(folder.Project.find(Path("out")), alphas)
    block = edited.replace("alphas: [1, 2]", "alphas:\n    - 1\n    - 2")
    for text, words in (
        ("# alphas: [1]\n" + edited.replace("alphas: [1, 2]", "'alphas': [1, 2]"), "change them there"),
        (block, "change them there"),
        ("{}", "models"),
        ("[]", "models"),
    ):
        path.write_text(text)
        with pytest.raises(create.ConfigError, match=words):
            create.with_alphas(folder.Project.find(Path("out")), "3")


def test_a_config_that_was_never_run_gives_way_to_another_request(asked):
    sft, aligned, reward_model, prompts = map(str, asked.values())
    path, _ = prepared(sft, aligned, reward_model, "1,2", prompts)
    former = path.read_text()
    same, said = prepared(sft, aligned, reward_model, "1,2,3", prompts, generate={"max_tokens": 64})
    assert same == path
    assert said == [
        f"{path}: has no results yet, and is rewritten: generate.max_tokens is 2048, but 64 was asked for"
    ]
    assert folder.read_config(Path("out")).generate.max_tokens == 64
    assert Path("out/config.yaml.old").read_text() == former
    looked = Path("out/results/pairs/aligned/preflight.json")  # of a first run that failed early
    looked.parent.mkdir(parents=True)
    looked.touch()
    assert len(prepared(sft, aligned, reward_model, "1,2,3", prompts, generate={"max_tokens": 32})[1]) == 1
    path.write_text("models: {}\n")  # not of `expoflow run`
    with pytest.raises(create.ConfigError, match="change it there and run"):
        prepared(sft, aligned, reward_model, "1,2", prompts)


SETTINGS = ["--field", "text", "--max-tokens", "64", "--temperature", "0", "--samples", "2"]


def test_what_generates_is_asked_for_by_flags(asked, monkeypatch):
    asked["--prompts"].write_text(json.dumps({"text": "Hello?"}) + "\n")
    started = []
    monkeypatch.setattr(folder, "run_workflow", lambda *given: started.append(given) or 0)
    assert run("run", *options(asked), *SETTINGS, "--engine", "transformers", "mine", "--", "--cores", 2) == 0
    ((path, where, arguments),) = started
    assert (path, where, arguments) == (Path("mine/config.yaml"), Path("mine"), ["--cores", "2"])
    config = folder.read_config(Path("mine"))
    generate = config.generate
    assert (generate.max_tokens, generate.temperature, generate.samples) == (64, 0, 2)
    assert (generate.engine, config.prompts["dev"].field) == ("transformers", "text")
    assert run("run", "mine", "--out", "other") == 2


CHAT = "{% for each in messages %}{{ each.content }} {% endfor %}"


@pytest.fixture
def apart(asked, monkeypatch, tmp_path):
    """A config with relative paths in a folder, as the config of a clone, and what `run` starts."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("sft", "aligned"):
        os.symlink(asked[f"--{name}"], home / name)
    shutil.copy(asked["--prompts"], home / "dev.jsonl")
    (home / "chat.jinja").write_text(CHAT)
    data = {
        "models": {"sft": {"path": "sft"}, "aligned": {"path": "aligned", "chat_template": "chat.jinja"}},
        "pairs": {"mine": {"sft": "sft", "aligned": "aligned", "alphas": [0.3]}},
        "prompts": {"dev": {"file": "dev.jsonl"}},
        "generate": {"max_tokens": 16},
    }
    (home / "my.yaml").write_text(yaml.safe_dump(data))
    started = []
    monkeypatch.setattr(folder, "run_workflow", lambda *given: started.append(given[:2]) or 0)
    return home, started


def test_paths_in_a_config_are_relative_to_its_folder_wherever_it_is_run(apart, capsys):
    home, started = apart
    assert run("run", "--config", home / "my.yaml") == 0
    assert run("run", "--config", home / "my.yaml", "--out", "there") == 0
    assert started == [(home / "my.yaml", home), (Path("there/config.yaml"), Path("there"))]
    config = folder.read_config(Path("there"))
    assert config.models["sft"].path == str(home / "sft")
    assert config.prompts["dev"].file == str(home / "dev.jsonl")
    for option in ("--config", "--configfile"):
        assert run("plan", option, home / "my.yaml", "--offline") == 0
        assert "mine" in capsys.readouterr().out
    assert run("plan", "there", "--offline") == 0
    assert run("status", "--config", home / "my.yaml", "--out", "there") == 0
    assert "models" in capsys.readouterr().out
    Path("there/config.yaml").write_text("models: {}\n")
    assert run("run", "--config", home / "my.yaml", "--out", "there") == 2
    assert "there/config.yaml: is a different config; run that one, or give" in capsys.readouterr().err


def test_a_plan_says_for_what_a_run_would_not_begin(apart, capsys):
    home, _ = apart
    data = yaml.safe_load((home / "my.yaml").read_text())
    data |= {"reward_model": "rm", "benchmarks": {"reward": {"prompts": "test"}}}
    data["models"]["rm"] = {"hub": "org/rm-7b"}
    data["models"]["sft"]["chat_template"] = "chat.jinja"
    data["prompts"]["test"] = {"file": "dev.jsonl"}
    (home / "my.yaml").write_text(yaml.safe_dump(data))
    assert run("plan", "--config", home / "my.yaml", "--offline") == 0
    said = capsys.readouterr().out
    assert "tokens, at most" in said
    assert (
        "WARNING: a run would not begin: pairs.mine.benchmarks.reward.prompts: all prompts of 'test' choose alpha too"
        in said
    )


def test_a_rehearsal_has_a_folder_of_its_own(apart, capsys):
    home, started = apart
    assert run("run", "--config", home / "my.yaml", "--limit", 2) == 0
    assert "a rehearsal on the first 2 prompts of every set, in" in capsys.readouterr().err
    assert run("run", "--config", home / "my.yaml", "--limit", 3) == 0
    assert started == [(home / "rehearsal/config.yaml", home / "rehearsal")] * 2
    config = folder.read_config(home / "rehearsal")
    assert (config.limit, config.models["sft"].path) == (3, str(home / "sft"))
    assert not (home / "config.yaml").exists()
    assert run("run", "--config", home / "my.yaml", "--limit", 1) == 2
    (home / "results").mkdir()
    assert run("clean", "--config", home / "my.yaml", "--yes") == 0
    assert not (home / "rehearsal").exists()
    (home / "rehearsal").mkdir()  # somebody else's
    assert run("clean", home, "--yes") == 0
    assert (home / "rehearsal").exists()
    assert (home / "my.yaml").exists()


def test_a_dry_run_writes_nothing(asked, capfd):
    (asked["--aligned"] / "chat_template.jinja").write_text(CHAT)
    del asked["--reward-model"]
    for option in (["--dry-run"], ["--", "-n"], ["--", "-pn"], ["--", "--dry-"]):
        assert run("run", *options(asked), "--alphas", "0.3", *option) == 0, capfd.readouterr().err
        assert os.listdir() == []
        assert "certify" in capfd.readouterr().out
    with pytest.raises(SystemExit, match="2"):  # no command but run has arguments behind --
        run("status", "--", "-n")


def test_init_writes_a_starter_and_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("init") == 0
    assert sorted(os.listdir()) == ["config.yaml", "schema.json", "slurm"]
    text = Path("config.yaml").read_text()
    assert "#   expoflow run --config config.yaml\n" in text
    assert folder.read_config(Path()).pairs.keys() == {"mine"}
    Path("schema.json").unlink()
    capsys.readouterr()
    assert run("init") == 2
    assert "expoflow: config.yaml: exists; remove it, or name another folder" in capsys.readouterr().err
    assert Path("config.yaml").read_text() == text
    assert not Path("schema.json").exists()


def test_status_says_what_is_there_and_what_is_missing(tmp_path, capsys):
    run("init", tmp_path)
    model = tmp_path / "results/models/my-sft.json"
    model.parent.mkdir(parents=True)
    model.write_text("x" * 2_500_000)
    capsys.readouterr()
    assert run("status", tmp_path) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    said = {label: text.strip() for label, text in lines.items()}
    assert said["run"] == "not running"
    assert said["models"] == "1 of 3; missing: results/models/my-dpo.json, ..."
    assert said["mine: score"].startswith("0 of 7; missing: results/pairs/mine/alpha=-1/dev.rewards.csv")
    assert said[f"{tmp_path}/results/models"] == "2.5 MB"


@pytest.mark.parametrize("name", ["ü", os.fsdecode(b"n\xff")])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_folder_may_have_any_name(tmp_path, name, encoding):
    assert main(["init", str(tmp_path / name)]) == 0
    command = [sys.executable, "-m", "expoflow.cli", "status", name]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert (run.returncode, run.stderr) == (0, b"")
    shown = name if (name, encoding) == ("ü", "utf-8") else ascii(name)[1:-1]
    assert f"\n{shown}/results/models" in run.stdout.decode(encoding)


def test_no_run_begins_in_a_folder_whose_name_is_no_text(asked, capsys):
    name = os.fsdecode(b"n\xff")
    assert run("run", *options(asked), "--alphas", "0.3", "--out", name) == 2
    assert ": its name is not UTF-8; name another folder with --out" in capsys.readouterr().err
    assert os.listdir() == []


def test_closed_streams_are_read_by_nobody(tmp_path):
    main(["init", str(tmp_path)])
    for place, status in ((tmp_path, 0), (tmp_path / "gone", 2)):
        command = [sys.executable, "-m", "expoflow.cli", "status", str(place)]
        line = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
        assert subprocess.run(line).returncode == status


def test_a_reader_that_has_read_enough_ends_it_in_silence(tmp_path):
    main(["init", str(tmp_path)])
    reader, output = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "expoflow.cli", "status", str(tmp_path)]
    run = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True)
    os.close(output)
    assert (run.returncode, run.stderr) == (128 + signal.SIGPIPE, "")


def test_status_of_no_project_is_an_error(tmp_path, capsys):
    assert run("status", tmp_path) == 2
    assert f"{tmp_path}: no config.yaml; name a project's folder" in capsys.readouterr().err


@pytest.fixture
def filled(store):
    """A store with something of ours, and something that is not."""
    kinds = [f"{kind}/ab/x.json" for kind in ("checks", "classes", "whole")]
    for name in ("generations/ab/x.jsonl", "converted/model-1/model.safetensors", *kinds, "others/keep"):
        (store / name).parent.mkdir(parents=True)
        (store / name).write_text("0" * 1000)
    return store


def test_clean_frees_what_the_store_holds_and_nothing_else(filled, capsys):
    assert run("clean") == 2
    assert "nothing was removed; confirm with --yes" in capsys.readouterr().err
    assert (filled / "generations/ab/x.jsonl").exists()
    assert run("clean", "--yes") == 0
    assert {path.name for path in filled.rglob("*") if path.is_file()} == {"keep", "in-use.lock"}
    assert run("clean", "--yes") == 0
    assert "nothing to free" in capsys.readouterr().out


def test_a_run_is_seen_and_keeps_the_store(filled, tmp_path, capsys):
    """A real Snakemake, in the middle of a job."""
    (tmp_path / "Snakefile").write_text(
        "from expoflow import store\nonstart:\n    store.use()\n"
        'rule all:\n    output: "done"\n    shell: "touch begun; sleep 60"\n'
    )
    run("init", tmp_path)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all", "--directory", tmp_path]
    with subprocess.Popen(
        [*command, "--snakefile", tmp_path / "Snakefile"], start_new_session=True
    ) as process:
        try:
            while not (tmp_path / "begun").exists() and process.poll() is None:
                time.sleep(0.1)
            assert run("clean", "--yes") == 2
            assert f"{tmp_path} (process {process.pid})" in capsys.readouterr().err
            assert run("status", tmp_path) == 0
            assert f"running, process {process.pid}" in capsys.readouterr().out
        finally:
            os.killpg(process.pid, 9)
    assert run("status", tmp_path) == 0
    assert "locked, but run by no process" in capsys.readouterr().out
    assert run("clean", "--yes") == 0
