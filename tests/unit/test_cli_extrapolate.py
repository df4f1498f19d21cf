"""The commands `extrapolate`, `preflight` and `inspect`, as a user runs them."""

import os
import shutil
import subprocess
import sys

import pytest
from checkpoints import load, same_bits, save, weights, write_holes
from expoflow.cli import main
from expoflow.extrapolation.tensor_stream import tensors


def run(*arguments):
    return main([str(each) for each in arguments])


def pair_of(pair):
    return ["--sft", pair[0], "--aligned", pair[1]]


def test_one_alpha_goes_to_out_itself(make_pair, tmp_path, capsys):
    pair = make_pair()
    assert run("extrapolate", *pair_of(pair), "--alpha", "0.30", "--out", tmp_path / "out") == 0
    assert same_bits(load(tmp_path / "out"), dict(sorted(tensors(*pair, 0.3))))
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out'}: alpha 0.3 (effective 0.29")


def test_several_alphas_go_to_a_folder_each(make_pair, tmp_path):
    pair = make_pair()
    assert (
        run(
            "extrapolate",
            *pair_of(pair),
            "--alpha=0.3",
            "--alpha=-0.5",
            "--alpha=1.0",
            "--out",
            tmp_path / "out",
        )
        == 0
    )
    assert sorted(os.listdir(tmp_path / "out")) == ["alpha=-0.5", "alpha=0.3", "alpha=1"]
    assert run("inspect", tmp_path / "out" / "alpha=1") == 0


def test_one_model_twice_is_refused(make_pair, tmp_path, capsys):
    aligned = make_pair()[1]
    shutil.copytree(aligned, tmp_path / "copy")
    for other in (aligned, tmp_path / "copy"):
        for more in ([], ["--dry-run"]):
            asked = ["--alpha", "0.3", "--out", tmp_path / "out", *more]
            assert run("extrapolate", *pair_of((other, aligned)), *asked) == 2
            said = capsys.readouterr().err
            assert (
                f"expoflow: {other} and {aligned} have the same weights: there is nothing to extrapolate;"
                in said
            )
    assert not (tmp_path / "out").exists()


def test_options_reach_the_recipe(make_pair, tmp_path, capsys):
    arguments = [
        "--alpha",
        "0.3",
        "--out",
        tmp_path / "out",
        "--dtype",
        "float32",
        "--threads",
        "1",
        "--hash-outputs",
    ]
    assert (
        run(
            "extrapolate", *pair_of(make_pair()), *arguments, "--alpha-for", "mlp=0.5", "--alpha-for", "a=b=2"
        )
        == 0
    )
    capsys.readouterr()
    assert run("inspect", tmp_path / "out") == 0
    text = capsys.readouterr().out
    for line in (
        "architecture  LlamaForCausalLM",
        "types         F32 x 21",
        "extrapolated  alpha 0.3, effective",
        "alpha for     mlp = 0.5",
        "alpha for     a=b = 2",
        "tokenizer     tokenizer.json",
        "sha256        3 of 3 files as recorded\n",
    ):
        assert line in text


def test_a_dry_run_writes_nothing(make_pair, tmp_path, capsys):
    pair = make_pair()
    before = sorted(os.listdir(tmp_path))
    assert (
        run(
            "extrapolate",
            *pair_of(pair),
            "--alpha=0.3",
            "--alpha=1",
            "--out",
            tmp_path / "out",
            "--dry-run",
            "--alpha-for",
            "norm=0",
        )
        == 0
    )
    assert sorted(os.listdir(tmp_path)) == before
    text = capsys.readouterr().out
    assert "alpha-for norm: matches 5 tensors" in text
    assert f"to {tmp_path / 'out' / 'alpha=0.3'}" in text
    (tmp_path / "there").mkdir()
    assert run("extrapolate", *pair_of(pair), "--alpha", "0.3", "--out", tmp_path / "there", "--dry-run") == 2


def test_problems_are_one_line_each_without_a_traceback(make_pair, tmp_path, capsys):
    pair = make_pair(aligned={"tied": True})
    assert run("extrapolate", *pair_of(pair), "--alpha", "0.3", "--out", tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("expoflow: ") for line in lines)
    assert run("inspect", tmp_path / "nowhere") == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--alpha", "much"],
        ["--alpha", "nan"],
        ["--alpha=0.3", "--alpha-for", "mlp"],
        ["--alpha=0.3", "--alpha-for", "(=1"],
        [],
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(SystemExit) as caught:
        run("extrapolate", "--sft", "a", "--aligned", "b", "--out", "c", *arguments)
    assert caught.value.code == 2


def test_preflight_prints_a_table_and_says_by_its_status(make_pair, capsys):
    pair = make_pair(sft={"vocab": 322, "tokens": 322, "rope_theta": 1.0}, aligned={"rope_theta": 2.0})
    assert run("preflight", *pair_of(pair)) == 1
    text = capsys.readouterr().out
    assert (
        "warning  config      config rope_parameters.rope_theta is 1.0 in sft and 2.0 in aligned; aligned's is kept\n"
        in text
    )
    assert (
        "error    vocabulary  tensor lm_head.weight is 322x32 in sft and 320x32 in aligned; set vocab" in text
    )
    assert text.endswith("2 errors; 21 of 21 tensors to extrapolate\n")
    assert run("preflight", *pair_of(pair), "--vocabulary", "shared_rows") == 1  # weights of two models
    assert "error    likeness    this aligned model does not look trained" in capsys.readouterr().out
    assert run("preflight", *pair_of(pair), "--vocabulary", "shared_rows", "--unrelated") == 0
    assert "warning  likeness    this aligned model does not look trained" in capsys.readouterr().out


WITHOUT_TORCH = "import sys; from expoflow.cli import main; status = main(); assert 'torch' not in sys.modules; sys.exit(status)"


@pytest.mark.parametrize("alpha", ["0.3", "-0.5"])
def test_extrapolating_imports_no_torch(make_pair, tmp_path, alpha):
    command = [sys.executable, "-c", WITHOUT_TORCH, "extrapolate", *map(str, pair_of(make_pair()))]
    command += [f"--alpha={alpha}", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "recipe.json").is_file()


def test_preflight_reads_a_sample_of_the_weights_alone(tmp_path):
    folders = [write_holes(tmp_path / role, 100) for role in ("sft", "aligned")]
    command = [
        sys.executable,
        "-c",
        "import sys; from expoflow.cli import main; sys.exit(main())",
        "preflight",
        "--sft",
        *folders[:1],
        "--aligned",
        *folders[1:],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "0 errors; 21 of 21 tensors" in done.stdout


def test_inspect_finds_a_changed_file(make_pair, tmp_path, capsys):
    out = tmp_path / "out"
    run("extrapolate", *pair_of(make_pair()), "--alpha", "0.3", "--out", out, "--hash-outputs")
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-7] ^= 4
    (out / "model.safetensors").write_bytes(data)
    (out / "tokenizer.json").unlink()
    capsys.readouterr()
    assert run("inspect", out) == 1
    printed = capsys.readouterr()
    assert "sha256        1 of 3 files as recorded" in printed.out
    assert "model.safetensors: has sha256" in printed.err
    assert "tokenizer.json: is missing" in printed.err


def test_inspect_describes_any_checkpoint(tmp_path, capsys):
    folder = save(tmp_path / "model", weights(), shards=2, quantization_config={"quant_method": "awq"})
    assert run("inspect", folder) == 0
    text = capsys.readouterr().out
    assert "parameters    41,120 in 21 tensors" in text
    assert "error         the model is quantised (awq)" in text
