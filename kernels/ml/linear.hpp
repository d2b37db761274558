// Linear models and support vector machines.
#pragma once
#include <cmath>
#include <memory>
#include <vector>

#include "../vec/vec.hpp"
#include "scores.hpp"
#include <quern/tensor.hpp>

QUERN_BEGIN
namespace ml {

/// C[m, n] = X[m, k] times the transposed W[n, k], f32, W packed once.
class Product {
public:
    Product() = default;
    Product(const std::vector<float>& w, std::int64_t n, std::int64_t k, Isa isa) : t_(&vec::table(isa)), n_(n), k_(k) {
        if (n <= 1) { row_ = w; return; }
        packed_ = Tensor::uninitialized(DType::f32, Shape{static_cast<std::int64_t>(t_->packed_floats(n, k))});
        t_->pack_b_f32(n, k, w.data(), k, true, 1, static_cast<float*>(packed_.raw()));
    }
    std::int64_t n() const noexcept { return n_; }
    std::int64_t k() const noexcept { return k_; }
    std::size_t bytes() const noexcept { return packed_.bytes() + row_.size() * 4; }
    std::size_t work_bytes(std::int64_t m) const { return n_ <= 1 ? 0 : (t_->gemm_work_bytes(m, n_, k_) + 63) / 64 * 64; }
    void run(std::int64_t m, const float* x, float* c, void* work) const {
        if (n_ > 1) return t_->gemm_packed_f32(m, n_, k_, x, k_, false, static_cast<const float*>(packed_.raw()), c, n_, vec::Epilogue{}, work);
        for (std::int64_t i = 0; i < m && n_ == 1; ++i) c[i] = t_->dot_f32(x + i * k_, row_.data(), k_);
    }

private:
    const vec::Table* t_ = nullptr;
    std::int64_t n_ = 0, k_ = 0;
    Tensor packed_;
    std::vector<float> row_;
};

/// Rows of a [rows, features] input; one row where it is [features].
inline std::int64_t rows_of(const View& x) { return x.rank < 2 ? 1 : x.dims[0]; }
inline constexpr std::int64_t row_tile = 32;  ///< rows that one worker takes at a time
inline void need_width(const View& x, std::int64_t k) {
    if (x.dim(-1) != k) raise(ErrorCode::shape_mismatch, "the model has " + std::to_string(k) + " features; the input has " + std::to_string(x.dim(-1)));
}

/// X [rows, k] -> scores [rows, columns] = transform(X W^T + b) as the last output, and before it labels [rows] where it classifies.
struct LinearSpec {
    Post post = Post::none;
    std::vector<float> bias;   ///< n, or empty
    bool classifies = false;
    Labels labels;
    bool second = false;       ///< one score for two classes: columns are 1 - s and s (after the transform)
};
class Linear final : public Kernel {
public:
    Linear(Product p, LinearSpec s) : p_(std::move(p)), s_(std::move(s)) {}
    const char* name() const noexcept override { return "linear_model.portable"; }
    std::size_t packed_bytes() const noexcept override { return p_.bytes(); }
    Booking book(std::span<const View>, std::span<const View>, int workers) const override { return {static_cast<std::size_t>(workers) * each(), nullptr}; }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        const View label = s_.classifies ? call.out[0] : View{}, z = !s_.classifies ? call.out[0] : call.out.size() > 1 ? call.out[1] : View{};
        need_width(x, p_.k());
        const std::int64_t rows = rows_of(x), n = p_.n(), columns = s_.second ? 2 : n;
        call.workers.for_each((rows + row_tile - 1) / row_tile, [&](std::int64_t tile, int worker) {
            std::byte* scratch = call.scratch + static_cast<std::size_t>(worker) * each();
            auto* c = reinterpret_cast<float*>(scratch);
            auto* v = reinterpret_cast<double*>(scratch + product_bytes());
            const std::int64_t begin = tile * row_tile, m = std::min(row_tile, rows - begin);
            p_.run(m, x.in<float>() + begin * p_.k(), c, scratch + product_bytes() + row_bytes());
            for (std::int64_t i = 0; i < m; ++i) {
                for (std::int64_t k = 0; k < n; ++k) v[k] = static_cast<double>(c[i * n + k]) + (s_.bias.empty() ? 0 : static_cast<double>(s_.bias[static_cast<std::size_t>(k)]));
                if (s_.classifies) s_.labels.write(label, begin + i, n == 1 ? v[0] > 0 : largest(v, n));
                transform(s_.post, v, n);
                if (s_.second) v[1] = v[0], v[0] = 1 - v[1];
                write_scores(z, (begin + i) * columns, v, columns);
            }
        });
    }

private:
    std::size_t product_bytes() const { return (static_cast<std::size_t>(row_tile * p_.n()) * 4 + 63) / 64 * 64; }
    std::size_t row_bytes() const { return (static_cast<std::size_t>(p_.n() + 2) * 8 + 63) / 64 * 64; }
    std::size_t each() const { return product_bytes() + row_bytes() + p_.work_bytes(row_tile); }
    Product p_;
    LinearSpec s_;
};

