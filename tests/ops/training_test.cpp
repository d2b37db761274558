// ai.onnx.preview.training: what ONNX's cases leave out.
#include <cmath>

#include "../support/op_test.hpp"

namespace {
using namespace quern_test;
constexpr const char* domain = "ai.onnx.preview.training";
using quern::onnx::attribute_f;
using quern::onnx::attribute_s;

TEST(Training, AdamAtTheFirstStepAndLater) {
    const double rate = 0.1, alpha = 0.9, beta = 0.99, eps = 1e-3, norm = 0.01, post = 0.02;
    for (std::int64_t count : {0, 1, 7}) {
        std::vector<double> x{1, -2}, g{0.5, 3}, v{0.1, 0.2}, h{0.3, 0.4}, y, nv, nh;
        for (int i = 0; i < 2; ++i) {
            const auto k = static_cast<std::size_t>(i);
            const double gr = norm * x[k] + g[k];
            nv.push_back(alpha * v[k] + (1 - alpha) * gr);
            nh.push_back(beta * h[k] + (1 - beta) * gr * gr);
            const double r = count ? rate * std::sqrt(1 - std::pow(beta, count)) / (1 - std::pow(alpha, count)) : rate;
            y.push_back((1 - post) * (x[k] - r * nv[k] / (std::sqrt(nh[k]) + eps)));
        }
        auto d = [](const std::vector<double>& w) { return t<double>({2}, w); };
        auto got = run_op("Adam", {t<double>({}, {rate}), ints({}, {count}), d(x), d(g), d(v), d(h)},
                          {attribute_f("alpha", 0.9f), attribute_f("beta", 0.99f), attribute_f("epsilon", 1e-3f), attribute_f("norm_coefficient", 0.01f), attribute_f("norm_coefficient_post", 0.02f)}, 20, 3, {}, {}, domain);
        expect_near(got[0], d(y), 1e-6, 1e-7);  // the attributes are floats
        expect_near(got[1], d(nv), 1e-6, 1e-7);
        expect_near(got[2], d(nh), 1e-6, 1e-7);
    }
}
TEST(Training, SeveralParametersOfDifferentShapes) {
    std::vector<quern::onnx::Attribute> attrs{attribute_f("alpha", 0.5f), attribute_f("beta", 0.25f), attribute_f("norm_coefficient", 0), attribute_s("mode", "standard")};
    std::vector<Tensor> in{floats({1}, {2}), ints({}, {3}), floats({2}, {1, 2}), floats({1, 3}, {3, 4, 5}), floats({2}, {4, 8}), floats({1, 3}, {0, 4, 8}), floats({2}, {1, 1}), floats({1, 3}, {2, 2, 2})};
    auto got = run_op("Momentum", in, attrs, 20, 4, {}, {}, domain);
    expect_near(got[2], floats({2}, {1.5f, 2.5f}));
    expect_near(got[0], floats({2}, {-2, -3}));
    expect_near(got[3], floats({1, 3}, {1, 2, 3}));
    expect_near(got[1], floats({1, 3}, {1, 0, -1}));
    in.pop_back();
    EXPECT_THROW(run_op("Momentum", in, attrs, 20, 4, {}, {}, domain), quern::Error);
    in.push_back(floats({1, 2}, {2, 2}));  // a state of another shape
    EXPECT_THROW(run_op("Momentum", in, attrs, 20, 4, {}, {}, domain), quern::Error);
}
}  // namespace
