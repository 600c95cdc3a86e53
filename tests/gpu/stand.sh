# Sourced, in the checkout's root, by the scripts beside it: $tokenizer_dir and $out are theirs. Makes $model, a checkpoint
# of the shape of Llama-3-8B in AWQ without weights; what is in $pids ends with the script.
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"

model=$(mktemp -d)/llama3-8b-awq
mkdir -p "$model"
cp "tests/gpu/llama3-8b-awq/config.json" "$model/"
cp "$tokenizer_dir"/{tokenizer.json,tokenizer_config.json,chat_template.jinja} "$model/"

python3 - "$model/model.safetensors" <<'PY' # the checkpoint has to have weights to be told from others; they are not read
import sys, torch
from safetensors.torch import save_file
save_file({"unread": torch.zeros(1)}, sys.argv[1])
PY

pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; }
trap stop EXIT

wait_for() { # FILE TEXT SECONDS
  for _ in $(seq "$3"); do
    grep -q "$2" "$1" && return
    kill -0 "${pids[@]}" 2>/dev/null || break
    sleep 1
  done
  echo "no '$2' in $1 after $3 s" >&2; tail -30 "$1" >&2; exit 1
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/machine.txt"