/// kernel_type and kernel_params of https://onnx.ai/onnx/operators/onnx_aionnxml_SVMClassifier.html.
struct SvmKernel {
    enum class Type : std::uint8_t { linear, poly, rbf, sigmoid } type = Type::linear;
    double gamma = 0, coef0 = 0, degree = 0;
};
/// Values of the kernel between rows of X and the support vectors.
class Support {
public:
    Support() = default;
    Support(const std::vector<float>& vectors, std::int64_t n, std::int64_t k, SvmKernel kernel, Isa isa)
        : t_(&vec::table(isa)), kernel_(kernel), n_(n), k_(k) {
        if (kernel.type == SvmKernel::Type::rbf) vectors_ = vectors;
        else product_ = Product(vectors, n, k, isa);
    }
    std::int64_t n() const noexcept { return n_; }
    std::int64_t k() const noexcept { return k_; }
    std::size_t bytes() const noexcept { return vectors_.size() * 4 + product_.bytes(); }
    std::size_t work_bytes(std::int64_t m) const { return kernel_.type == SvmKernel::Type::rbf ? static_cast<std::size_t>(k_ + 15) / 16 * 64 : product_.work_bytes(m); }
    /// c[m, n] for rows x[m, k].
    void run(std::int64_t m, const float* x, float* c, void* work) const {
        if (kernel_.type == SvmKernel::Type::rbf) {
            // Differences first: |x|^2 + |s|^2 - 2xs cancels where a vector is near.
            auto* d = static_cast<float*>(work);
            for (std::int64_t i = 0; i < m; ++i)
                for (std::int64_t s = 0; s < n_; ++s) {
                    t_->binary_f32[static_cast<int>(vec::Binary::sub)](x + i * k_, vectors_.data() + s * k_, d, k_);
                    const float square = t_->reduce_f32[static_cast<int>(vec::Reduce::sum_square)](d, k_);
                    c[i * n_ + s] = static_cast<float>(std::exp(-kernel_.gamma * static_cast<double>(square)));
                }
            return;
        }
        product_.run(m, x, c, work);
        if (kernel_.type == SvmKernel::Type::linear) return;
        for (std::int64_t i = 0; i < m * n_; ++i) {
            const double v = kernel_.gamma * static_cast<double>(c[i]) + kernel_.coef0;
            c[i] = static_cast<float>(kernel_.type == SvmKernel::Type::poly ? std::pow(v, kernel_.degree) : std::tanh(v));
        }
    }

private:
    const vec::Table* t_ = nullptr;
    SvmKernel kernel_;
    std::int64_t n_ = 0, k_ = 0;
    std::vector<float> vectors_;
    Product product_;
};

