#include <cstdio>

#include "answer.hpp"

int main(int, char** argv) {
    bool refused = false;
    try {
        quern::Model::load("there is no such file.onnx");
    } catch (const quern::Error& e) {  // also across the boundary of a shared library
        refused = e.code() == quern::ErrorCode::io;
    }
    if (!refused) return std::puts("a missing file was not an io error"), 1;
    try {
        auto v = quern::library_version(), h = quern::header_version();
        if (v.major != h.major || v.minor != h.minor) return std::puts("another version was linked"), 1;
        quern::Engine engine = quern::Model::load(argv[1]).compile({.threads = 2});
        quern::Session session(engine);
        session.input("image", {1, 1, 8, 8});
        session.run();
        return is_distribution(session.output("prob").data<float>()) ? 0 : 1;
    } catch (const quern::Error& e) {
        return std::puts(e.what()), 1;
    }
}
