#!/usr/bin/env bash
# On a GPU: the bare engine, worker and gateway over gRPC, and `vllm serve` over HTTP, with the same model shape, the same
# settings of the engine and the same load. Three engines stand side by side in the GPU's memory, and take turns. Weights
# are random: this measures speed, and says nothing of meaning.
#
#     tests/gpu/side_by_side.sh TOKENIZER_DIR OUT_DIR [STEP_TOKENS] [bursts|steady] [SIZES] [SECONDS]
#
# TOKENIZER_DIR holds tokenizer.json, tokenizer_config.json and chat_template.jinja of any model. STEP_TOKENS is the size of
# the engine's step; 8,192 is what vLLM's own server chooses on such a GPU, and so does the worker. The loads are told in
# tests/gpu/turns.py. Two to three minutes to start, then SECONDS of turns. Needs 100 GiB of the GPU's memory.
set -euo pipefail
tokenizer_dir=$1 out=$2 step_tokens=${3:-8192} load=${4:-bursts} sizes=${5:-1,32,128,256} seconds=${6:-360}
cd "$(dirname "$0")/../.."
. tests/gpu/stand.sh
# For 12,288 blocks of 16 tokens; 256 requests of 640 take 10,240. Without it an engine would measure how much memory is
# left, and three that start at once would each measure what the others take.
kv_cache_bytes=$((24 << 30))
# Between its turns a client keeps its connections, as one of HTTP/2 does.
export VLLM_HTTP_TIMEOUT_KEEP_ALIVE=600
# What is compiled is kept in a folder, which would have three writers.
cache() { export VLLM_CACHE_ROOT=$(dirname "$model")/cache-$1; }

(cache worker && exec python3 -m worker --engine vllm --model-dir "$model" --model-name bench --load-format dummy \
  --context-length 4096 --gpu-memory-utilization 0.3 --kv-cache-bytes $kv_cache_bytes --max-running-requests 256 \
  --max-batched-tokens "$step_tokens" --listen 127.0.0.1:25061 --admin-listen 127.0.0.1:0) >"$out/worker.log" 2>&1 & pids+=($!)
python3 -m gateway --workers 127.0.0.1:25061 --listen 127.0.0.1:25051 --admin-listen 127.0.0.1:0 >"$out/gateway.log" 2>&1 & pids+=($!)
(cache serve && exec python3 -m vllm.entrypoints.openai.api_server --model "$model" --served-model-name bench \
  --load-format dummy --max-model-len 4096 --gpu-memory-utilization 0.3 --kv-cache-memory-bytes $kv_cache_bytes \
  --max-num-seqs 256 --max-num-batched-tokens "$step_tokens" --port 25071) >"$out/serve.log" 2>&1 & pids+=($!)
(cache bare && VLLM_LOGGING_LEVEL=ERROR exec python3 tests/gpu/side_by_side.py "$out" "$load" "$sizes" "$seconds" \
  -- python3 tests/gpu/bare_engine.py "$model" "$step_tokens" $kv_cache_bytes \
  -- python3 tests/gpu/gateway_path.py 127.0.0.1:25051 bench "${pids[1]}" "${pids[0]}" \
  -- python3 tests/gpu/http_serve.py http://127.0.0.1:25071 "${pids[2]}" bench) 2>"$out/paths.log" | tee "$out/table.md" \
  || { tail -n 20 "$out"/*.log; exit 1; }
