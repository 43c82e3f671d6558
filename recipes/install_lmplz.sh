#!/usr/bin/env bash
# Build KenLM's lmplz and build_binary, which make the n-gram, into PREFIX/bin.
#
#   recipes/install_lmplz.sh [PREFIX]      # default .venv; does nothing when both are there
#
# The source is that of the kenlm Python package, so builder and reader have one version.
set -euo pipefail

readonly version=0.3.0
prefix=${1:-.venv}
if [[ $prefix == -* || $# -gt 1 ]]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0"
  [[ $prefix == -h || $prefix == --help ]] || exit 2
  exit 0
fi

if [[ -x $prefix/bin/lmplz && -x $prefix/bin/build_binary ]]; then
  exit 0
fi

readonly apt_line="apt-get install -y cmake g++ libboost-program-options-dev libboost-thread-dev \
libboost-system-dev libboost-test-dev libeigen3-dev zlib1g-dev libbz2-dev liblzma-dev"
for tool in cmake g++; do
  if ! command -v "$tool" >/dev/null; then
    echo "install_lmplz.sh: $tool is missing, run: $apt_line" >&2
    exit 1
  fi
done
python=$prefix/bin/python
[[ -x $python ]] || python=python3

echo "Building lmplz and build_binary of KenLM $version into $prefix/bin" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log

build() {
  # Chained, since set -e is off inside a condition.
  "$python" -m pip download --disable-pip-version-check --no-deps --no-binary kenlm \
    --dest "$work" "kenlm==$version" &&
    tar -xzf "$work/kenlm-$version.tar.gz" -C "$work" &&
    cmake -S "$work/kenlm-$version" -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
      -DBUILD_TESTING=OFF &&
    cmake --build "$work/build" --parallel 2 --target lmplz build_binary
}

if ! build >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "install_lmplz.sh: the build failed (above); what it needs: $apt_line" >&2
  exit 1
fi
mkdir -p "$prefix/bin"
for tool in lmplz build_binary; do
  # Copied aside and renamed: a killed run leaves no half program that looks installed.
  cp "$work/build/bin/$tool" "$prefix/bin/.$tool.part"
  mv "$prefix/bin/.$tool.part" "$prefix/bin/$tool"
done
