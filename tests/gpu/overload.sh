#!/usr/bin/env bash
# On a GPU: the same overload against the bare engine, and against gateway and worker over gRPC, one after the other in
# one run. Weights are random: this measures admission, and says nothing of meaning.
#
#     tests/gpu/overload.sh TOKENIZER_DIR OUT_DIR [RATE ...]
#
# TOKENIZER_DIR holds tokenizer.json, tokenizer_config.json and chat_template.jinja of any model. RATE is in requests per
# second; 34 is half as much again as the engine can take. Six minutes for one rate, two more for each further one.
set -euo pipefail
tokenizer_dir=$1 out=$2
shift 2
rates=("${@:-34}")
cd "$(dirname "$0")/../.."
. tests/gpu/stand.sh
VLLM_LOGGING_LEVEL=ERROR python3 tests/gpu/bare_overload.py "$model" "${rates[0]}" 2>"$out/bare.log" \
  | tee "$out/bare.jsonl" || { tail -30 "$out/bare.log"; exit 1; }

vocabulary=40000 # of any tokenizer
python3 bench/prefix_ttft.py --write "$out/prefixes.jsonl" --vocabulary-size $vocabulary
python3 -m worker --engine vllm --prefix-file "$out/prefixes.jsonl" --model-dir "$model" --model-name bench --load-format dummy --context-length 4096 \
  --gpu-memory-utilization 0.5 --max-running-requests 256 --kv-block-count 4096 --max-batched-tokens 4096 \
  --listen 127.0.0.1:25061 --admin-listen 127.0.0.1:0 >"$out/worker.log" 2>&1 & pids+=($!)
python3 -m gateway --workers 127.0.0.1:25061 --listen 127.0.0.1:25051 --admin-listen 127.0.0.1:0 \
  >"$out/gateway.log" 2>&1 & pids+=($!)
wait_for "$out/worker.log" "ready on" 240
wait_for "$out/gateway.log" "serves bench" 60
python3 bench/prefix_ttft.py --target 127.0.0.1:25051 --vocabulary-size $vocabulary | tee "$out/prefix.json"
for rate in "${rates[@]}"; do
  python3 -m bench.overload --wire --target 127.0.0.1:25051 --worker 127.0.0.1:25061 --processes 4 --rate "$rate" --json \
    | tee -a "$out/tidegate.jsonl"
done
