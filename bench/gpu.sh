#!/usr/bin/env bash
# Is this machine's GPU fine for expoflow, and how fast is it? Ten minutes at most, with torch and transformers alone.
#
#     bench/gpu.sh WORK [SECONDS]    # WORK: a folder with 45 GB free, best of all on a local disk; 600 seconds by default
#
# A step is a line of JSON in WORK/gpu.jsonl as soon as it is there, so that a run that is cut off keeps what it has; at the end
# comes a table, and what is wrong. Without a CUDA GPU the same steps run on the CPU, in tiny. vLLM is measured where it is
# installed. What else is not installed comes from wheels beside this file, without a network; to get them, elsewhere:
#
#     pip download --dest bench/wheels pydantic llvmlite psutil
#     pip download --dest bench/wheels --no-deps accelerate
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:?"usage: bench/gpu.sh WORK [SECONDS]"}
seconds=${2:-600}
python=${PYTHON:-python}
until=$(($(date +%s) + seconds))
mkdir -p "$work/expoflow-gpu-check/packages" # nothing else in WORK is changed, but for gpu.jsonl
work=$(cd "$work" && pwd)
packages=$work/expoflow-gpu-check/packages
# The library alone: beside it in workflow/scripts lie files called select.py and the like.
ln -sfn "$here/../workflow/scripts/expoflow" "$packages/expoflow"
export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$python" -c "import torch, transformers"
if ! lacking=$("$python" -c "import pydantic, llvmlite, accelerate" 2>&1); then
  if ! ls "$here"/wheels/*.whl >/dev/null 2>&1; then
    echo "$python: ${lacking##*$'\n'}; $here/wheels has no wheels, and $0 says how to get them" >&2
    exit 1
  fi
  "$python" -m pip install --quiet --no-index --no-deps --target "$packages" --upgrade "$here"/wheels/*.whl
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || true
exec "$python" "$here/gpu.py" --work "$work" --until "$until"
