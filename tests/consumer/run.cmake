# Configures, builds and runs tests/consumer/project.
#   cmake -D ROUTE=... -D COMPONENTS=... -D WORK=... -D PREFIX=... -D SOURCE=... -D CXX=... -D GENERATOR=... -P run.cmake
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(status)
    string(REPLACE ";" " " line "${ARGN}")
    message(FATAL_ERROR "${line}\n${out}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
set(launcher)
if(LAUNCHER)
  set(launcher -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER})
endif()
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/consumer/project -B ${WORK} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${CXX} ${launcher}
  -DCMAKE_PREFIX_PATH=${PREFIX} -DQUERN_ROUTE=${ROUTE} -DQUERN_COMPONENTS=${COMPONENTS} -DQUERN_SOURCE_DIR=${SOURCE}
  -DQUERN_MODEL=${SOURCE}/examples/models/digits.onnx)
if(ROUTE STREQUAL "fetch_content")
  run(${CMAKE_COMMAND} --build ${WORK} --target header_only)
else()
  run(${CMAKE_COMMAND} --build ${WORK})
endif()
run(${CMAKE_CTEST_COMMAND} --test-dir ${WORK} --output-on-failure --no-tests=error)
