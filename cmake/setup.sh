# Sourced by examples/run.sh, tests/run.sh and .ci/run: installs what is missing, configures and builds.
#
#   QUERN_BUILD_DIR    build folder (default: build)
#   QUERN_OFFLINE=1    never install anything; work with what is there
#   QUERN_ONEDNN=OFF   build without oneDNN (the embedded default)
#
# Works with an empty environment, asks nothing, and does nothing that was done before.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin" # dpkg wants ldconfig
export HOME="${HOME:-$(cd ~ 2>/dev/null && pwd || echo /tmp)}" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
build=${QUERN_BUILD_DIR:-build}
deps=$root/.deps

say() { printf '\n== %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n -E "$@"; fi
}
may_install() {
    [ -z "${QUERN_OFFLINE:-}" ] || return 1
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null
}
# The names of `$@` whose Debian package is not installed.
not_installed() {
    local p
    for p in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
    done
}

# Packages without which nothing builds, and those that only add something.
needed="g++ cmake nlohmann-json3-dev libcli11-dev libstb-dev"
wanted="ninja-build python3-pip python3-venv"

# install_packages EXTRA...: `needed`, `wanted` and EXTRA.
install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian system: expecting g++ >= 12 or clang >= 14, CMake >= 3.25, CLI11, nlohmann-json, stb$([ $# = 0 ] || echo ", $*")"
        return
    fi
    local missing still
    missing=$(not_installed $needed $wanted "$@" | xargs)
    [ -n "$missing" ] || return 0
    if may_install; then
        say "installing $missing"
        as_root apt-get update -qq || echo "apt-get update failed; trying with the lists that are there"
        local log
        log=$(mktemp)
        as_root apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing >"$log" 2>&1 ||
            { tail -20 "$log"; echo "apt-get could not install everything"; }
        rm -f "$log"
    fi
    still=$(not_installed $needed "$@" | xargs)
    if [ -n "$still" ]; then
        say "missing, and this script may not install it: $still"
        echo "run as root:  apt-get install -y $still"
        exit 1
    fi
    still=$(not_installed $wanted | xargs)
    [ -z "$still" ] || say "not installed, going on without: $still"
}

# oneDNN 3.2 from PyPI (Debian 12 has 2.6) into .deps/onednn; without it quern uses its portable kernels.
install_onednn() {
    [ "${QUERN_ONEDNN:-AUTO}" != OFF ] && [ "$(uname -m)" = x86_64 ] || return 0
    [ ! -e "$deps/onednn/.done" ] || return 0
    if [ -n "${QUERN_OFFLINE:-}" ] || ! python3 -m pip --version >/dev/null 2>&1; then
        say "oneDNN is not there (needs python3-pip and PyPI): building with the portable kernels"
        return 0
    fi
    say "installing oneDNN 3.2 from PyPI into .deps/"
    rm -rf "$deps/onednn" && mkdir -p "$deps"
    if python3 -m pip install -q --disable-pip-version-check --no-warn-script-location --root-user-action=ignore \
        --no-input --no-deps --timeout 20 --retries 2 --prefix "$deps/onednn" \
        onednn-devel-cpu-gomp==2023.2.0 onednn-cpu-gomp==2023.2.0 &&
        [ -n "$(find "$deps/onednn" -name dnnl-config.cmake)" ]; then
        touch "$deps/onednn/.done"
    else
        rm -rf "$deps/onednn"
        say "oneDNN could not be had from PyPI: building with the portable kernels"
    fi
}

# A python with numpy and onnx in .deps/venv, for the tests that read ../shared (there only); they are skipped without it.
install_test_python() {
    [ -d "$root/../shared" ] && [ ! -e "$deps/venv/.done" ] || return 0
    if [ -n "${QUERN_OFFLINE:-}" ] || ! command -v python3 >/dev/null; then
        say "no python3 with PyPI: the tests of ../shared will be skipped"
        return 0
    fi
    say "installing numpy and onnx from PyPI into .deps/venv, for the tests of ../shared"
    rm -rf "$deps/venv" && mkdir -p "$deps"
    if python3 -m venv "$deps/venv" && "$deps/venv/bin/python" -m pip install -q --disable-pip-version-check --no-input --timeout 20 --retries 2 \
        numpy onnx ml_dtypes; then
        touch "$deps/venv/.done"
    else
        rm -rf "$deps/venv"
        say "they could not be had: the tests of ../shared will be skipped"
    fi
}

# cuobjdump from PyPI (300 KB) into .deps/cuobjdump where nvcc came without it: a test reads registers and stacks of the CUDA kernels.
install_cuobjdump() {
    local nvcc=${CUDACXX:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)}
    [ -n "$nvcc" ] && [ ! -e "$(dirname "$nvcc")/cuobjdump" ] && [ ! -e "$deps/cuobjdump/.done" ] && [ -z "${QUERN_OFFLINE:-}" ] || return 0
    rm -rf "$deps/cuobjdump" && mkdir -p "$deps"
    if python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-input --no-deps --timeout 20 --retries 2 \
        --target "$deps/cuobjdump" nvidia-cuda-cuobjdump==13.5.37; then
        touch "$deps/cuobjdump/.done"
    else
        rm -rf "$deps/cuobjdump"
        say "no cuobjdump: the test of the CUDA kernels' registers is left out"
    fi
}

# As many compilers as there are processors and 1.5 GB for each.
jobs() {
    local n mem
    n=$(nproc 2>/dev/null || echo 2)
    mem=$(awk '/^MemAvailable/ {print int($2 / 1500000)}' /proc/meminfo 2>/dev/null || echo "$n")
    [ "$mem" -ge 1 ] || mem=1
    echo $((n < mem ? n : mem))
}

# configure EXTRA_CMAKE_ARGUMENTS...
configure() {
    local args=(-S . -B "$build" -DQUERN_ONEDNN="${QUERN_ONEDNN:-AUTO}" "$@")
    # Debian's pip puts things under local/.
    [ ! -e "$deps/onednn/.done" ] || args+=("-DCMAKE_PREFIX_PATH=$deps/onednn;$deps/onednn/local")
    if [ ! -e "$build/CMakeCache.txt" ]; then
        args+=(-DCMAKE_BUILD_TYPE=Release)
        command -v ninja >/dev/null && args+=(-G Ninja)
        command -v ccache >/dev/null && args+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    fi
    say "configuring $build/"
    local log
    log=$(mktemp)
    if ! cmake "${args[@]}" >"$log" 2>&1; then
        cat "$log"
        rm -f "$log"
        echo "configuring failed"
        exit 1
    fi
    grep -E '^-- quern|Warning' "$log" || true
    rm -f "$log"
}

# build_targets TARGET...
build_targets() {
    say "building with $(jobs) jobs (some minutes the first time)"
    cmake --build "$build" --parallel "$(jobs)" --target "$@"
}
