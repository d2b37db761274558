# The CUDA backend: kernels/*/*.cu by nvcc, ahead of time, and its host code (kernels/*/cuda*.cpp, kernels/cuda/*.cpp). The
# runtime is linked statically; running needs a driver, and a device is looked for only when Options::device asks for one.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "GPU architectures; a number without -real adds its PTX")
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
if(CMAKE_CXX_COMPILER_LAUNCHER AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*/*.cu)
add_library(quern_cuda_objects OBJECT EXCLUDE_FROM_ALL ${cuda_sources})
# CMake 3.25 does not know the cuda_std_20 feature of newer toolkits.
target_compile_options(quern_cuda_objects PRIVATE -std=c++20 -Xcompiler=-Wall,-Wextra)
# Device code of several architectures compresses to an eighth. Toolkits before 13 know the older switch only.
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
  target_compile_options(quern_cuda_objects PRIVATE --compress-mode=size)
else()
  target_compile_options(quern_cuda_objects PRIVATE -Xfatbin=-compress-all)
endif()
set_target_properties(quern_cuda_objects PROPERTIES CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
quern_headers(quern_cuda_objects PUBLIC)

# Host code is compiled once: linked with nvcc's objects and the runtime it drives a GPU, with the emulator it drives that.
quern_backend_unit(${QUERN_GENERATED}/cuda_backend.cpp cuda "cuda" "}\nnamespace cuda { std::shared_ptr<DeviceApi> open_device(int, const Options&);\n"
  ", Device::cuda, open_device")
file(GLOB cuda_host_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*/cuda*.cpp ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cpp)
list(REMOVE_DUPLICATES cuda_host_sources)
add_library(quern_cuda_host_objects OBJECT EXCLUDE_FROM_ALL ${QUERN_GENERATED}/cuda_backend.cpp ${cuda_host_sources})
quern_flags(quern_cuda_host_objects)
quern_headers(quern_cuda_host_objects PUBLIC)
target_include_directories(quern_cuda_host_objects SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
