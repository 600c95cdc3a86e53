#!/usr/bin/env bash
# On two GPUs of one machine: a worker whose engine is split in two by tensor parallel over Ray, behind a gateway. It is
# the way of a model larger than a node (deploy/kubernetes/multi-node), on one. Needs the extras vllm and ray. Weights are
# random: this tells that it starts, serves, frees both GPUs when it ends, and ends when Ray loses a part of the engine.
#
#     tests/gpu/ray.sh TOKENIZER_DIR OUT_DIR
#
# TOKENIZER_DIR as in overload.sh. Five minutes. Ends with "ray: all is well", and otherwise with an exit code.
set -euo pipefail
tokenizer_dir=$1 out=$2
cd "$(dirname "$0")/../.."
. tests/gpu/stand.sh
log=$out/ray.log

engine_processes() { nvidia-smi --query-compute-apps=pid,gpu_uuid --format=csv,noheader | tee -a "$out/processes.txt"; }
gpus_in_use() { engine_processes | cut -d, -f2 | sort -u | wc -l; }
expect() { # WHAT EXPECTED ACTUAL
  [ "$2" = "$3" ] || { echo "$1: expected $2, not $3" >&2; tail -30 "$log" >&2; exit 1; }
}

start_worker() { # LOG
  log=$out/$1
  RAY_ADDRESS=127.0.0.1:26379 python3 -m worker --engine vllm --model-dir "$model" --model-name bench \
    --load-format dummy --context-length 4096 --gpu-memory-utilization 0.5 --drain-grace-s 5 \
    --tensor-parallel-size 2 --distributed-executor-backend ray \
    --listen 127.0.0.1:26061 --admin-listen 127.0.0.1:0 >"$log" 2>&1 &
  worker=$!
  pids+=("$worker")
  wait_for "$log" "ready on" 300
}

expect "GPUs in use before" 0 "$(gpus_in_use)"
ray start --head --port 26379 --num-gpus 2 --include-dashboard=false --disable-usage-stats >"$out/ray.log"
# It ends every Ray of this user on this machine, not only ours.
trap 'stop; ray stop --force >>"$out/ray.log" 2>&1' EXIT

start_worker worker.log
expect "GPUs in use by the engine" 2 "$(gpus_in_use)"
python3 -m gateway --workers 127.0.0.1:26061 --listen 127.0.0.1:26051 --admin-listen 127.0.0.1:0 \
  >"$out/gateway.log" 2>&1 & pids+=($!)
wait_for "$out/gateway.log" "serves bench" 60
python3 -m tidegate.client bench --target 127.0.0.1:26051 --concurrency 1,32,128 --json | tee "$out/ray.jsonl"

kill -TERM "$worker"
wait "$worker" && code=0 || code=$?
expect "exit code of a worker that was stopped" 0 "$code"
for _ in $(seq 30); do [ "$(gpus_in_use)" = 0 ] && break; sleep 1; done
expect "GPUs in use after it" 0 "$(gpus_in_use)"

start_worker second-worker.log
kill -KILL "$(engine_processes | head -1 | cut -d, -f1)" # a node that is lost looks like this
for _ in $(seq 60); do kill -0 "$worker" 2>/dev/null || break; sleep 1; done
wait "$worker" && code=0 || code=$?
[ "$code" != 0 ] || { echo "a worker that lost half of its engine ended with 0" >&2; exit 1; }
echo "ray: all is well"
