# The library targets. Objects first; quern::quern holds everything that was built, quern::core the
# portable runtime, quern::cpu the oneDNN kernels, quern::header_only no object at all.
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

function(quern_headers target scope)
  target_include_directories(${target} ${scope}
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${QUERN_GENERATED}/include>
    $<INSTALL_INTERFACE:include>)
endfunction()

# The units of ops/: a few operator files each, from ops.inc, so that builds are parallel and incremental.
set(ops_inc ${PROJECT_SOURCE_DIR}/include/quern/ops/ops.inc)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ops_inc})
file(STRINGS ${ops_inc} op_lines REGEX "^QUERN_OP\\(")
set(op_files)
foreach(line ${op_lines})
  string(REGEX REPLACE "^QUERN_OP\\(([a-z0-9_]+), *([A-Za-z0-9_]+).*" "\\1;\\2" parts "${line}")
  list(GET parts 0 f)
  list(GET parts 1 op)
  list(APPEND op_files ${f})
  string(APPEND cold_${f} "[[gnu::cold]] const OpDef& op_${op}();\n")
endforeach()
list(REMOVE_DUPLICATES op_files)
set(op_units)
set(all_includes "#pragma once\n")
foreach(f ${op_files})
  string(APPEND all_includes "#include <quern/ops/${f}-inl.hpp>\n")
  # Finding an operator calls all of these: cold functions lie together, where each in its unit's code would bring a page of every unit into memory.
  file(CONFIGURE OUTPUT ${QUERN_GENERATED}/ops_${f}.cpp CONTENT
    "#include <quern/ops/op.hpp>\nQUERN_BEGIN\n${cold_${f}}QUERN_END\n#include <quern/ops/${f}-inl.hpp>\n")
  list(APPEND op_units ${QUERN_GENERATED}/ops_${f}.cpp)
endforeach()
file(CONFIGURE OUTPUT ${QUERN_GENERATED}/include/quern/ops/all-inl.hpp CONTENT "${all_includes}")

add_library(quern_core_objects OBJECT
  src/base.cpp src/tensor.cpp src/onnx.cpp src/graph.cpp src/ops.cpp src/import.cpp src/passes.cpp
  src/plan.cpp src/session.cpp src/core_backend.cpp src/c_api.cpp src/vec_baseline.cpp src/functions_baseline.cpp src/loops_8_baseline.cpp ${op_units})
# What runs when a model is loaded and compiled, and the tool: small code, without the copies of loops that only kernels are worth. The session
# runs each time: 20 tiny nodes take 0.58 us, with -Os 0.62.
set(QUERN_SMALL_CODE $<$<AND:$<CXX_COMPILER_ID:GNU,Clang,AppleClang>,$<NOT:$<CONFIG:Debug>>>:-Os>)
set_source_files_properties(src/onnx.cpp src/graph.cpp src/ops.cpp src/import.cpp src/passes.cpp src/plan.cpp src/c_api.cpp PROPERTIES COMPILE_OPTIONS "${QUERN_SMALL_CODE}")
set(checks)
if(QUERN_SANITIZE MATCHES "undefined")  # compilers take many minutes over these of unrolled vector loops; AddressSanitizer sees what leaves a buffer
  set(checks -fno-sanitize=alignment,null,object-size,pointer-overflow)
  set_source_files_properties(src/vec_baseline.cpp src/functions_baseline.cpp src/loops_8_baseline.cpp PROPERTIES COMPILE_OPTIONS "${checks}")
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(avx2 -mavx2 -mfma -mf16c ${checks})
  set(avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx512cd -mfma -mf16c -mprefer-vector-width=512 ${checks})
  foreach(unit vec_avx2 functions_avx2 loops_8_avx2 vec_avx512 functions_avx512 loops_8_avx512)
    string(REGEX REPLACE ".*_" "" isa ${unit})
    target_sources(quern_core_objects PRIVATE src/${unit}.cpp)
    set_source_files_properties(src/${unit}.cpp PROPERTIES COMPILE_OPTIONS "${${isa}}")
  endforeach()
  target_sources(quern_core_objects PRIVATE src/loops_8_avx2_vnni.cpp src/loops_8_avx512_vnni.cpp)
  set_source_files_properties(src/loops_8_avx2_vnni.cpp PROPERTIES COMPILE_OPTIONS "${avx2};-mavxvnni")
  set_source_files_properties(src/loops_8_avx512_vnni.cpp PROPERTIES COMPILE_OPTIONS "${avx512};-mavx512vnni")
  target_compile_definitions(quern_core_objects PRIVATE QUERN_X86_UNITS=1)
endif()
quern_flags(quern_core_objects)
quern_headers(quern_core_objects PUBLIC)
target_link_libraries(quern_core_objects PUBLIC Threads::Threads)

