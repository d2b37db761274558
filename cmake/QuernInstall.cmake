# cmake --install, the CMake package and the pkg-config files.
#
# QUERN_BUILD_BOTH makes the static and the shared library from the same objects; find_package(quern COMPONENTS
# static|shared) chooses, the kind that BUILD_SHARED_LIBS asked for being the default.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
option(QUERN_BUILD_BOTH "Build the static and the shared library, whatever BUILD_SHARED_LIBS says" ${QUERN_BUILD_TESTS})

get_target_property(QUERN_DEFAULT_KIND quern TYPE)
if(QUERN_DEFAULT_KIND STREQUAL "SHARED_LIBRARY")
  set(QUERN_DEFAULT_KIND shared)
  set(other static)
else()
  set(QUERN_DEFAULT_KIND static)
  set(other shared)
endif()

function(quern_install kind)  # kind, then targets
  install(TARGETS ${ARGN} EXPORT quern-${kind}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(EXPORT quern-${kind} NAMESPACE quern:: FILE quern-${kind}.cmake DESTINATION ${QUERN_CONFIG_DIR})
endfunction()
set(QUERN_CONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/quern)

set(compiled ${QUERN_TARGETS})
list(REMOVE_ITEM compiled quern_header_only)
# A shared library finds the libraries that it was linked with where they were at build time.
set_target_properties(${compiled} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
set(linked_dirs)
if(QUERN_ONEDNN_LINKED)  # INSTALL_RPATH_USE_LINK_PATH leaves out folders below the source tree, where setup.sh puts oneDNN
  set(linked_dirs $<TARGET_FILE_DIR:DNNL::dnnl>)
  set_target_properties(${compiled} PROPERTIES INSTALL_RPATH "${linked_dirs}")
endif()
quern_install(${QUERN_DEFAULT_KIND} ${compiled})
quern_install(header_only quern_header_only)
if(QUERN_BUILD_BOTH)
  string(TOUPPER ${other} other_type)
  set(others)
  foreach(t ${compiled})
    get_target_property(sources ${t} SOURCES)
    get_target_property(output ${t} OUTPUT_NAME)
    if(NOT output)
      set(output ${t})
    endif()
    get_target_property(exported ${t} EXPORT_NAME)
    if(NOT exported)
      set(exported ${t})
    endif()
    quern_library(${t}_${other} ${other_type} ${sources})
    get_target_property(links ${t} LINK_LIBRARIES)
    target_link_libraries(${t}_${other} PRIVATE ${links})
    set_target_properties(${t}_${other} PROPERTIES OUTPUT_NAME ${output} EXPORT_NAME ${exported} INSTALL_RPATH "${linked_dirs}" INSTALL_RPATH_USE_LINK_PATH ON)
    list(APPEND others ${t}_${other})
  endforeach()
  quern_install(${other} ${others})
endif()
if(TARGET quern_cli)
  set_target_properties(quern_cli PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${linked_dirs}" INSTALL_RPATH_USE_LINK_PATH ON)
endif()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/quern DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h" PATTERN "*.inc")
install(DIRECTORY ${PROJECT_SOURCE_DIR}/kernels DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/quern
  FILES_MATCHING PATTERN "*.hpp" PATTERN "*.inc")
install(DIRECTORY ${QUERN_GENERATED}/include/quern/ops ${QUERN_GENERATED}/include/quern/lists DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/quern
  FILES_MATCHING PATTERN "*.hpp")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/quern-config.cmake.in ${PROJECT_BINARY_DIR}/quern-config.cmake
  INSTALL_DESTINATION ${QUERN_CONFIG_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/quern-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/quern-config.cmake ${PROJECT_BINARY_DIR}/quern-config-version.cmake
  DESTINATION ${QUERN_CONFIG_DIR})

set(QUERN_PC_PRIVATE "-pthread")
if(QUERN_ONEDNN_LINKED)
  string(APPEND QUERN_PC_PRIVATE " -ldnnl")
elseif(QUERN_HAVE_ONEDNN)
  string(APPEND QUERN_PC_PRIVATE " -ldl")
endif()
if(QUERN_HAVE_CUDA)
  string(APPEND QUERN_PC_PRIVATE " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lrt -ldl")
endif()
foreach(pc quern quern-header-only)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/${pc}.pc.in ${PROJECT_BINARY_DIR}/${pc}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${pc}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