/// Probabilities of n classes from those of pairs, r[i * n + j] = P(i | i or j): the second method of Wu, Lin and Weng, "Probability estimates
/// for multi-class classification by pairwise coupling", JMLR 5 (2004). `q` has room for n * (n + 1).
inline void couple(std::int64_t n, const double* r, double* p, double* q) {
    double* qp = q + n * n;
    for (std::int64_t i = 0; i < n; ++i) {
        p[i] = 1 / static_cast<double>(n);
        q[i * n + i] = 0;
        for (std::int64_t j = 0; j < n; ++j) {
            if (j == i) continue;
            q[i * n + i] += r[j * n + i] * r[j * n + i];
            q[i * n + j] = -r[j * n + i] * r[i * n + j];
        }
    }
    for (int round = 0; round < 100; ++round) {
        double pqp = 0, worst = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            qp[i] = 0;
            for (std::int64_t j = 0; j < n; ++j) qp[i] += q[i * n + j] * p[j];
            pqp += p[i] * qp[i];
        }
        for (std::int64_t i = 0; i < n; ++i) worst = std::max(worst, std::abs(qp[i] - pqp));
        if (worst < 0.005 / static_cast<double>(n)) break;
        for (std::int64_t i = 0; i < n; ++i) {
            const double d = (pqp - qp[i]) / q[i * n + i];
            p[i] += d;
            pqp = (pqp + d * (d * q[i * n + i] + 2 * qp[i])) / (1 + d) / (1 + d);
            for (std::int64_t j = 0; j < n; ++j) {
                qp[j] = (qp[j] + d * q[i * n + j]) / (1 + d);
                p[j] /= 1 + d;
            }
        }
    }
}

struct SvmSpec {
    Post post = Post::none;
    std::vector<float> coefficients, rho, prob_a, prob_b;
    bool classifies = false, one_class = false;
    Labels labels;
    std::vector<std::int64_t> begin;  ///< where each class's vectors begin, and the end; empty: a linear model of n rows
    std::int64_t columns = 1;
};
/// X [rows, k] -> labels and scores (classifier) or [rows, 1] (regressor).
class Svm final : public Kernel {
public:
    Svm(Support support, SvmSpec s) : v_(std::move(support)), s_(std::move(s)) {}
    const char* name() const noexcept override { return "svm.portable"; }
    std::size_t packed_bytes() const noexcept override { return v_.bytes(); }
    Booking book(std::span<const View>, std::span<const View>, int workers) const override { return {static_cast<std::size_t>(workers) * each(), nullptr}; }
    void run(const Call& call) const override {
        const View& x = call.in[0];
        need_width(x, v_.k());
        const std::int64_t rows = rows_of(x);
        call.workers.for_each((rows + row_tile - 1) / row_tile, [&](std::int64_t tile, int worker) {
            std::byte* scratch = call.scratch + static_cast<std::size_t>(worker) * each();
            auto* c = reinterpret_cast<float*>(scratch);
            auto* d = reinterpret_cast<double*>(scratch + product_bytes());
            const std::int64_t begin = tile * row_tile, m = std::min(row_tile, rows - begin);
            v_.run(m, x.in<float>() + begin * v_.k(), c, scratch + product_bytes() + row_bytes());
            for (std::int64_t i = 0; i < m; ++i) {
                if (!s_.classifies) regress(c + i * v_.n(), d, call.out[0], begin + i);
                else classify(c + i * v_.n(), d, call.out[0], call.out.size() > 1 ? call.out[1] : View{}, begin + i);
            }
        });
    }

private:
    std::int64_t classes() const { return s_.labels.count(); }
    /// Doubles of one row: scores of pairs, probabilities of pairs, coupling, votes.
    std::size_t row_bytes() const {
        const auto n = static_cast<std::size_t>(std::max<std::int64_t>(s_.classifies ? classes() : 1, 2));
        return (n * (n - 1) / 2 + 2 + n * n + n * (n + 1) + 2 * n) * 8 / 64 * 64 + 64;
    }
    std::size_t product_bytes() const { return (static_cast<std::size_t>(row_tile * v_.n()) * 4 + 63) / 64 * 64; }
    std::size_t each() const { return product_bytes() + row_bytes() + v_.work_bytes(row_tile); }

