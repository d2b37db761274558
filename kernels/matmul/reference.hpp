// The oracle of the matmul family, in double, and its tolerance.
#pragma once
#include <vector>

#include <quern/kernels/matmul/matmul.hpp>
#include <quern/kernels/vec/reference.hpp>

QUERN_BEGIN
namespace matmul {

struct Reference {
    std::vector<double> y;
    std::vector<double> tolerance;  ///< absolute, per element
};
/// Operands as flat lists with their dims; `bias` is empty or broadcasts to the last two dims [M, N] of Y by
/// bias_dims (2 of them). The domain is every finite value.
inline Reference reference(const Problem& p, std::vector<std::int64_t> da, const std::vector<double>& a, std::vector<std::int64_t> db,
                           const std::vector<double>& b, const std::vector<double>& bias, std::vector<std::int64_t> bias_dims,
                           const std::vector<double>& residual) {
    bool ta = p.trans_a && da.size() > 1, tb = p.trans_b && db.size() > 1;
    if (da.size() == 1) da.insert(da.begin(), 1);
    if (db.size() == 1) db.push_back(1);
    std::int64_t m = da[da.size() - (ta ? 1 : 2)], k = da[da.size() - (ta ? 2 : 1)], n = db[db.size() - (tb ? 2 : 1)];
    std::size_t rank = std::max(da.size(), db.size());
    da.insert(da.begin(), rank - da.size(), 1);
    db.insert(db.begin(), rank - db.size(), 1);
    std::int64_t batch = 1;
    for (std::size_t i = 0; i + 2 < rank; ++i) batch *= da[i] == 1 ? db[i] : da[i];
    Reference r;
    double eps = p.dtype == DType::f32 ? 1e-6 : 1e-14;
    for (std::int64_t q = 0; q < batch; ++q) {
        std::int64_t rest = q, ia = 0, ib = 0, sa = 1, sb = 1;
        for (std::size_t d = rank - 2; d-- > 0;) {
            std::int64_t size = da[d] == 1 ? db[d] : da[d], at = rest % size;
            rest /= size;
            ia += da[d] == 1 ? 0 : at * sa;
            ib += db[d] == 1 ? 0 : at * sb;
            sa *= da[d];
            sb *= db[d];
        }
        for (std::int64_t i = 0; i < m; ++i)
            for (std::int64_t j = 0; j < n; ++j) {
                double v = 0, mass = 0;
                for (std::int64_t l = 0; l < k; ++l) {
                    double t = a[ia * m * k + (ta ? l * m + i : i * k + l)] * b[ib * k * n + (tb ? j * k + l : l * n + j)];
                    v += t;
                    mass += std::abs(t);
                }
                v *= static_cast<double>(p.alpha);
                mass *= std::abs(static_cast<double>(p.alpha));
                auto add = [&](double t) { v += t, mass += std::abs(t); };
                if (!bias.empty()) add(bias[(bias_dims[0] == 1 ? 0 : i) * bias_dims[1] + (bias_dims[1] == 1 ? 0 : j)]);
                if (!residual.empty()) add(residual[(q * m + i) * n + j]);
                double y = vec::reference::post(p.post, v, static_cast<double>(p.post_alpha), static_cast<double>(p.post_beta));
                r.y.push_back(y);
                r.tolerance.push_back(eps * (std::sqrt(static_cast<double>(k + 1)) * mass * 1.2 + std::abs(y)) + 1e-30);
            }
    }
    return r;
}

}  // namespace matmul
QUERN_END
