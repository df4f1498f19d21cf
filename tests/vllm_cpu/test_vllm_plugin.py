"""Load format `expo`: what it accepts, and the OpenAI server as a user starts it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

import torch
from checkpoints import bits, save, weights
from expoflow.engines.model import Model
from expoflow.engines.vllm import WORKER, VllmEngine
from expoflow.engines.vllm_plugin import extra_config, parse
from expoflow.errors import CheckpointError, ConfigError, PairError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.miniature.tokenizer import tokenizer
from miniatures import answer
from transformers import Gemma4ForCausalLM, Gemma4TextConfig, LlamaForCausalLM
from vllm import _custom_ops

pytestmark = pytest.mark.vllm


def test_extra_config_goes_there_and_back():
    options = Options("bfloat16", "float32", "shared_rows", "clamp", (("mlp", 0.5), ("self_attn", -1.0)))
    streamed = Streamed(sft=Path("/sft"), aligned=Path("/aligned"), alpha=0.3, options=options)
    assert parse(json.loads(json.dumps(extra_config(streamed))), "/elsewhere") == streamed


def test_the_aligned_model_is_the_one_served():
    least = parse({"sft": "/sft", "alpha": "0.3", "alpha_for": {"mlp": 0.5}}, "/aligned")
    assert least == Streamed(
        sft=Path("/sft"), aligned=Path("/aligned"), alpha=0.3, options=Options(alpha_for=(("mlp", 0.5),))
    )


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (
            {"sft": "a", "alpha": 1, "vocabulery": "error"},
            "vocabulery: unknown key; did you mean 'vocabulary'?",
        ),
        (
            {"sft": "a", "alpha": 1, "threads": 2},
            "threads: unknown key; known keys: sft, alpha, aligned, comp",
        ),
        ({"alpha": 1}, "model-loader-extra-config sft: missing; add it"),
        ({"sft": "a", "alpha": "big"}, "alpha: 'big' is not accepted: "),
        ({"sft": "a", "alpha": 1, "compute": "float8"}, "compute: 'float8' is not accepted: "),
        ({"sft": "a", "alpha": 1, "alpha_for": {"mlp": "x"}}, "alpha_for: 'x' is not accepted: "),
    ],
)
def test_what_is_wrong_in_the_extra_config_is_named(extra, problem):
    with pytest.raises(ConfigError) as error:
        parse(extra, "/aligned")
    assert problem in str(error.value)


def test_rows_that_one_model_lacks(pair, requests, tmp_path):
    """A larger vocabulary in the aligned model: refused, or its new rows kept, as with stored weights."""
    larger = tmp_path / "larger"
    shutil.copytree(pair.aligned, larger)
    model = LlamaForCausalLM.from_pretrained(pair.aligned)
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer()) + 6)
    model.save_pretrained(larger)

    def streamed(vocabulary: str) -> Model:
        options = Options(vocabulary=vocabulary)
        return Model(
            folder=larger, streamed=Streamed(sft=pair.sft, aligned=larger, alpha=20, options=options)
        )

    with pytest.raises(PairError, match="set vocabulary: shared_rows"):
        VllmEngine(streamed("error"))
    stored = tmp_path / "stored"
    extrapolate(pair.sft, larger, {"20": stored}, Options(vocabulary="shared_rows"))
    engine = VllmEngine(streamed("shared_rows"))
    try:
        answers = answer(engine, requests)
        engine.move(Model(folder=stored))
        assert answer(engine, requests) == answers
    finally:
        engine.close()


def parents(worker):
    return worker._expo_parents


def weights_of(worker) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in worker.model_runner.get_model().named_parameters()}


def read_again(worker) -> dict[str, torch.Tensor]:
    """The weights, after they were read from the files."""
    config = worker.vllm_config
    worker._load(config.model_config.model, config.load_config.model_loader_extra_config)
    return weights_of(worker)


@pytest.mark.parametrize("packed", [False, True], ids=["as on a GPU", "packed"])
def test_another_alpha_in_place(pair, requests, monkeypatch, packed):
    """Without oneDNN the layers keep their weights as on a GPU: they have the bits of what is read. Packed ones are read."""
    monkeypatch.setattr(_custom_ops, "_supports_onednn", packed)
    engine = VllmEngine(pair.streamed(20))
    ask = engine.engine.collective_rpc
    try:
        kept = []
        for alpha in (0, 0.5, 20, -0.5, 0, -1, 0.5):
            engine.move(pair.streamed(alpha))
            kept += ask(parents)
            answers = answer(engine, requests[:20])
            (live,), (right,) = ask(weights_of), ask(read_again)
            assert live.keys() == right.keys()
            assert all(torch.equal(bits(live[name]), bits(right[name])) for name in live)
            assert answer(engine, requests[:20]) == answers
        assert kept[0] is None
        assert all(each is kept[1] for each in kept[1:])
        assert (kept[1] is None) == packed
        engine.move(pair.streamed(0.5, Options(alpha_for=(("mlp", 1.0),))))
        assert ask(parents) == [None]
    finally:
        engine.close()


def test_what_a_class_reads_into_a_buffer_is_read_at_each_move(tmp_path, monkeypatch):
    """Gemma 4 has a scale for each layer, which is no parameter of vLLM's class."""
    monkeypatch.setattr(_custom_ops, "_supports_onednn", False)
    sft, aligned = (scaled(tmp_path / f"{scale}", scale) for scale in (0.5, 0.9))
    engine = VllmEngine(Model(folder=aligned, streamed=Streamed(sft=sft, aligned=aligned, alpha=2)))
    try:
        for alpha in (0.5, 1, -0.4):
            engine.move(Model(folder=aligned, streamed=Streamed(sft=sft, aligned=aligned, alpha=alpha)))
            (found,) = engine.engine.collective_rpc(scales)
            assert found == pytest.approx([0.9 + 0.4 * alpha] * 2)
    finally:
        engine.close()


