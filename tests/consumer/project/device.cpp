// A program that asks for a GPU: it computes there, or is told why it cannot. QUERN_EXPECT_CUDA: whether the backend was built.
#include <cstdio>
#include <string>

#include "answer.hpp"

int main(int, char** argv) {
    try {
        const quern::Model model = quern::Model::load(argv[1]);
        const quern::Engine engine = model.compile({.device = "cuda"});
        if (!QUERN_EXPECT_CUDA) return std::puts("an engine for CUDA without its backend"), 1;
        quern::Session session(engine);
        session.input("image", {1, 1, 8, 8});
        session.run();
        return is_distribution(session.output("prob").data<float>()) ? 0 : 1;
    } catch (const quern::Error& e) {
        // Only the backend knows of a driver.
        const bool asked = std::string(e.what()).find("driver") != std::string::npos;
        return std::puts(e.what()), e.code() == quern::ErrorCode::unsupported && asked == QUERN_EXPECT_CUDA ? 0 : 1;
    }
}
