#!/usr/bin/env bash
# On a GPU: quantize a dense model through the gate, judge it and what AutoAWQ as shipped makes of it on two held-out
# sets, serve it with vLLM through worker and gateway, and measure whether matched calibration pays.
#
#     tests/gpu/quantize.sh MODEL_DIR OUT_DIR [HELD_OUT.jsonl] [SEEDS]
#
# Meanwhile, on two of its processor's cores each: the layers by AutoAWQ as shipped and by ours, a whole run, and the
# first use's. OUT_DIR gets figures and logs, and OUT_DIR/matched what a second run goes on from. What takes longest
# comes last, so that a run that is cut short has told the rest.
set -euo pipefail
model=$1 out=$2 held_out=${3:-bench/data/unseen_chats.jsonl} seeds=${4:-0 1 2}
cd "$(dirname "$0")/../.."
mkdir -p "$out"
work=$(mktemp -d)
export HF_HUB_OFFLINE=1
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/machine.txt" || true

pids=() slow=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" || true; done; }
trap stop EXIT

wait_for() { # FILE TEXT SECONDS
  for _ in $(seq "$3"); do
    grep -q "$2" "$1" && return
    kill -0 "${pids[@]}" 2>/dev/null || break
    sleep 1
  done
  echo "no '$2' in $1 after $3 s" >&2; tail -30 "$1" >&2; return 1
}

on_two_cores() { # FIRST_CORE NAME COMMAND...
  local first=$1 name=$2; shift 2
  { time CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=2 taskset -c "$first,$((first + 1))" python3 -m "$@"; } \
    >"$out/$name.log" 2>&1
  [ ! -f "$work/$name/report.json" ] || cp "$work/$name/report.json" "$out/$name-report.json"
}

judge() { # NAME CHECKPOINT
  python3 -m quantizer verify --model "$model" --checkpoint "$2" --json 2>"$out/verify-$1.log" \
    >"$out/$1-built-in.json" || true
  python3 -m quantizer verify --model "$model" --checkpoint "$2" --held-out "$held_out" --json 2>>"$out/verify-$1.log" \
    >"$out/$1-held-out.json" || true
}

if [ "$(nproc)" -ge 10 ]; then
  on_two_cores 0 cpu-as-shipped bench.quantizer_time --model "$model" --only as-shipped & slow=($!)
  on_two_cores 2 cpu-mended bench.quantizer_time --model "$model" --only mended & slow+=($!)
  on_two_cores 4 cpu-whole quantizer run --model "$model" --out "$work/cpu-whole" & slow+=($!)
  on_two_cores 6 cpu-first quantizer run --model "$model" --out "$work/cpu-first" --samples 16 --length 128 & slow+=($!)
  taskset -pc "8-$(($(nproc) - 1))" $$ >/dev/null
fi

echo "== quantize"
began=$SECONDS
python3 -m quantizer run --model "$model" --out "$work/awq" 2>&1 | grep -v Loading | tee "$out/run.log" || true
echo "whole run: $((SECONDS - began)) s" | tee -a "$out/run.log"
checkpoint=$work/awq
[ -d "$checkpoint" ] || checkpoint=$work/.awq.staging/checkpoint # refused: told by the gate, and measured all the same
cp "$checkpoint"/{tidegate_manifest.json,report.json,report.html} "$out/" || true

echo "== AutoAWQ as shipped"
python3 -m bench.quantizer_time --model "$model" --only as-shipped --keep "$work/shipped" 2>&1 |
  tee "$out/gpu-as-shipped.log" | tail -n 20 || true

echo "== judge both on both held-out sets"
judge ours "$checkpoint" & judges=($!)
judge as-shipped "$work/shipped" & judges+=($!)
wait "${judges[@]}"
head -c 2000 "$out"/*-held-out.json

echo "== serve"
python3 -m worker --engine vllm --model-dir "$checkpoint" --model-name awq --context-length 2048 --eager \
  --gpu-memory-utilization 0.2 --listen 127.0.0.1:26061 >"$out/worker.log" 2>&1 & pids+=($!)
python3 -m gateway --workers 127.0.0.1:26061 --listen 127.0.0.1:26051 >"$out/gateway.log" 2>&1 & pids+=($!)
if wait_for "$out/worker.log" "ready on [^ ]*: model" 180 && wait_for "$out/gateway.log" "serves awq" 60; then
  python3 -m tidegate.client chat --target 127.0.0.1:26051 --temperature 0 --system "Answer in one sentence." \
    "What is the capital of France?" 2>&1 | tee "$out/answer.txt" || true
fi
stop; pids=()

echo "== does matched calibration pay"
matched() { python3 -m bench.matched_calibration --model "$model" --work "$out/matched" --held-out "$held_out" --seeds "$@"; }
sharing=()
for seed in $seeds; do matched "$seed" >"$out/matched-$seed.log" 2>&1 & sharing+=($!); done
wait "${sharing[@]}" || true
# shellcheck disable=SC2086 # seeds are words
matched $seeds 2>"$out/matched.log" | tee "$out/matched.md"

wait "${slow[@]:-}" || true
tail -n 30 "$out"/cpu-*.log
