# Sourced: finds ../shared and a python with the modules named; exits 77 (skipped) with the reason otherwise. With needs_shared=no only find_python is meant.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shared=${QUERN_SHARED:-$here/../../../shared}
[ "$needs_shared" = no ] || [ -d "$shared" ] || { echo "skipped: no ../shared beside the checkout"; exit 77; }
find_python() {
    local p
    for p in "$here/../../.deps/venv/bin/python" python3 "${QUERN_PYTHON:-python3}"; do
        "$p" -c "import $1" 2>/dev/null && { echo "$p"; return 0; }
    done
    echo "skipped: no python3 with $1" >&2
    return 1
}
