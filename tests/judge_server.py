"""A judge on 127.0.0.1 in the shape of OpenAI's API, for tests: scripted faults, every call counted.

    with JudgeServer(answer) as server:
        server.faults[3] = Fault(status=429, headers={"Retry-After": "0"})   # the call with index 3
        config = JudgeConfig(base_url=server.url, model="judge", api_key_env="")

`answer` makes the reply of a request (its JSON body): a text, or the whole completion as a dict (for
logprobs; `completion(text, logprobs=...)` makes one).
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], "str | dict[str, Any]"]


def completion(text: str | None, logprobs: dict[str, float] | None = None, usage=(100, 10)) -> dict[str, Any]:
    """A chat completion of one token or more; `logprobs`: by token, those of the first place."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if logprobs is not None:
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in logprobs.items()]
        first = {"token": text, "logprob": logprobs.get(text, -100.0), "bytes": None, "top_logprobs": top}
        choice["logprobs"] = {"content": [first]}
    prompt, reply = usage
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply},
    }


@dataclass(frozen=True)
class Fault:
    """What happens to a call instead of the right answer."""

    status: int = 200
    body: str | None = None  # as it stands: garbage
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0  # seconds without an answer; then the connection is closed


GARBAGE = Fault(body="<html>Bad gateway</html>")
EMPTY = Fault(body=json.dumps(completion(None, usage=(100, 0))))
NO_CHOICES = Fault(body=json.dumps(completion("") | {"choices": []}))


class JudgeServer:
    """Answers POST {url}/chat/completions; use as a context manager.

    `calls` are the bodies that came in, `keys` their Authorization headers, `most_at_a_time` how many were
    under way together. `faults` by the call's index, from 0. `on_call(index)` runs before an answer is sent.
    """

    def __init__(self, answer: Answer = lambda body: "[[5]]", delay: float = 0):
        self.answer, self.delay = answer, delay
        self.calls: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: dict[int, Fault] = {}
        self.always: Fault | None = None
        self.on_call: Callable[[int], None] = lambda index: None
        self.under_way = self.most_at_a_time = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> "JudgeServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with suppress(BrokenPipeError, ConnectionResetError):
                    outer._serve(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self.lock:
            index = len(self.calls)
            self.calls.append(body)
            self.keys.append(handler.headers["Authorization"])
            self.under_way += 1
            self.most_at_a_time = max(self.most_at_a_time, self.under_way)
        try:
            if handler.path != "/v1/chat/completions":
                return self._send(handler, 404, json.dumps({"error": {"message": f"no {handler.path}"}}))
            time.sleep(self.delay)
            self.on_call(index)
            fault = self.faults.get(index, self.always)
            if fault and fault.hang:
                self.closing.wait(fault.hang)
                handler.close_connection = True
            elif fault:
                error = json.dumps({"error": {"message": f"scripted {fault.status}", "code": None}})
                self._send(handler, fault.status, error if fault.body is None else fault.body, fault.headers)
            else:
                reply = self.answer(body)
                self._send(handler, 200, json.dumps(completion(reply) if isinstance(reply, str) else reply))
        finally:
            with self.lock:
                self.under_way -= 1

    def _send(self, handler: BaseHTTPRequestHandler, status: int, text: str, headers: dict = {}) -> None:  # noqa: B006
        data = text.encode()
        handler.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