include(cmake/QuernLists.cmake)
set(cpu_sources)
set(cpu_kinds)
set(backends core)
if(QUERN_HAVE_ONEDNN)
  file(GLOB onednn_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*/onednn*.cpp)
  list(APPEND cpu_sources ${onednn_sources})
  list(APPEND cpu_kinds onednn)
endif()
set(cpu_parts)
if(cpu_sources)
  quern_backend_unit(${QUERN_GENERATED}/cpu_backend.cpp cpu "${cpu_kinds}" "" "")
  add_library(quern_cpu_objects OBJECT ${QUERN_GENERATED}/cpu_backend.cpp ${cpu_sources})
  quern_flags(quern_cpu_objects)
  quern_headers(quern_cpu_objects PUBLIC)
  target_link_libraries(quern_cpu_objects PRIVATE Threads::Threads)
  if(QUERN_HAVE_ONEDNN)
    target_include_directories(quern_cpu_objects SYSTEM PRIVATE $<TARGET_PROPERTY:DNNL::dnnl,INTERFACE_INCLUDE_DIRECTORIES>)
    if(NOT QUERN_ONEDNN_LINKED)
      target_compile_definitions(quern_cpu_objects PRIVATE QUERN_ONEDNN_NAME="$<TARGET_SONAME_FILE_NAME:DNNL::dnnl>" QUERN_ONEDNN_FILE="$<TARGET_FILE:DNNL::dnnl>")
    endif()
  endif()
  set(cpu_parts $<TARGET_OBJECTS:quern_cpu_objects>)
  list(APPEND backends cpu)
endif()

set(cuda_parts)
if(QUERN_HAVE_CUDA)
  include(cmake/QuernCuda.cmake)
  set(cuda_parts $<TARGET_OBJECTS:quern_cuda_objects> $<TARGET_OBJECTS:quern_cuda_host_objects>)
  list(APPEND backends cuda)
endif()

# The unit that lists what was built.
set(decls "")
set(refs "")
foreach(b ${backends})
  string(APPEND decls "namespace ${b} { const Backend& backend() noexcept; }\n")
  string(APPEND refs "&${b}::backend(), ")
endforeach()
file(CONFIGURE OUTPUT ${QUERN_GENERATED}/linked.cpp CONTENT
"#include <quern/kernels/kernel.hpp>
QUERN_BEGIN
${decls}
std::span<const Backend* const> linked_backends() noexcept {
    static const Backend* const list[] = {${refs}};
    return list;
}
QUERN_END
" @ONLY)
file(CONFIGURE OUTPUT ${QUERN_GENERATED}/linked_core.cpp CONTENT
"#include <quern/kernels/kernel.hpp>
QUERN_BEGIN
namespace core { const Backend& backend() noexcept; }
std::span<const Backend* const> linked_backends() noexcept {
    static const Backend* const list[] = {&core::backend()};
    return list;
}
QUERN_END
" @ONLY)

function(quern_library name)  # name, then sources
  add_library(${name} ${ARGN})
  add_library(quern::${name} ALIAS ${name})
  quern_flags(${name})
  quern_headers(${name} PUBLIC)
  target_link_libraries(${name} PUBLIC Threads::Threads)
  set_target_properties(${name} PROPERTIES VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endfunction()
quern_library(quern ${QUERN_GENERATED}/linked.cpp $<TARGET_OBJECTS:quern_core_objects> ${cpu_parts} ${cuda_parts})
quern_library(quern_core ${QUERN_GENERATED}/linked_core.cpp $<TARGET_OBJECTS:quern_core_objects>)
add_library(quern::core ALIAS quern_core)
set_target_properties(quern_core PROPERTIES EXPORT_NAME core)
set(QUERN_TARGETS quern quern_core)
if(QUERN_HAVE_ONEDNN)
  target_link_libraries(quern PRIVATE ${QUERN_ONEDNN_LINK})
endif()
if(QUERN_HAVE_CUDA)
  target_link_libraries(quern PRIVATE CUDA::cudart_static)
endif()

# Our target names are prefixed: they share one namespace with the program that adds us as a subdirectory.
add_library(quern_header_only INTERFACE)
set_target_properties(quern_header_only PROPERTIES EXPORT_NAME header_only)
add_library(quern::header_only ALIAS quern_header_only)
target_compile_features(quern_header_only INTERFACE cxx_std_20)
target_compile_definitions(quern_header_only INTERFACE QUERN_HEADER_ONLY=1)
quern_headers(quern_header_only INTERFACE)
target_link_libraries(quern_header_only INTERFACE Threads::Threads)
list(APPEND QUERN_TARGETS quern_header_only)
