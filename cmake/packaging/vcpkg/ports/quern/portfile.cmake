# vcpkg install quern --overlay-ports=cmake/packaging/vcpkg/ports
# Builds the checkout that it lies in. Not tried on the project's own machines, which have no vcpkg.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../../.." ABSOLUTE)

vcpkg_check_features(OUT_FEATURE_OPTIONS feature_options FEATURES cli QUERN_BUILD_CLI)
if("onednn" IN_LIST FEATURES)
  list(APPEND feature_options -DQUERN_ONEDNN=ON)
else()
  list(APPEND feature_options -DQUERN_ONEDNN=OFF)
endif()

vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS ${feature_options} -DQUERN_BUILD_TESTS=OFF -DQUERN_BUILD_EXAMPLES=OFF -DQUERN_CUDA=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(PACKAGE_NAME quern CONFIG_PATH lib/cmake/quern)
vcpkg_fixup_pkgconfig()
if("cli" IN_LIST FEATURES)
  vcpkg_copy_tools(TOOL_NAMES quern AUTO_CLEAN)
endif()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include" "${CURRENT_PACKAGES_DIR}/debug/share")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
