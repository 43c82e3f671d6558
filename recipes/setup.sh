#!/usr/bin/env bash
# Make the environment: system packages, .venv, lmplz. Quick when nothing is missing.
#
#   recipes/setup.sh            # say in one line what is installed, then install it
#
# Without root it prints the apt line to run and stops. pip's own configuration decides
# which build of torch is taken; uv installs everything else from the pins in pyproject.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

apt_packages=(sctk espeak-ng cmake g++ zlib1g-dev libbz2-dev liblzma-dev libeigen3-dev
  libboost-program-options-dev libboost-thread-dev libboost-system-dev libboost-test-dev shellcheck)

fail() {
  echo "setup: $*" >&2
  exit 1
}

# Prints what is missing, space-separated.
missing_packages() {
  local package missing=()
  for package in "${apt_packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  echo "${missing[*]}"
}

install_system_packages() {
  if ! command -v dpkg-query >/dev/null; then
    local tool
    for tool in sclite espeak-ng cmake c++; do
      command -v "$tool" >/dev/null ||
        fail "$tool is not installed; this is no Debian system, install: SCTK, espeak-ng, cmake, a C++ compiler, Boost"
    done
    return
  fi
  local missing
  missing=$(missing_packages)
  [ -n "$missing" ] || return 0
  [ "$(id -u)" = 0 ] ||
    fail "system packages are missing; run: sudo apt-get update && sudo apt-get install -y --no-install-recommends $missing"
  echo "setup: installing system packages: $missing" >&2
  local log
  log=$(mktemp)
  # shellcheck disable=SC2086  # one word per package
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    fail "apt-get failed (log: $log)"
  fi
  rm -f "$log"
}

find_python() {
  local python
  for python in python3.11 python3; do
    if command -v "$python" >/dev/null &&
      "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  fail "Python 3.11 was not found; install it (Debian 12: apt-get install python3 python3-venv)"
}

install_python_packages() {
  local stamp torch
  stamp=$(cat pyproject.toml recipes/setup.sh | sha256sum | cut -d' ' -f1)
  if [ -x .venv/bin/python ] && [ "$(cat .venv/.installed 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  torch=$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
  echo "setup: installing $torch and the packages of pyproject.toml into .venv" >&2
  [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
  # A broken download must not leave a stamp behind: each step stops the script on failure.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "$torch" uv
  .venv/bin/uv pip install --quiet --python .venv/bin/python -r pyproject.toml --group dev
  # torchaudio's wheel is linked to CUDA and does not load beside a CPU build of torch; its
  # Python parts are all that ESPnet and NeMo need.
  if .venv/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
    rm -f .venv/lib/python3.11/site-packages/torchaudio/lib/*.so
  fi
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -e .
  echo "$stamp" >.venv/.installed
}

install_system_packages
install_python_packages
recipes/install_lmplz.sh .venv
