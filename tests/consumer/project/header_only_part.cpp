#include "part.hpp"

#include <cstdio>

#include "answer.hpp"

#if !defined(QUERN_HEADER_ONLY)
#error "quern::header_only does not define QUERN_HEADER_ONLY"
#endif

int run_header_only(const char* model) {
    try {
        quern::Engine engine = quern::Model::load(model).compile({.threads = 1});
        quern::Session session(engine);
        session.input("image", {1, 1, 8, 8});
        session.run();
        return is_distribution(session.output("prob").data<float>()) ? 0 : 1;
    } catch (const quern::Error& e) {
        return std::puts(e.what()), 1;
    }
}
