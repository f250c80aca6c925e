#!/usr/bin/env bash
# All that is measured on a GPU, in one go of under nine minutes, without a network.
#
#     bash benchmarks/gpu.sh OUT [--device cpu] [--quick]
#
# Writes into the folder OUT: the GPU tests, step times against plain Pyro and plain PyTorch, growth
# with K, where the commands' wall time goes, MNIST's presets to their end, ten seeds each, and a
# profile. Each part has a time limit and a file of its own, so that one that fails or is cut short
# costs no other. --quick tries every part in a minute or two, on a CPU too; its figures say nothing.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?where to}; shift
device=cuda quick=
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --quick) quick=1; shift ;;
        *) echo "no such flag: $1" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
began=$SECONDS

part() { # NAME SECONDS COMMAND...: its output in OUT/NAME.txt, a line on how it ended
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    [ -z "$quick" ] || limit=600 # of a slow machine
    timeout "$limit" "$@" >"$out/$name.txt" 2>&1
    local code=$?
    echo "$name: exit $code after $((SECONDS - start)) s (at $((SECONDS - began)) s)" | tee -a "$out/parts.txt"
}

to_accuracy() { # NAME SECONDS PRESET FLAGS...
    local name=$1 limit=$2 preset=$3
    shift 3
    part "$name" "$limit" python -m benchmarks.time_to_accuracy "$preset" --device "$device" \
        --out "$out/$name.json" ${quick:+--epochs 1 --starts 1} "$@"
}

tests=$([ -n "$quick" ] && echo "tests/pyro_infocat/training/test_recorder.py" || echo tests)
python -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")' \
    | tee "$out/machine.txt"

# Alone, since these are timed.
part tests 90 python -m pytest -m gpu -n 0 -q $tests
part steps 60 python -m benchmarks.step_time --device "$device" --write --results "$out" ${quick:+--rounds 1}
to_accuracy mnist 60 runs/mnist.yaml
part wall 90 python -m benchmarks.wall --device "$device" --data digits mnist --write --results "$out" \
    ${quick:+--epochs 1 --nll_samples 1}
part growth 50 python -m benchmarks.growth --device "$device" --write --results "$out" ${quick:+--steps 1}
to_accuracy float32 40 runs/mnist.yaml --precision float32
to_accuracy unrecorded 40 runs/mnist.yaml --graph false --epochs "$([ -n "$quick" ] && echo 1 || echo 8)"
part profile 40 python -m benchmarks.profile runs/mnist.yaml --device "$device" --out "$out/profile.json"

# Side by side, since these are judged by their accuracy.
seeds=$([ -n "$quick" ] && echo 0 || seq 0 9)
to_accuracy mnist_seeds 200 runs/mnist.yaml --seeds $seeds &
to_accuracy blind_seeds 200 runs/mnist-blind.yaml --seeds $seeds &
wait
echo "all parts after $((SECONDS - began)) s" | tee -a "$out/parts.txt"
