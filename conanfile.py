"""Conan 2 recipe:  conan create . --build=missing  [-o quern/*:with_onednn=True]

Not tried on this project's own machines (they have no Conan); the CMake package that it wraps is tested there.
"""
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load

required_conan_version = ">=2.0"


class QuernConan(ConanFile):
    name = "quern"
    description = "Embeddable C++20 inference library for ONNX models"
    license = "Apache-2.0"
    topics = ("onnx", "inference", "neural-network", "embedded")
    package_type = "library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"shared": [True, False], "fPIC": [True, False], "with_onednn": [True, False]}
    default_options = {"shared": False, "fPIC": True, "with_onednn": False}
    exports_sources = "CMakeLists.txt", "LICENSE", "cmake/*", "include/*", "kernels/*", "src/*"

    def set_version(self):
        text = load(self, os.path.join(self.recipe_folder, "CMakeLists.txt"))
        self.version = re.search(r"project\(quern VERSION ([0-9.]+)", text).group(1)

    def config_options(self):
        if self.settings.os == "Windows":
            del self.options.fPIC

    def configure(self):
        if self.options.shared:
            self.options.rm_safe("fPIC")

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        if self.options.with_onednn:
            self.requires("onednn/[>=3.2 <4]")

    def validate(self):
        check_min_cppstd(self, 20)

    def generate(self):
        CMakeDeps(self).generate()
        tc = CMakeToolchain(self)
        for name in ("CLI", "EXAMPLES", "TESTS", "BENCH"):
            tc.cache_variables[f"QUERN_BUILD_{name}"] = False
        tc.cache_variables["QUERN_ONEDNN"] = "ON" if self.options.with_onednn else "OFF"
        tc.cache_variables["QUERN_CUDA"] = "OFF"
        tc.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        CMake(self).install()

    def package_info(self):
        # The project's own package configuration is the one that is tested.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs.append(os.path.join("lib", "cmake", "quern"))
