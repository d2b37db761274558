// The compiled form here, the header-only form in part: two inline namespaces of one program.
#include <cstdio>

#include "answer.hpp"
#include "part.hpp"

int main(int, char** argv) {
    try {
        quern::Engine engine = quern::Model::load(argv[1]).compile({.threads = 1});
        quern::Session session(engine);
        session.input("image", {1, 1, 8, 8});
        session.run();
        if (!is_distribution(session.output("prob").data<float>())) return 1;
    } catch (const quern::Error& e) {
        return std::puts(e.what()), 1;
    }
    return run_header_only(argv[1]);
}
