"""`expoflow doctor`: what it finds, and what it must not show."""

import http.server
import os
import subprocess
import sys
import threading

import pytest
from fake_gpus import Gpu, fake_gpus


def doctor(folder, *arguments, **environment):
    """Exit status and lines of the doctor in a process of its own, for the hub's client reads its settings once."""
    command = [sys.executable, "-m", "expoflow.cli", "doctor", str(folder), *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture
def hub():
    """A hub that answers every question, and keeps what it was told; what is asked below /proxy is refused."""
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            self.send_response(403 if self.path.startswith("/proxy") else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_a_machine_without_gpus_and_a_hub_that_answers(tmp_path, hub):
    endpoint, asked = hub
    status, said = doctor(tmp_path, HF_ENDPOINT=endpoint, HF_TOKEN="hf_secret", CUDA_VISIBLE_DEVICES="")
    assert status == 0
    for line in ("processor  ", "memory     ", "engine     `auto` takes transformers: ", "hub cache  "):
        assert f"\n{line}" in said
    assert f"hub        {endpoint}: answers in " in said
    assert "token      found: the token in HF_TOKEN" in said
    assert "hf_secret" not in said
    assert [path for path, _ in asked] == ["/api/models?limit=1"]
    assert "hf_secret" not in str(asked)
    assert os.listdir(tmp_path) == []


def test_each_shortcoming_has_its_command(tmp_path):
    machine = fake_gpus(tmp_path / "gpus", Gpu(free=40_000), Gpu())
    status, said = doctor(
        tmp_path,
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "empty"),
        HF_TOKEN="",
        EXPOFLOW_STORE="/dev/null/store",
        **machine,
    )
    assert status == 1
    assert "GPU        0: NVIDIA H100, 41.9 GB free of 85.5 GB, driver" in said
    assert "GPU        1: NVIDIA H100, 83.9 GB free" in said
    pip = "vLLM       not installed\n           -> pip install 'expoflow[gpu]'\n"
    assert pip in said or "vLLM       0." in said
    assert "store      /dev/null/store: /dev/null cannot be written to\n           -> export EXPOFLOW" in said
    assert "hub        http://127.0.0.1:9: does not answer (" in said
    assert (
        "token      none: only gated models and `expoflow publish` need one\n           -> hf auth login"
        in said
    )


def test_a_proxy_that_refuses_is_no_hub_that_answers(tmp_path, hub):
    endpoint, _ = hub
    _, said = doctor(tmp_path, HF_ENDPOINT=f"{endpoint}/proxy")
    assert (
        f"hub        {endpoint}/proxy: answers HTTP 403\n           -> fix the network or the proxy, " in said
    )


def test_offline_nothing_is_asked(tmp_path, hub):
    endpoint, asked = hub
    status, said = doctor(tmp_path, "--offline", HF_ENDPOINT=endpoint)
    assert status == 0
    assert f"hub        {endpoint}: not asked (offline)" in said
    assert asked == []
