#!/usr/bin/env bash
# Sets up, builds and runs every test. Arguments go to ctest (-R NAME, -LE slow, ...).
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"

install_packages libgtest-dev libbenchmark-dev pkg-config
install_onednn
install_test_python
install_cuobjdump
configure -DQUERN_BUILD_TESTS=ON -DQUERN_BUILD_BOTH=ON -DQUERN_BUILD_BENCH=ON
build_targets all

say "testing"
log=$build/ctest.log
status=0
ctest --test-dir "$build" --output-on-failure --parallel "$(jobs)" "$@" >"$log" 2>&1 &
ctest=$!
while kill -0 $ctest 2>/dev/null; do # a line now and then on a terminal, quiet in a pipe
    [ ! -t 1 ] || printf '\r%s\033[K' "$(tail -1 "$log" | cut -c1-100)"
    sleep 1
done
wait $ctest || status=$?
[ ! -t 1 ] || printf '\r\033[K'
if [ $status = 0 ]; then tail -8 "$log"; else cat "$log"; fi
exit $status
