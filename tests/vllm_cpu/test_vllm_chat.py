"""Token ids of prompts are those of vLLM's chat endpoint, for every chat format of tests/chat_forms.py."""

import asyncio
import json
import os

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

from chat_forms import CONVERSATIONS, FORMS, SYSTEM, Form, tokenizer
from expoflow.engines.chat import Chat
from fastapi.testclient import TestClient

pytestmark = pytest.mark.vllm
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 64,
    "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 1024,
    "max_position_embeddings": 2048, "torch_dtype": "float32",
}  # fmt: skip


def endpoint(folder: str) -> TestClient:
    """vLLM's server up to the engine (`vllm launch render`): it answers a chat request with the prompt's token ids."""
    from vllm import AsyncEngineArgs
    from vllm.config import VllmConfig
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.launchers.render.app_state import init_render_app_state
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", folder])
    app = build_app(args, ("render",))
    model = AsyncEngineArgs.from_cli_args(args).create_model_config()
    asyncio.run(init_render_app_state(VllmConfig(model_config=model), app.state, args))
    return TestClient(app)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_prompts_are_those_of_the_chat_endpoint(form: Form, tmp_path):
    tokenizer(form).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    client = endpoint(os.fspath(tmp_path))
    asked = 0
    for messages in CONVERSATIONS.values():
        request = {
            "model": os.fspath(tmp_path),
            "messages": [message.model_dump() for message in messages],
            "chat_template_kwargs": {"date_string": "26 Jul 2024"},
        }
        answer = client.post("/v1/chat/completions/render", json=request)
        if form.system == "refused" and SYSTEM in messages:
            assert answer.status_code == 400
        elif form.system == "lost" and SYSTEM in messages:
            assert answer.status_code == 200  # nothing tells its user
        else:
            bos = [tokenizer(form).bos_token_id] * form.adds_what_the_template_leaves_out
            assert Chat(tokenizer(form)).token_ids(messages) == bos + answer.json()["token_ids"]
            asked += 1
    assert asked >= 2
