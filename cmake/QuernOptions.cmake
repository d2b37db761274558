# Every option with its reason.
option(QUERN_BUILD_CLI "The command-line tool `quern` (needs CLI11 and nlohmann-json)" ${PROJECT_IS_TOP_LEVEL})
option(QUERN_BUILD_EXAMPLES "The example programs" ${PROJECT_IS_TOP_LEVEL})
option(QUERN_BUILD_TESTS "The tests (need GoogleTest)" ${PROJECT_IS_TOP_LEVEL})
option(QUERN_BUILD_BENCH "The kernel benchmarks (need Google Benchmark)" OFF)
option(QUERN_INSTALL "Install rules and the CMake package" ON)
option(QUERN_WERROR "Warnings are errors (continuous integration)" OFF)
set(QUERN_SANITIZE "" CACHE STRING "Sanitizers, comma separated: address,undefined or thread")
# AUTO takes what find_package finds; ON fails without it; OFF never looks.
set(QUERN_ONEDNN AUTO CACHE STRING "oneDNN >= 3.2 for convolution and matmul: AUTO, ON or OFF")
set(QUERN_CUDA AUTO CACHE STRING "CUDA kernels: AUTO, ON or OFF")
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
