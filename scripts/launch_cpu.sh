#!/usr/bin/env bash
# Train with several processes on the processor, which `accelerate launch --cpu` does not.
#
#   scripts/launch_cpu.sh N --stage recognition [--option value ...]
set -euo pipefail
count=${1:?the number of processes}
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Each takes its share of the cores; together they would wait for each other on all of them.
threads=$(($(nproc) / count))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
export ACCELERATE_USE_CPU=true
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc_per_node "$count" \
    "$root/train.py" "$@"
