// Built with -fno-exceptions: only the try_ forms are declared.
#include <cstdio>
#include <vector>

#include "answer.hpp"

static_assert(!QUERN_HAS_EXCEPTIONS);

static int fail(const quern::Error& e) { return std::puts(e.what()), 1; }

int main(int, char** argv) {
    auto missing = quern::Model::try_load("there is no such file.onnx");
    if (missing || missing.error().code() != quern::ErrorCode::io) return std::puts("a missing file was not an io error"), 1;
    auto model = quern::Model::try_load(argv[1]);
    if (!model) return fail(model.error());
    auto engine = model->try_compile({.threads = 1});
    if (!engine) return fail(engine.error());
    auto session = quern::Session::try_create(*engine);
    if (!session) return fail(session.error());
    std::vector<float> image(64);
    if (auto r = session->try_bind("image", quern::Tensor::borrow(std::span(image), {1, 1, 8, 8})); !r) return fail(r.error());
    if (auto r = session->try_run(); !r) return fail(r.error());
    auto prob = session->try_output("prob");
    if (!prob) return fail(prob.error());
    return is_distribution(prob->data<float>()) ? 0 : 1;
}
