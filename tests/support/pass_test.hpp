// What tests of passes share: the graph as text after a pass, and the answer with and without it.
#pragma once
#include <string>
#include <vector>

#include "support/op_test.hpp"

namespace quern_test {

/// How often `what` stands in `text`.
inline int count(const std::string& text, const std::string& what) {
    int n = 0;
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
}
/// The graph as text after the pass, portable kernels only, so that layouts stay as they are.
inline std::string after(ModelBuilder& b, const char* pass) { return b.model().dump(pass, "text", {.accelerated = false}); }

/// Answers with every pass and without are the same, with portable kernels and with all.
inline void same_answer(ModelBuilder& b, const std::vector<quern::NamedTensor>& in, double tolerance = 1e-5) {
    auto plain = b.run(in, {.threads = 1, .optimize = false});
    for (bool accelerated : {false, true}) {
        auto full = b.run(in, {.threads = 1, .accelerated = accelerated});
        ASSERT_EQ(plain.size(), full.size());
        for (std::size_t o = 0; o < plain.size(); ++o) expect_near(full[o], plain[o], tolerance, tolerance);
    }
}
/// Values from `from` upwards in steps of `scale`, in an order that no kernel's blocks have.
inline Tensor ramp(quern::Shape shape, float scale = 0.1f, float from = -1) {
    Tensor x(DType::f32, shape);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = from + scale * float((i * 7919) % 23);
    return x;
}

}  // namespace quern_test
