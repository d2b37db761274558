#!/bin/sh
# Builds and runs a consumer by pkg-config alone.  pkg_config.sh PREFIX SOURCE WORK CXX
set -eu
PKG_CONFIG_PATH=$(dirname "$(find "$1" -name quern.pc)")
export PKG_CONFIG_PATH
mkdir -p "$3"
# The shared library, where there is one, brings its own dependencies.
libs=$(pkg-config --define-variable=prefix="$1" --libs quern)
dir=$(pkg-config --define-variable=prefix="$1" --variable=libdir quern)
"$4" -std=c++20 $(pkg-config --define-variable=prefix="$1" --cflags quern) "$2/tests/consumer/project/app.cpp" $libs -Wl,-rpath,"$dir" -o "$3/app"
"$3/app" "$2/examples/models/digits.onnx"
