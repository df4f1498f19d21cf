#!/usr/bin/env bash
# Everything that wants a CUDA GPU, in one call: streamed loading, a sweep over alpha and scoring, on Llamas with
# random weights in bfloat16. Needs torch and transformers; vLLM's rows come where it is installed.
#
#     bench/gpu.sh WORK            # WORK: a folder with 120 GB free; SIZES="1.1B 6.7B" and PROMPTS=1000 are the defaults
set -euo pipefail
cd "$(dirname "$0")"
work=${1:?"usage: bench/gpu.sh WORK"}
python=${PYTHON:-python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || echo "no NVIDIA GPU: on the CPU"
"$python" -c "import torch, transformers; print('torch', torch.__version__, 'transformers', transformers.__version__)"
engines=transformers
"$python" -c "import vllm" 2>/dev/null && engines="transformers vllm"
for size in ${SIZES:-1.1B 6.7B}; do
  for engine in $engines; do
    "$python" sweep.py --work "$work" --size "$size" --engine "$engine" --prompts "${PROMPTS:-1000}" --repeats "${REPEATS:-3}"
  done
done
"$python" score.py --hidden "${HIDDEN:-2048}" --layers "${LAYERS:-22}" --responses "${RESPONSES:-1000}"
