// The oracle of the conv family, in double, and its tolerance.
#pragma once
#include <vector>

#include <quern/kernels/conv/conv.hpp>
#include <quern/kernels/vec/reference.hpp>

QUERN_BEGIN
namespace conv {

struct Reference {
    std::vector<double> y, tolerance;
};
/// x [N, C, d...], w [M, C / group, k...], y [N, M, o...], all nchw whatever p.layout says; pads at the begins.
inline Reference reference(const Problem& p, const std::vector<std::int64_t>& dx, const std::vector<double>& x, std::int64_t m,
                           const std::vector<double>& w, const std::vector<double>& bias, const std::vector<double>& residual,
                           const std::vector<std::int64_t>& out) {
    int n = p.window.spatial();
    std::int64_t cg = dx[1] / p.group, mg = m / p.group, plane = 1, taps = 1, pixels = 1;
    for (int d = 0; d < n; ++d) plane *= dx[2 + d], taps *= p.window.kernel[d], pixels *= out[d];
    double eps = p.dtype == DType::f32 ? 2e-6 : 1e-14;
    Reference r;
    for (std::int64_t i = 0; i < dx[0]; ++i)
        for (std::int64_t o = 0; o < m; ++o)
            for (std::int64_t q = 0; q < pixels; ++q) {
                double v = 0, mass = 0;
                for (std::int64_t t = 0; t < taps; ++t) {
                    std::int64_t rest_o = q, rest_t = t, at = 0, stride = 1;
                    bool inside = true;
                    for (int d = n - 1; d >= 0; --d) {
                        std::int64_t po = rest_o % out[d], pt = rest_t % p.window.kernel[d];
                        rest_o /= out[d];
                        rest_t /= p.window.kernel[d];
                        std::int64_t pos = po * p.window.strides[d] - p.window.pad_begin(d, dx[2 + d]) + pt * p.window.dilations[d];
                        inside = inside && pos >= 0 && pos < dx[2 + d];
                        at += pos * stride;
                        stride *= dx[2 + d];
                    }
                    if (!inside) continue;
                    for (std::int64_t c = 0; c < cg; ++c) {
                        double s = x[(i * dx[1] + o / mg * cg + c) * plane + at] * w[(o * cg + c) * taps + t];
                        v += s;
                        mass += std::abs(s);
                    }
                }
                auto add = [&](double t) { v += t, mass += std::abs(t); };
                if (!bias.empty()) add(bias[o]);
                if (!residual.empty()) add(residual[(i * m + o) * pixels + q]);
                double y = vec::reference::post(p.post, v, static_cast<double>(p.post_alpha), static_cast<double>(p.post_beta));
                r.y.push_back(y);
                r.tolerance.push_back(eps * (std::sqrt(static_cast<double>(cg * taps + 1)) * mass + std::abs(y)) + 1e-30);
            }
    return r;
}

}  // namespace conv
QUERN_END
