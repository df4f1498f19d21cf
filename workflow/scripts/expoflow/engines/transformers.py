"""The transformers engine: batched sampling on the CPU or a GPU, one random stream per request."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig

from expoflow.config import GenerateConfig
from expoflow.engines import Completion, Request

# Tokens (prompt and response, padding included) whose keys and values are held at a time.
BATCH_TOKENS = 32768


class TransformersEngine:
    """A causal language model from a checkpoint folder."""

    def __init__(self, folder: Path, weights: Iterable[tuple[str, Tensor]] | None = None):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = load_model(folder, weights).to("cuda" if torch.cuda.is_available() else "cpu")
        self.stop = _stop_ids(self.model)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], config: GenerateConfig) -> list[Completion]:
        """Answer every request, in order; batches go by prompt length under a token budget."""
        completions: dict[int, Completion] = {}
        for batch in _batches(requests, config.max_tokens):
            tokens = self._sample([requests[index] for index in batch], config)
            completions |= zip(batch, map(self._completion, tokens), strict=True)
        return [completions[index] for index in range(len(requests))]

    def _completion(self, tokens: list[int]) -> Completion:
        stopped = bool(tokens) and tokens[-1] in self.stop
        tokens = tokens[:-1] if stopped else tokens
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return Completion(text, len(tokens), "stop" if stopped else "length")

    def _sample(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[int]]:
        """Response token ids of one left-padded batch, each to its stop token where it has one."""
        device = self.model.device
        longest = max(len(request.token_ids) for request in requests)
        ids = torch.zeros(len(requests), longest, dtype=torch.long)
        mask = torch.zeros(len(requests), longest, dtype=torch.long)
        for row, request in enumerate(requests):
            ids[row, longest - len(request.token_ids) :] = torch.tensor(request.token_ids)
            mask[row, longest - len(request.token_ids) :] = 1
        uniforms = _uniforms([request.seed for request in requests], config.max_tokens).to(device)
        stop = torch.tensor(sorted(self.stop), device=device)
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        counts = torch.zeros(len(requests), self.model.config.vocab_size, device=device)
        cache, running, steps = DynamicCache(), torch.ones(len(requests), dtype=torch.bool, device=device), []
        for step in range(config.max_tokens):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            token = sample(output.logits[:, -1].float(), counts, uniforms[:, step], config)
            steps.append(torch.where(running, token, -1))
            running = running & ~torch.isin(token, stop)
            if not running.any():
                break
            counts[torch.arange(len(requests)), token] += 1
            ids, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(requests), 1)], dim=1)
        rows = torch.stack(steps, dim=1).tolist()
        return [[token for token in row if token >= 0] for row in rows]


def load_model(folder: Path, weights: Iterable[tuple[str, Tensor]] | None) -> torch.nn.Module:
    """The model of a checkpoint folder in its own dtype, its tensors from `weights` where given."""
    if weights is None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):  # the class alone is wanted: only it takes a state dict without a folder
        architecture = type(AutoModelForCausalLM.from_config(config))
    model = architecture.from_pretrained(None, config=config, state_dict=dict(weights), dtype=config.dtype)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()


def sample(logits: Tensor, counts: Tensor, uniforms: Tensor, config: GenerateConfig) -> Tensor:
    """Draw the next token of every row.

    Penalties, temperature, top-k and top-p are applied in vLLM's order: presence and frequency count
    the generated tokens only, top-k comes before top-p. The draw inverts the cumulative distribution.

    Args:
        logits: (batch, vocabulary), float32.
        counts: (batch, vocabulary), how often the response has each token so far.
        uniforms: (batch,), random numbers in [0, 1).
        config: temperature 0 takes the most likely token.

    Returns:
        (batch,) token ids.
    """
    logits = logits - config.presence_penalty * (counts > 0) - config.frequency_penalty * counts
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    size = logits.shape[-1]
    ranked, tokens = torch.topk(logits / config.temperature, min(config.top_k or size, size), dim=-1)
    probability = ranked.softmax(dim=-1)
    nucleus = probability.cumsum(dim=-1) - probability < config.top_p
    kept = (probability * nucleus).cumsum(dim=-1)
    rank = (kept <= uniforms[:, None] * kept[:, -1:]).sum(dim=-1)
    rank = torch.minimum(rank, nucleus.sum(dim=-1) - 1)  # rounding may reach the nucleus' end
    return tokens.gather(1, rank[:, None])[:, 0]


def _uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """(len(seeds), steps) random numbers in [0, 1), each row from its own seed."""
    generator = torch.Generator()
    return torch.stack([torch.rand(steps, generator=generator.manual_seed(seed)) for seed in seeds])


def _batches(requests: Sequence[Request], max_tokens: int) -> list[list[int]]:
    """Indices of the requests in batches of similar prompt length, at most BATCH_TOKENS each."""
    batches: list[list[int]] = []
    for index in sorted(range(len(requests)), key=lambda i: (len(requests[i].token_ids), i)):
        room = BATCH_TOKENS // (len(requests[index].token_ids) + max_tokens)
        if not batches or len(batches[-1]) >= max(room, 1):
            batches.append([])
        batches[-1].append(index)
    return batches


def _stop_ids(model: torch.nn.Module) -> set[int]:
    """The tokens that end a response: generation_config's, else config's."""
    stop = model.generation_config.eos_token_id
    stop = model.config.eos_token_id if stop is None else stop
    return set(stop) if isinstance(stop, list) else {stop} - {None}