def scaled(folder: Path, scale: float) -> Path:
    """A tiny Gemma 4 whose layers have this scale."""
    torch.manual_seed(0)
    sizes = dict(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, head_dim=32
    )
    few = dict(vocab_size=160, vocab_size_per_layer_input=160, num_key_value_heads=1, global_head_dim=32)
    without = dict(hidden_size_per_layer_input=0, num_kv_shared_layers=0, enable_moe_block=False)
    config = Gemma4TextConfig(
        **sizes,
        **few,
        **without,
        max_position_embeddings=128,
        layer_types=["sliding_attention", "full_attention"],
    )
    model = Gemma4ForCausalLM(config)
    for name, tensor in model.state_dict().items():
        if name.endswith("layer_scalar"):
            tensor.fill_(scale)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def scales(worker) -> list[float]:
    """Of each layer, in a worker."""
    model = worker.model_runner.get_model()
    return [float(each) for name, each in model.named_buffers() if name.endswith("layer_scalar")]


def test_two_workers_take_another_alpha_in_place_each_in_its_share(pair):
    program = Path(__file__).with_name("in_place.py")
    told = subprocess.run(
        [sys.executable, program, pair.sft, pair.aligned], capture_output=True, text=True, timeout=300
    )
    lines = [line for line in told.stdout.splitlines() if line.startswith("told")]
    right = [f"told {alpha} (True, True) (True, True)" for alpha in ("0.5", "20", "-0.4", "0", "1.0", "3.0")]
    assert lines == right, told.stderr


def test_two_workers_each_take_their_share(pair, requests, same_as_transformers, tmp_path):
    foreign = save(tmp_path / "foreign", weights())
    engine = VllmEngine(pair.streamed(20), gpus=2)
    try:
        same_as_transformers(20, [completion.text for completion in answer(engine, requests)])
        with pytest.raises(CheckpointError, match="is 320x32 in sft and 154x64 in aligned"):
            engine.move(
                Model(folder=pair.aligned, streamed=Streamed(sft=foreign, aligned=pair.aligned, alpha=1))
            )
        for name in ("gate", "up"):  # neighbours in the file: one of each worker
            one = Options(alpha_for=((rf"layers\.0\.mlp\.{name}_proj", 1e45),))
            with pytest.raises(CheckpointError, match=f"{name}_proj.weight: .* overflow float32"):
                engine.move(pair.streamed(1, one))
        same_as_transformers(20, [completion.text for completion in answer(engine, requests)])
        for alpha in (0, 20):
            engine.move(pair.streamed(alpha))
            same_as_transformers(alpha, [completion.text for completion in answer(engine, requests)])
    finally:
        engine.close()


def server(folder: Path, extra: dict, log: Path, port: int = 0) -> subprocess.Popen:
    """vLLM's OpenAI server for `folder`, as the README says, in the type of the miniature."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder),
            *("--load-format", "expo", "--model-loader-extra-config", json.dumps(extra)),
            *("--worker-extension-cls", WORKER, "--host", "127.0.0.1", "--port", str(port)),
            *("--dtype", "float32", "--enforce-eager"),
        ],
        env={**environment, "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
    )


def post(url: str, data: dict | None = None) -> dict:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def wait_for(process: subprocess.Popen, url: str, log: Path) -> None:
    """Wait until the server answers; fail with its log if it ended."""
    while process.poll() is None:
        try:
            urllib.request.urlopen(url).close()
            return
        except urllib.error.URLError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_the_openai_server_takes_another_alpha(pair, requests, same_as_transformers, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    process = server(pair.aligned, {"sft": str(pair.sft), "alpha": 20}, log, port)

    def texts() -> list[str]:
        prompts = [request.token_ids for request in requests]
        asked = {"model": str(pair.aligned), "prompt": prompts, "temperature": 0, "max_tokens": 30}
        choices = post(f"{address}/v1/completions", asked)["choices"]
        return [choice["text"].strip() for choice in sorted(choices, key=lambda choice: choice["index"])]

    def set_alpha(alpha: float) -> dict:
        return post(f"{address}/collective_rpc", {"method": "set_alpha", "args": [alpha]})

    try:
        wait_for(process, f"{address}/health", log)
        same_as_transformers(20, texts())
        for alpha in (0, 0.5, 20):
            assert set_alpha(alpha) == {"results": [None]}
            assert post(f"{address}/reset_prefix_cache") == {"success": True}
            same_as_transformers(alpha, texts())
        assert "is not accepted" in set_alpha("big")["results"][0]
        same_as_transformers(20, texts())
    finally:
        process.terminate()
        process.wait()


def test_a_pair_that_does_not_fit_is_said_in_the_servers_log(pair, tmp_path):
    foreign, log = save(tmp_path / "foreign", weights()), tmp_path / "log"
    assert server(pair.aligned, {"sft": str(foreign), "alpha": 1}, log).wait() != 0
    assert "tensor model.embed_tokens.weight is 320x32 in sft and 154x64 in aligned" in log.read_text()
