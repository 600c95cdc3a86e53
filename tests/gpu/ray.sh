#!/usr/bin/env bash
# On two GPUs of one machine: a worker whose engine is split in two by tensor parallel over Ray, behind a gateway. It is
# the way of a model larger than a node (deploy/kubernetes/multi-node), on one. Needs the extras vllm and ray. Weights are
# random: this tells that it starts, serves, frees both GPUs when it ends, and ends when Ray loses a part of the engine.
# On CPUs tests/integration/test_vllm_over_ray.py does the same.
#
#     tests/gpu/ray.sh TOKENIZER_DIR OUT_DIR
#
# TOKENIZER_DIR as in overload.sh. Four minutes, no network. Ends with "ray: all is well", or else with an exit code.
set -euo pipefail
tokenizer_dir=$1 out=$2
cd "$(dirname "$0")/../.."
. tests/gpu/stand.sh
log=$out/ray.log
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_ADDRESS=127.0.0.1:26379 VLLM_HOST_IP=127.0.0.1
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')

# By their memory: not every container shows whose it is.
gpus_in_use() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | awk '$1 > 2000' | wc -l; }
until_free() { for _ in $(seq 30); do [ "$(gpus_in_use)" = 0 ] && break; sleep 1; done; }
expect() { # WHAT EXPECTED ACTUAL
  echo "$1: $3"
  [ "$2" = "$3" ] || { echo "$1: expected $2" >&2; tail -30 "$log" >&2; exit 1; }
}

start_worker() { # LOG ARGUMENT ...
  log=$out/$1
  python3 -m worker --engine vllm --model-dir "$model" --model-name bench \
    --load-format dummy --context-length 4096 --gpu-memory-utilization 0.5 --drain-grace-s 5 \
    --tensor-parallel-size 2 --distributed-executor-backend ray \
    --listen 127.0.0.1:26061 --admin-listen 127.0.0.1:0 "${@:2}" >"$log" 2>&1 &
  worker=$!
  pids+=("$worker")
  wait_for "$log" "ready on" 240
  echo "ready after $(grep -o 'vLLM is up after.*' "$log")"
}

expect "GPUs in use before" 0 "$(gpus_in_use)"
# With --block it ends all of its node when it is ended itself.
python3 -m ray.scripts.scripts start --head --block --port 26379 --node-ip-address 127.0.0.1 --num-gpus 2 \
  --include-dashboard=false --disable-usage-stats --object-store-memory 200000000 >"$log" 2>&1 & pids+=($!)
wait_for "$log" "Ray runtime started" 60

start_worker worker.log
expect "GPUs in use by the engine" 2 "$(gpus_in_use)"
python3 -m gateway --workers 127.0.0.1:26061 --listen 127.0.0.1:26051 --admin-listen 127.0.0.1:0 \
  >"$out/gateway.log" 2>&1 & gateway=$!
pids+=("$gateway")
wait_for "$out/gateway.log" "serves bench" 60
python3 -m tidegate.client bench --target 127.0.0.1:26051 --concurrency 1,32,128 --json | tee "$out/ray.jsonl"

kill -TERM "$worker"
wait "$worker" && code=0 || code=$?
expect "exit code of a worker that was stopped" 0 "$code"
until_free
expect "GPUs in use after it" 0 "$(gpus_in_use)"

# wait_for takes the end of any of them for a failure.
pids=("${pids[0]}" "$gateway")
start_worker second-worker.log --eager
kill -KILL "$(grep -o 'RayWorkerProc pid=[0-9]*' "$log" | tail -1 | cut -d= -f2)" # a node that is lost looks like this
for _ in $(seq 60); do kill -0 "$worker" 2>/dev/null || break; sleep 1; done
! kill -0 "$worker" 2>/dev/null || { echo "a worker that lost half of its engine runs on" >&2; exit 1; }
wait "$worker" && code=0 || code=$?
echo "exit code of a worker that lost half of its engine: $code"
[ "$code" != 0 ]
until_free
expect "GPUs in use after that" 0 "$(gpus_in_use)"
echo "ray: all is well"
