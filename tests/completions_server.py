"""An OpenAI-compatible completions server on a checkpoint: token ids in, echoed log-probabilities or text out."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@contextmanager
def serving(folder: Path, name: str | None = None):
    """Yields (base URL, list of the requests' bodies); `name` is what the model is called, by default its folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    asked, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply({"data": [{"id": name or str(folder)}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock, torch.inference_mode():
                asked.append(body)
                answer = echo if body.get("echo") else complete
                choices = [answer(body, ids) | {"index": i} for i, ids in enumerate(body["prompt"])]
            self.reply({"object": "text_completion", "choices": choices})

        def reply(self, value):
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    def echo(body, ids):
        logits = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
        given = [None, *logits[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()]
        best = [None, *logits[:-1].max(-1).values.tolist()]
        last = logits[-1].max().item()
        return {
            "text": "",
            "logprobs": {
                "token_logprobs": [*given, last],
                "top_logprobs": [None, *({"best": value} for value in best[1:]), {"best": last}],
            },
        }

    def complete(body, ids):
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            max_new_tokens=body["max_tokens"],
            do_sample=False,
        )
        text = tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
        for stop in body["stop"]:
            text = text.split(stop)[0]
        return {"text": text}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
