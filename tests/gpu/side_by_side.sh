#!/usr/bin/env bash
# On a GPU: the bare engine, worker and gateway over gRPC, and `vllm serve` over HTTP, with the same model shape and the
# same bursts, one after the other in one run. Weights are random: this measures speed, and says nothing of meaning.
#
#     tests/gpu/side_by_side.sh TOKENIZER_DIR OUT_DIR
#
# TOKENIZER_DIR holds tokenizer.json, tokenizer_config.json and chat_template.jinja of any model.
set -euo pipefail
tokenizer_dir=$1 out=$2
cd "$(dirname "$0")/../.."
. tests/gpu/stand.sh
bursts=1,32,128,256 rounds=4
VLLM_LOGGING_LEVEL=ERROR python3 tests/gpu/bare_engine.py "$model" $bursts $rounds >"$out/bare.jsonl" 2>"$out/bare.log" || { tail -30 "$out/bare.log"; exit 1; }
cat "$out/bare.jsonl"

python3 -m worker --engine vllm --model-dir "$model" --model-name bench --load-format dummy --context-length 4096 \
  --gpu-memory-utilization 0.5 --max-running-requests 256 --listen 127.0.0.1:25061 --admin-listen 127.0.0.1:0 >"$out/worker.log" 2>&1 & pids+=($!)
python3 -m gateway --workers 127.0.0.1:25061 --listen 127.0.0.1:25051 --admin-listen 127.0.0.1:0 >"$out/gateway.log" 2>&1 & pids+=($!)
wait_for "$out/worker.log" "ready on" 240
wait_for "$out/gateway.log" "serves bench" 60
python3 -m tidegate.client bench --target 127.0.0.1:25051 --concurrency 2 --json >/dev/null
python3 -m tidegate.client bench --target 127.0.0.1:25051 --concurrency $bursts --rounds $rounds --json \
  | sed 's/^{/{"path": "gateway and worker", /' | tee "$out/tidegate.jsonl"
stop
pids=()

python3 -m vllm.entrypoints.openai.api_server --model "$model" --served-model-name bench --load-format dummy \
  --max-model-len 4096 --gpu-memory-utilization 0.5 --max-num-seqs 256 --port 25071 >"$out/serve.log" 2>&1 & pids+=($!)
python3 tests/gpu/http_serve.py http://127.0.0.1:25071 bench $bursts $rounds | tee "$out/serve.jsonl" \
  || { tail -30 "$out/serve.log"; exit 1; }
