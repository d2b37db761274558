# Kernels in CUDA: kernels/*/*.cu, compiled ahead of time for sm_80 and sm_90 with PTX for what comes later. Building
# needs the toolkit, running a device; without one every call returns an error.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "GPU architectures; a number without -real adds its PTX")
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*/*.cu)
add_library(quern_cuda_objects OBJECT EXCLUDE_FROM_ALL ${cuda_sources})
# CMake 3.25 does not know the cuda_std_20 feature of newer toolkits.
target_compile_options(quern_cuda_objects PRIVATE -std=c++20 -Xcompiler=-Wall,-Wextra)
set_target_properties(quern_cuda_objects PROPERTIES CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
quern_headers(quern_cuda_objects PUBLIC)
