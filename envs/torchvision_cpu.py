"""Make PyPI's torchvision importable beside the CPU build of torch.

It is built for CUDA, and its kernels are missing there. Two of them are declared here as operators without
a kernel, since vLLM's image classes need only torchvision's Python code.
"""

import importlib.util
from pathlib import Path

DECLARED = """

if not _has_ops():
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""

path = Path(importlib.util.find_spec("torchvision").origin).with_name("extension.py")
if DECLARED not in path.read_text():
    path.write_text(path.read_text() + DECLARED)
