"""Types of elements: in headers, in torch, and as integers with the same bits."""

import torch

TORCH = {
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64,
}  # fmt: skip
KINDS = {torch_type: kind for kind, torch_type in TORCH.items()}
BITS = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


def tensor_of(view: memoryview, dtype: str) -> torch.Tensor:
    """A 1-d tensor over the bytes of `view`. They are copied only if they are not aligned for
    `dtype`."""
    kind = TORCH[dtype]
    if len(view) == 0:
        return torch.empty(0, dtype=kind)
    raw = torch.frombuffer(view, dtype=torch.uint8)
    return (raw if raw.data_ptr() % kind.itemsize == 0 else raw.clone()).view(kind)
