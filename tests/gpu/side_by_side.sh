#!/usr/bin/env bash
# On a GPU: the bare engine, worker and gateway over gRPC, and `vllm serve` over HTTP, with the same model shape, the same
# settings of the engine and the same load, one after the other in one run. Weights are random: this measures speed, and
# says nothing of meaning.
#
#     tests/gpu/side_by_side.sh TOKENIZER_DIR OUT_DIR [STEP_TOKENS] [steady|bursts]
#
# TOKENIZER_DIR holds tokenizer.json, tokenizer_config.json and chat_template.jinja of any model. STEP_TOKENS is the size of
# the engine's step; 8,192 is what vLLM's own server chooses on such a GPU, and so does the worker. The loads are told in
# tests/gpu/loads.py; steady unless bursts are asked for. Ten to eleven minutes, and six for bursts.
# SIZES and ROUNDS in the environment make less of it.
set -euo pipefail
tokenizer_dir=$1 out=$2 step_tokens=${3:-8192} load=${4:-steady}
cd "$(dirname "$0")/../.."
. tests/gpu/stand.sh
sizes=${SIZES:-1,32,128,256} rounds=${ROUNDS:-4}
[ "$load" = bursts ] || rounds=${ROUNDS:-8}
VLLM_LOGGING_LEVEL=ERROR python3 tests/gpu/bare_engine.py "$model" "$step_tokens" "$load" "$sizes" "$rounds" >"$out/bare.jsonl" 2>"$out/bare.log" || { tail -30 "$out/bare.log"; exit 1; }

python3 -m worker --engine vllm --model-dir "$model" --model-name bench --load-format dummy --context-length 4096 \
  --gpu-memory-utilization 0.5 --max-running-requests 256 --max-batched-tokens "$step_tokens" \
  --listen 127.0.0.1:25061 --admin-listen 127.0.0.1:0 >"$out/worker.log" 2>&1 & pids+=($!)
python3 -m gateway --workers 127.0.0.1:25061 --listen 127.0.0.1:25051 --admin-listen 127.0.0.1:0 >"$out/gateway.log" 2>&1 & pids+=($!)
wait_for "$out/worker.log" "ready on" 240
wait_for "$out/gateway.log" "serves bench" 60
python3 tests/gpu/gateway_path.py 127.0.0.1:25051 bench "${pids[1]}" "${pids[0]}" "$load" "$sizes" "$rounds" \
  >"$out/tidegate.jsonl" || { tail -30 "$out/worker.log" "$out/gateway.log"; exit 1; }
stop
pids=()

python3 -m vllm.entrypoints.openai.api_server --model "$model" --served-model-name bench --load-format dummy \
  --max-model-len 4096 --gpu-memory-utilization 0.5 --max-num-seqs 256 --max-num-batched-tokens "$step_tokens" \
  --port 25071 >"$out/serve.log" 2>&1 & pids+=($!)
python3 tests/gpu/http_serve.py http://127.0.0.1:25071 "${pids[0]}" bench "$load" "$sizes" "$rounds" >"$out/serve.jsonl" \
  || { tail -30 "$out/serve.log"; exit 1; }
python3 tests/gpu/side_by_side_table.py "$out"/{bare,tidegate,serve}.jsonl | tee "$out/table.md"
