#!/usr/bin/env bash
# Check whether this machine's GPU is fine for expoflow, and how fast it is. It takes at most ten minutes,
# and needs only torch and transformers.
#
#     bench/gpu.sh WORK [SECONDS]    # WORK: a folder with 45 GB free, best of all on a local disk; 600 seconds by default
#
# Each step appends a line of JSON to WORK/gpu.jsonl when it is done, so a run that is cut off keeps its
# results. A table, and any problems, come at the end. Without a CUDA GPU the same steps run on the CPU with
# tiny models. vLLM is measured if it is installed. Other packages that are missing are installed, without a
# network, from wheels beside this file. To get them on another machine:
#
#     pip download --dest bench/wheels pydantic llvmlite psutil
#     pip download --dest bench/wheels --no-deps accelerate
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:?"usage: bench/gpu.sh WORK [SECONDS]"}
seconds=${2:-600}
python=${PYTHON:-python}
until=$(($(date +%s) + seconds))
mkdir -p "$work/expoflow-gpu-check/packages" # only this and gpu.jsonl in WORK are changed
work=$(cd "$work" && pwd)
packages=$work/expoflow-gpu-check/packages
# Only the library: beside it in workflow/scripts are files with names such as select.py.
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
