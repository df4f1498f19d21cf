"""A judge that knows the miniature's truth, behind a local OpenAI-compatible HTTP endpoint.

`judge: {base_url: miniature}` in a config starts it in the job that needs a judge. It reads the
same prompts as any judge: those of `miniature.mt_bench`, and those of alpaca_eval that name two
outputs m and M.
"""

import json
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from expoflow.miniature import world

TURN = re.compile(r"<question>\n(.*?)\n</question>\n<answer>\n(.*?)\n</answer>", re.DOTALL)
COMPARED = re.compile(
    r'"instruction": """(.*?)""".*"output": """(.*?)"""\s*\}.*"output": """(.*?)"""\s*\}', re.DOTALL
)


class Judging:
    """Judges by the true quality of responses in the world of one seed."""

    def __init__(self, seed: int):
        self.metas = {
            prompt.messages[0].content: prompt.meta
            for split in world.SPLITS
            for prompt in world.prompts(split, seed)
        }

    def quality(self, question: str, response: str) -> float:
        """Return the true quality; raise KeyError for a question of another world."""
        return world.truth(self.metas[question.strip()], response).quality

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the chat completion: a grade of the last turn, or the better of two outputs.

        The latter comes with log-probabilities.

        Raises ValueError for a request of another form, and KeyError for a question of another
        world.
        """
        asked = request["messages"][-1]["content"]
        if turns := TURN.findall(asked):
            quality = self.quality(*turns[-1])
            return _completion(f"True quality {quality:.2f}. Rating: [[{grade(quality):.1f}]]", asked)
        if not (match := COMPARED.search(asked)):
            raise ValueError("neither turns to grade nor two outputs to compare")
        question, first, second = match.groups()
        gain = self.quality(question, first) - self.quality(question, second)
        chances = {"m": -math.log1p(math.exp(-gain)), "M": -math.log1p(math.exp(gain))}
        better = max(chances, key=chances.get)
        tokens = [{"token": token, "logprob": chance, "bytes": None} for token, chance in chances.items()]
        logprobs = {"content": [{"token": better, "logprob": chances[better], "top_logprobs": tokens}]}
        return _completion(better, asked, logprobs)


def grade(quality: float) -> float:
    """Return a grade from 1 to 10: quality -1.5 gets 1, and the best quality, 4.5, gets 10."""
    return min(max(1.0, 1 + 1.5 * (quality + 1.5)), 10.0)


def serve(seed: int) -> str:
    """Start the endpoint, which lives as long as this process; return its address."""
    judging = Judging(seed)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, reply = 200, judging.answer(request)
            except (KeyError, ValueError) as error:
                message = f"the miniature's judge cannot judge this: {error}"
                status, reply = 400, {"error": {"message": message}}
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


def _completion(text: str, asked: str, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    usage = {"prompt_tokens": len(asked.split()), "completion_tokens": len(text.split())}
    return {"object": "chat.completion", "choices": [choice], "usage": usage}
