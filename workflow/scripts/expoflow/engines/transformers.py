"""The transformers engine: batched sampling on the CPU or a GPU, one random stream per request."""

import gc
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from expoflow.checkpoints.loading import REPORT, require_loadable, require_whole
from expoflow.checkpoints.pickles import converted
from expoflow.config.stages import GenerateConfig
from expoflow.engines import in_place, tokenizer, vision
from expoflow.engines.ahead import tensors_for
from expoflow.engines.feeding import AsGenerate, Padded
from expoflow.engines.memory import free_on_gpu, headers, loaded_in, room, token_bytes
from expoflow.engines.model import (
    Completion,
    Model,
    Pictures,
    Request,
    engine_key,
    no_token,
    require_transformers,
)
from expoflow.engines.support import context, pads, require_supported
from expoflow.errors import CheckpointError
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors_of

# Tokens (prompt and response, padding included) whose keys and values are held at a time, if there
# is room for them.
BATCH_TOKENS = 32768
SCORED_TOKENS = 4096  # the same if logits of every token are needed
BROKEN = -1  # in place of a token whose logits are not finite


class TransformersEngine:
    """A causal language model on the first GPU or the CPU.

    `dtype` and `attention` are transformers' names for the type that it computes in and its
    attention implementation. The config's values are the default.
    """

    name = "transformers"

    def __init__(self, model: Model, dtype: str | None = None, attention: str | None = None):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype, self.attention = dtype, attention
        self.parents: in_place.Parents | None = None
        self._load(model)

    def move(self, model: Model) -> None:
        """Switch to another model's weights, tokenizer, template and stop tokens.

        Weights are replaced tensor by tensor, in place. For another alpha of the same pair no file
        is read (see `in_place`). Raises CheckpointError for another architecture, and what reading
        the weights raises. The engine is unusable after an error.
        """
        tokenizer.require_same_architecture(self.key, self.loaded, model, self.name)
        if self._fits(model):
            state = self.model.state_dict()
            if model.streamed:
                kept, self.parents = self.parents, None
                again = model.streamed.same_pair(self.loaded.streamed)
                self.parents = in_place.moved(kept, model.streamed, state, self._needed(), again)
            if not (model.streamed and self.parents):
                with torch.no_grad():
                    for name, tensor in tensors_for(_streamed(model), self.device):
                        if name in state:  # other tensors are constants that the class computes
                            state[name].copy_(tensor)
            self._describe(model)
        else:
            self.close()
            self._load(model)

    def close(self) -> None:
        """Free the model's memory."""
        del self.model
        self.parents = None
        if self.device == "cuda":
            gc.collect()  # transformers leaves a reference cycle around the first model
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], config: GenerateConfig, done: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer the requests whose index is not in `done`; see `Engine.generate`.

        Batches are formed by prompt length under a token budget, whatever is `done`. So what is
        left of a batch is generated in its original batch.
        """
        for batch in self._batches(requests, config):
            if not all(index in done for index in batch):
                for finished in self._sample([requests[index] for index in batch], config):
                    yield [
                        (batch[row], self._completion(requests[batch[row]], tokens))
                        for row, tokens in finished
                        if batch[row] not in done
                    ]

    @torch.inference_mode()
    def logps(
        self, rows: Sequence[tuple[list[int], list[int]]], pictures: Sequence[Pictures | None] = ()
    ) -> Iterator[list[tuple[int, float]]]:
        """Yield the log-probability of given responses; see `Engine.logps`.

        Raises CheckpointError for a class that is not causal.
        """
        self._require_causal()
        for batch, ids in padded(rows, [index for index, each in enumerate(pictures) if each]):
            seen = self._features([pictures[index] for index in batch] if pictures else [], ids.shape[1])
            logits = self.model(input_ids=ids.to(self.device), use_cache=False, **seen).logits
            yield list(
                zip(
                    batch, response_logps(logits, ids, [rows[index] for index in batch]).tolist(), strict=True
                )
            )

    @torch.inference_mode()
    def written(
        self, requests: Sequence[Request], config: GenerateConfig
    ) -> Iterator[list[tuple[int, list[int]]]]:
        """Yield answers as (index, token ids), in the order of `generate`.

        The last token is the stop token that ended the answer, or BROKEN, or neither if it was cut
        off.
        """
        for batch in self._batches(requests, config):
            for finished in self._sample([requests[index] for index in batch], config):
                yield [(batch[row], tokens) for row, tokens in finished]

    def _load(self, model: Model) -> None:
        config = tokenizer.config(model)
        require_transformers(model)
        require_supported(config, model.folder, self.name, model.trust_remote_code)
        architecture = require_loadable(model.folder, headers(model), remote=model.trust_remote_code)
        weights = dict(tensors_of(_streamed(model)))
        loaded, report = architecture.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=self.dtype or loaded_in(config, weights.values(), model.folder, self.device),
            attn_implementation=self.attention,
            **REPORT,
        )
        require_whole(report, model.folder, "language model")
        self.names = frozenset(weights)
        self.model = loaded.eval().to(self.device)
        self.pads, self.causal = pads(architecture, loaded.config), False
        self.room = (
            room(loaded.config, self.model.dtype.itemsize, free_on_gpu(model))
            if self.device == "cuda"
            else BATCH_TOKENS
        )
        self._describe(model)

    def _batches(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[int]]:
        seqs = self.loaded.engine.max_num_seqs or len(requests)
        return _batches(requests, config.max_tokens, self.pads, self.room, seqs)

    def _needed(self) -> int:
        """Return the bytes of GPU memory to keep free besides the weights.

        A batch may take them (see `memory.room`), or they are outside the engine's share.
        """
        if self.device == "cpu":
            return 0
        batch = min(BATCH_TOKENS, self.room) * token_bytes(self.model.config, self.model.dtype.itemsize)
        others = (1 - self.loaded.engine.utilization(usual=1)) * torch.cuda.mem_get_info()[1]
        return 3 * batch // 2 + int(others)

    def _describe(self, model: Model) -> None:
        self.loaded, self.key = model, engine_key(model, self.name)
        self.tokenizer, self.stop = tokenizer.tokenizer(model), tokenizer.stop_ids(model)
        self.context = model.engine.shortened(context(self.model.config))

    def _fits(self, model: Model) -> bool:
        """Whether `model` has the tensors that were loaded, and the class has each under its name.

        False if two of them share memory: transformers ties tensors that are stored twice if they
        are equal, and they need not be equal in `model`.
        """
        state, shapes = self.model.state_dict(), dict(_shapes(model))
        given = {name: shape for name, shape in shapes.items() if name in state}
        places = {state[name].data_ptr() for name in given}
        return (
            self.names == shapes.keys()
            and len(places) == len(given)
            and all(tuple(state[name].shape) == shape for name, shape in given.items())
            and all(parameter.data_ptr() in places for parameter in self.model.parameters())
        )

    def _features(self, pictures: Sequence[Pictures | None], length: int) -> dict[str, Tensor]:
        """Return the processor's features of a row's images, for token ids of this length.

        The result is empty for rows without images.
        """
        if not any(pictures):
            return {}
        (one,) = pictures  # such a row is a separate batch
        found = vision.processor(self.loaded, self.tokenizer).features(one, length)
        return {name: value.to(self.device) for name, value in found.items()}

    def _require_causal(self) -> None:
        """Raise CheckpointError if a token's logits depend on later tokens.

        No likelihood can be computed for such a model.
        """
        if self.pads or self.causal:
            return
        ids = (
            torch.arange(8, device=self.device).repeat(2, 1) % self.model.config.get_text_config().vocab_size
        )
        ids[1, -1] = 0
        one, other = self.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max())):
            raise CheckpointError(
                f"{self.loaded.folder}: in {type(self.model).__name__} tokens see later tokens, so no likelihood can"
                " be computed; choose by reward (select.by)"
            )
        self.causal = True

    def _completion(self, request: Request, tokens: list[int]) -> Completion:
        if tokens[-1] == BROKEN:
            raise no_token(self.loaded, request, len(tokens))
        return tokenizer.completion(self.tokenizer, tokens, self.stop)

    def _sample(
        self, requests: Sequence[Request], config: GenerateConfig
    ) -> Iterator[list[tuple[int, list[int]]]]:
        """Yield after every step the rows of one batch that finished, each with its tokens.

        A row ends with BROKEN if its logits are not finite. Finished rows leave the batch when they
        are half of it, if the batch can drop rows.
        """
        prompts = [request.token_ids for request in requests]
        seen = self._features([request.pictures for request in requests], len(prompts[0]))
        batch = Padded(self.model, prompts) if self.pads else AsGenerate(self.model, prompts, seen)
        device = self.model.device
        limits = torch.tensor(
            [min(config.max_tokens, self.context - len(request.token_ids)) for request in requests]
        ).to(device)
        uniforms = _uniforms([request.seed for request in requests], config.max_tokens).to(device)
        stop = torch.tensor(sorted(self.stop), device=device)
        counts = torch.zeros(len(requests), self.model.config.get_text_config().vocab_size, device=device)
        rows = torch.arange(len(requests), device=device)  # the request of each line of the batch
        running = torch.ones(len(requests), dtype=torch.bool, device=device)
        written = torch.zeros(len(requests), config.max_tokens, dtype=torch.long, device=device)
        for step in range(config.max_tokens):
            logits = batch.logits()
            token = sample(logits, counts, uniforms[rows, step], config)
            # If a logit is NaN or +inf, the drawn token has the largest logit, which is not finite.
            sound = logits.gather(1, token[:, None])[:, 0].isfinite()
            written[rows, step] = token.where(sound, BROKEN)
            over = running & (~sound | torch.isin(token, stop) | (step + 1 >= limits[rows]))
            ended = rows[over]
            yield list(zip(ended.tolist(), written[ended, : step + 1].tolist(), strict=True))
            running = running & ~over
            left = int(running.sum())
            if not left:
                return
            counts[torch.arange(len(rows), device=device), token] += 1
            batch.add(token)
            if left <= len(rows) // 2:
                kept = running.nonzero()[:, 0]
                if batch.keep(kept):
                    rows, running, counts = rows[kept], running[kept], counts[kept]


def padded(
    rows: Sequence[tuple[list[int], list[int]]], alone: Collection[int] = ()
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield rows of (prompt, response) in batches of similar length.

    Each batch is the rows' indices and their token ids in one tensor. Rows are padded on the right,
    so causal attention needs no mask. Rows in `alone` do not share a batch.
    """
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index][0]) + len(rows[index][1]), index))
    while order:
        size = 1
        while (
            size < len(order)
            and (size + 1) * (sum(map(len, rows[order[size]]))) <= SCORED_TOKENS
            and not {order[0], order[size]}.intersection(alone)
        ):
            size += 1
        batch, order = order[:size], order[size:]
        longest = max(sum(map(len, rows[index])) for index in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, index in enumerate(batch):
            tokens = [*rows[index][0], *rows[index][1]]
            ids[row, : len(tokens)] = torch.tensor(tokens)
        yield batch, ids


def response_logps(logits: Tensor, ids: Tensor, rows: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """Return the log-probability of every row's response, float64 [rows]; `ids` from `padded`."""
    sums = []
    for row, (prompt, response) in enumerate(rows):
        start, stop = len(prompt), len(prompt) + len(response)
        predicted = logits[row, start - 1 : stop - 1].float().log_softmax(-1)
        given = ids[row, start:stop].to(logits.device)
        sums.append(predicted.gather(1, given[:, None]).double().sum())
    return torch.stack(sums)


def _streamed(model: Model) -> Streamed:
    """Return the source of the model's weights; stored ones are alpha 0 of the folder itself."""
    if model.streamed:
        return model.streamed
    folder = converted(model.folder)
    return Streamed(sft=folder, aligned=folder, alpha=0)


def _shapes(model: Model) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of the model's tensors, from the headers."""
    for name, tensor in headers(model).items():
        yield name, tensor.shape


def sample(logits: Tensor, counts: Tensor, uniforms: Tensor, config: GenerateConfig) -> Tensor:
    """Draw the next token of every row.

    Penalties, temperature, top-k and top-p are applied in vLLM's order: presence and frequency
    count the generated tokens only, top-k comes before top-p. The draw inverts the cumulative
    distribution.

    Args:
        logits: (batch, vocabulary), float32.
        counts: (batch, vocabulary), how often each token occurs in the response so far.
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
    # rounding may pass the end of the nucleus, and with NaN the nucleus is empty
    rank = torch.minimum(rank, nucleus.sum(dim=-1) - 1).clamp_(min=0)
    return tokens.gather(1, rank[:, None])[:, 0]


def _uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """Return (len(seeds), steps) random numbers in [0, 1), each row from its own seed."""
    generator = torch.Generator()
    return torch.stack([torch.rand(steps, generator=generator.manual_seed(seed)) for seed in seeds])


def _batches(
    requests: Sequence[Request],
    max_tokens: int,
    pads: bool = True,
    most: int = BATCH_TOKENS,
    seqs: int = BATCH_TOKENS,
) -> list[list[int]]:
    """Return the requests' indices in batches of similar prompt length.

    A batch has at most BATCH_TOKENS and `most` tokens, and at most `seqs` requests. For a class
    that does not pad, all its prompts have the same length, and a prompt with images is a separate
    batch.
    """
    batches: list[list[int]] = []
    kind = None
    for index in sorted(range(len(requests)), key=lambda i: (len(requests[i].token_ids), i)):
        length = len(requests[index].token_ids)
        rows = min(seqs, min(BATCH_TOKENS, most) // (length + max_tokens))
        last, kind = kind, (None if pads else (length, requests[index].pictures and index))
        if not batches or len(batches[-1]) >= max(rows, 1) or kind != last:
            batches.append([])
        batches[-1].append(index)
    return batches