    void regress(const float* k, double* d, const View& y, std::int64_t r) const {
        d[0] = s_.rho.empty() ? 0 : static_cast<double>(s_.rho[0]);
        if (s_.begin.empty()) d[0] += static_cast<double>(k[0]);
        else
            for (std::int64_t v = 0; v < v_.n(); ++v) d[0] += static_cast<double>(k[v]) * static_cast<double>(s_.coefficients[static_cast<std::size_t>(v)]);
        transform(s_.post, d, 1);
        if (s_.one_class) d[0] = d[0] > 0 ? 1 : -1;
        write_scores(y, r, d, 1);
    }
    void classify(const float* k, double* pairs, const View& label, const View& z, std::int64_t r) const {
        const std::int64_t n = classes(), n_pairs = n * (n - 1) / 2;
        if (s_.begin.empty()) {
            for (std::int64_t c = 0; c < v_.n(); ++c) pairs[c] = static_cast<double>(k[c]) + static_cast<double>(s_.rho[0]);
            s_.labels.write(label, r, v_.n() == 1 ? pairs[0] > 0 : largest(pairs, v_.n()));
            transform(s_.post, pairs, v_.n());
            return write_scores(z, r * s_.columns, pairs, s_.columns);
        }
        pairs[0] = pairs[1] = 0;
        double *probability = pairs + n_pairs + 2, *work = probability + n * n, *p = work + n * (n + 1), *votes = p + n;
        std::fill(votes, votes + n, 0.0);
        std::int64_t at = 0;
        auto dot = [&](std::int64_t row, std::int64_t c) {
            double sum = 0;
            const float* coefficient = s_.coefficients.data() + row * v_.n();
            for (std::int64_t v = s_.begin[static_cast<std::size_t>(c)]; v < s_.begin[static_cast<std::size_t>(c) + 1]; ++v)
                sum += static_cast<double>(coefficient[v]) * static_cast<double>(k[v]);
            return sum;
        };
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = i + 1; j < n; ++j, ++at) {
                pairs[at] = dot(j - 1, i) + dot(i, j) + static_cast<double>(s_.rho[static_cast<std::size_t>(at)]);
                votes[pairs[at] > 0 ? i : j] += 1;
            }
        s_.labels.write(label, r, largest(votes, n));
        if (!s_.prob_a.empty()) {
            at = 0;
            for (std::int64_t i = 0; i < n; ++i)
                for (std::int64_t j = i + 1; j < n; ++j, ++at) {
                    const double v = 1 - logistic(pairs[at] * static_cast<double>(s_.prob_a[static_cast<std::size_t>(at)]) + static_cast<double>(s_.prob_b[static_cast<std::size_t>(at)]));
                    probability[i * n + j] = std::clamp(v, 1e-7, 1 - 1e-7);
                    probability[j * n + i] = 1 - probability[i * n + j];
                }
            couple(n, probability, p, work);
            transform(s_.post, p, n);
            return write_scores(z, r * s_.columns, p, s_.columns);
        }
        if (n == 2) {
            if (s_.post == Post::none) pairs[1] = pairs[0], pairs[0] = -pairs[1];
            else transform(s_.post, pairs, 1), pairs[1] = pairs[0], pairs[0] = 1 - pairs[1];
        } else {
            transform(s_.post, pairs, n_pairs);
        }
        write_scores(z, r * s_.columns, pairs, s_.columns);
    }
    Support v_;
    SvmSpec s_;
};

}  // namespace ml
QUERN_END
