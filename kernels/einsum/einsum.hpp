// Einstein sums: operands are contracted one after the other as batched matrix products.
#pragma once
#include <algorithm>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor/dispatch.hpp>

QUERN_BEGIN
namespace einsum {

/// An equation as labels for each dimension (https://onnx.ai/onnx/operators/onnx__Einsum.html): letters are themselves, dimensions of
/// the ellipsis are 256 and up, the last one of every operand being the same.
struct Equation {
    std::vector<std::vector<int>> in;
    std::vector<int> out;
};
/// One term: letters, and how many dimensions its ellipsis stands for.
inline std::vector<int> term_of(std::string_view text, int rank, int ellipsis_rank, int& found) {
    std::vector<int> labels;
    found = -1;
    int letters = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        char c = text[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) ++letters;
        else if (c == '.' && text.substr(i, 3) == "..." && found < 0) i += 2, found = 0;
        else raise(ErrorCode::invalid_model, "equation has '" + std::string(1, c) + "' where a letter or one ellipsis is accepted");
    }
    bool ellipsis = found == 0;
    if (ellipsis) found = rank < 0 ? ellipsis_rank : rank - letters;
    if (rank >= 0 && (ellipsis ? rank < letters : rank != letters))
        raise(ErrorCode::shape_mismatch, "term '" + std::string(text) + "' of the equation does not fit an operand of rank " + std::to_string(rank));
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '.') labels.push_back(text[i]);
        else {
            for (int e = 0; e < found; ++e) labels.push_back(256 + ellipsis_rank - found + e);
            i += 2;
        }
    }
    return labels;
}
inline Equation parse(std::string_view equation, const std::vector<int>& ranks) {
    std::string text;
    for (char c : equation)
        if (c != ' ') text += c;
    auto arrow = text.find("->");
    std::string_view left = std::string_view(text).substr(0, arrow);
    std::vector<std::string_view> terms;
    for (std::size_t from = 0;;) {
        auto comma = left.find(',', from);
        terms.push_back(left.substr(from, comma == std::string_view::npos ? comma : comma - from));
        if (comma == std::string_view::npos) break;
        from = comma + 1;
    }
    if (terms.size() != ranks.size())
        raise(ErrorCode::invalid_model, "the equation has " + std::to_string(terms.size()) + " terms for " + std::to_string(ranks.size()) + " operands");
    int widest = 0, found;
    for (std::size_t i = 0; i < terms.size(); ++i) {
        term_of(terms[i], ranks[i], 0, found);
        widest = std::max(widest, found);
    }
    Equation e;
    int counts[128] = {};
    for (std::size_t i = 0; i < terms.size(); ++i) {
        e.in.push_back(term_of(terms[i], ranks[i], widest, found));
        for (int l : e.in.back())
            if (l < 128) ++counts[l];
    }
    if (arrow == std::string::npos) {
        for (int d = 0; d < widest; ++d) e.out.push_back(256 + d);
        for (int l = 0; l < 128; ++l)
            if (counts[l] == 1) e.out.push_back(l);
        return e;
    }
    e.out = term_of(std::string_view(text).substr(arrow + 2), -1, widest, found);
    for (std::size_t i = 0; i < e.out.size(); ++i) {
        if (e.out[i] < 128 && counts[e.out[i]] == 0)
            raise(ErrorCode::invalid_model, std::string("the equation's output has '") + static_cast<char>(e.out[i]) + "', which no operand has");
        if (std::find(e.out.begin(), e.out.begin() + static_cast<std::ptrdiff_t>(i), e.out[i]) != e.out.begin() + static_cast<std::ptrdiff_t>(i))
            raise(ErrorCode::invalid_model, "the equation's output repeats a label");
    }
    return e;
}

/// Where a dense block of elements lies: an input, the output (-1) or scratch (-2).
struct Place {
    int input = -2;
    std::int64_t offset = 0;
};
struct Axis {
    int label;
    std::int64_t size, stride;
};
struct Step {
    bool product = false;
    Place a, b, to;
    std::vector<Axis> kept, summed;         // copy: of a, in the order of `to`
    std::int64_t batch = 1, m = 1, n = 1, k = 1;  // product: a [batch, m, k], b [batch, k, n]
};
struct Schedule {
    std::vector<Step> steps;
    std::int64_t elements = 0;  // of scratch
};
struct Operand {
    Place place;
    std::vector<Axis> axes;  // labels unique
    bool has(int label) const {
        return std::any_of(axes.begin(), axes.end(), [&](const Axis& a) { return a.label == label; });
    }
};

/// Decides the steps for concrete shapes.
class Planner {
public:
    Schedule plan(const Equation& e, std::span<const View> in, const View& out) {
        for (std::size_t i = 0; i < e.in.size(); ++i)
            for (std::size_t d = 0; d < e.in[i].size(); ++d) grow(e.in[i][d], in[i].dims[d]);
        std::vector<Operand> rest;
        for (std::size_t i = 0; i < e.in.size(); ++i) rest.push_back(operand(static_cast<int>(i), e.in[i], in[i]));
        Operand acc = rest[0];
        for (std::size_t i = 1; i < rest.size(); ++i) {
            auto needed = [&](int l) {
                if (std::find(e.out.begin(), e.out.end(), l) != e.out.end()) return true;
                for (std::size_t j = i + 1; j < rest.size(); ++j)
                    if (rest[j].has(l)) return true;
                return false;
            };
            acc = contract(acc, rest[i], needed);
        }
        std::vector<int> order;
        for (int l : e.out)
            if (acc.has(l)) order.push_back(l);
        (void)out;
        Operand last = arrange(acc, order, true);
        if (last.place.input == -2 && !s_.steps.empty()) s_.steps.back().to = Place{-1, 0};
        return std::move(s_);
    }

private:
    void grow(int label, std::int64_t size) {
        for (auto& [l, s] : sizes_)
            if (l == label) {
                if (s == 1) s = size;
                else if (size != 1 && size != s)
                    raise(ErrorCode::shape_mismatch, "one label of the equation stands for " + std::to_string(s) + " and " + std::to_string(size));
                return;
            }
        sizes_.push_back({label, size});
    }
    std::int64_t size_of(int label) const {
        for (auto& [l, s] : sizes_)
            if (l == label) return s;
        return 1;
    }
    /// Repeated labels become diagonals; broadcast dimensions disappear.
    Operand operand(int index, const std::vector<int>& labels, const View& v) const {
        Operand o;
        o.place.input = index;
        std::int64_t stride = 1;
        for (std::size_t d = labels.size(); d-- > 0;) {
            auto it = std::find_if(o.axes.begin(), o.axes.end(), [&](const Axis& a) { return a.label == labels[d]; });
            if (v.dims[d] != 1 || size_of(labels[d]) == 1) {
                if (it != o.axes.end()) it->stride += stride;
                else o.axes.insert(o.axes.begin(), Axis{labels[d], v.dims[d], stride});
            }
            stride *= v.dims[d];
        }
        return o;
    }
    /// The operand dense with its axes in this order; other axes are summed.
    Operand arrange(const Operand& o, const std::vector<int>& order, bool always) {
        Step s;
        s.a = o.place;
        Operand r;
        std::int64_t count = 1;
        for (int l : order)
            for (const Axis& a : o.axes)
                if (a.label == l) s.kept.push_back(a), count = times(count, a.size);
        for (const Axis& a : o.axes)
            if (std::find(order.begin(), order.end(), a.label) == order.end()) s.summed.push_back(a);
        r.axes = s.kept;
        std::int64_t stride = 1;
        bool dense = s.summed.empty();
        for (std::size_t i = r.axes.size(); i-- > 0;) {
            if (r.axes[i].size != 1 && r.axes[i].stride != stride) dense = false;
            r.axes[i].stride = stride;
            stride *= r.axes[i].size;
        }
        if (dense && (!always || o.place.input == -2)) {
            r.place = o.place;
            return r;
        }
        r.place = s.to = room(count);
        s_.steps.push_back(std::move(s));
        return r;
    }
    static constexpr std::int64_t most = std::int64_t{1} << 44;  ///< elements; sums and products of a few stay in 64 bits
    static std::int64_t times(std::int64_t a, std::int64_t b) {
        if (b > 0 && a > most / b) raise(ErrorCode::out_of_memory, "an intermediate result of the equation has more than 2^44 elements");
        return a * b;
    }
    Place room(std::int64_t count) {
        Place p{-2, s_.elements};
        if (s_.elements > most) raise(ErrorCode::out_of_memory, "intermediate results of the equation have more than 2^44 elements");
        s_.elements += (count + 15) / 16 * 16;
        return p;
    }
    template <class Needed>
    Operand contract(const Operand& a, const Operand& b, Needed&& needed) {
        std::vector<int> batch, m, n, k, la, lb, lc;
        Step s;
        s.product = true;
        for (const Axis& x : a.axes) {
            bool both = b.has(x.label), later = needed(x.label);
            if (both && later) batch.push_back(x.label), s.batch = times(s.batch, x.size);
            else if (both) k.push_back(x.label), s.k = times(s.k, x.size);
            else if (later) m.push_back(x.label), s.m = times(s.m, x.size);
        }
        for (const Axis& x : b.axes)
            if (!a.has(x.label) && needed(x.label)) n.push_back(x.label), s.n = times(s.n, x.size);
        for (auto* v : {&batch, &m, &k}) la.insert(la.end(), v->begin(), v->end());
        for (auto* v : {&batch, &k, &n}) lb.insert(lb.end(), v->begin(), v->end());
        for (auto* v : {&batch, &m, &n}) lc.insert(lc.end(), v->begin(), v->end());
        s.a = arrange(a, la, false).place;
        s.b = arrange(b, lb, false).place;
        Operand r;
        std::int64_t stride = 1;
        for (std::size_t i = lc.size(); i-- > 0;) {
            r.axes.insert(r.axes.begin(), Axis{lc[i], size_of(lc[i]), stride});
            stride = times(stride, size_of(lc[i]));
        }
        r.place = s.to = room(stride);
        s_.steps.push_back(std::move(s));
        return r;
    }
    Schedule s_;
    std::vector<std::pair<int, std::int64_t>> sizes_;
};

/// f32, f64, i32 or i64 (integers wrap).
class ContractKernel final : public Kernel {
public:
    ContractKernel(DType dtype, Equation e, const vec::Table& t) : dtype_(dtype), e_(std::move(e)), t_(t) {}
    const char* name() const noexcept override { return "einsum.contract"; }
    Booking book(std::span<const View> in, std::span<const View> out, int workers) const override {
        auto s = std::make_shared<Schedule>(Planner().plan(e_, in, out[0]));
        Booking b;
        b.scratch = work_bytes() * static_cast<std::size_t>(workers) + static_cast<std::size_t>(s->elements) * static_cast<std::size_t>(dtype_bits(dtype_) / 8);
        b.state = std::move(s);
        return b;
    }
    void run(const Call& c) const override {
        dispatch_arith(dtype_, [&](auto tag) {
            using T = typename decltype(tag)::type;
            T* scratch = reinterpret_cast<T*>(c.scratch + work_bytes() * static_cast<std::size_t>(c.workers.width()));
            auto at = [&](const Place& p) {
                return p.input == -2 ? scratch + p.offset : p.input == -1 ? c.out[0].out<T>() : static_cast<T*>(c.in[static_cast<std::size_t>(p.input)].data);
            };
            for (const Step& s : static_cast<const Schedule*>(c.state)->steps) {
                if (s.product) product(c, s, at(s.a), at(s.b), at(s.to));
                else copy(c, s, at(s.a), at(s.to));
            }
        });
    }

private:
    std::size_t work_bytes() const { return (t_.gemm_work_bytes(tile_rows, 4096, 4096) + 63) / 64 * 64; }
    static constexpr std::int64_t tile_rows = 64;
    template <class T>
    static void copy(const Call& c, const Step& s, const T* from, T* to) {
        std::int64_t n = s.kept.empty() ? 1 : s.kept.back().size, step = s.kept.empty() ? 1 : s.kept.back().stride, rows = 1, sums = 1;
        for (std::size_t d = 0; d + 1 < s.kept.size(); ++d) rows *= s.kept[d].size;
        for (const Axis& a : s.summed) sums *= a.size;
        auto place = [](const std::vector<Axis>& axes, std::size_t count, std::int64_t i) {
            std::int64_t at = 0;
            for (std::size_t d = count; d-- > 0;) {
                at += i % axes[d].size * axes[d].stride;
                i /= axes[d].size;
            }
            return at;
        };
        std::int64_t work = std::max<std::int64_t>(1, n * std::max<std::int64_t>(1, sums));
        c.workers.ranges(rows, std::max<std::int64_t>(1, 16384 / work), [&](std::int64_t r0, std::int64_t r1) {
            for (std::int64_t r = r0; r < r1; ++r) {
                const T* f = from + place(s.kept, s.kept.empty() ? 0 : s.kept.size() - 1, r);
                T* t = to + r * n;
                if (sums != 1 || !s.summed.empty()) std::fill_n(t, n, T{0});
                for (std::int64_t q = 0; q < sums; ++q) {
                    const T* g = f + place(s.summed, s.summed.size(), q);
                    if (s.summed.empty()) for (std::int64_t i = 0; i < n; ++i) t[i] = g[i * step];
                    else for (std::int64_t i = 0; i < n; ++i) t[i] = plus(t[i], g[i * step]);
                }
            }
        });
    }
    template <class T>
    static T plus(T a, T b) {
        if constexpr (std::is_integral_v<T>) return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) + static_cast<std::make_unsigned_t<T>>(b));
        else return a + b;
    }
    template <class T>
    void product(const Call& c, const Step& s, const T* a, const T* b, T* to) const {
        std::int64_t blocks = (s.m + tile_rows - 1) / tile_rows, work = std::max<std::int64_t>(1, std::min(s.m, tile_rows) * s.n * std::max<std::int64_t>(1, s.k));
        std::int64_t grain = std::max<std::int64_t>(1, 65536 / work), n = s.batch * blocks;
        c.workers.for_each((n + grain - 1) / grain, [&](std::int64_t tile, int worker) {
            void* mem = c.scratch + work_bytes() * static_cast<std::size_t>(worker);
            for (std::int64_t i = tile * grain; i < std::min(n, (tile + 1) * grain); ++i) {
                std::int64_t batch = i / blocks, m0 = i % blocks * tile_rows, rows = std::min(tile_rows, s.m - m0);
                const T *pa = a + (batch * s.m + m0) * s.k, *pb = b + batch * s.k * s.n;
                T* pc = to + (batch * s.m + m0) * s.n;
                if constexpr (std::is_same_v<T, float>) t_.gemm_f32(rows, s.n, s.k, pa, s.k, false, pb, s.n, false, pc, s.n, {}, mem);
                else if constexpr (std::is_same_v<T, double>) t_.gemm_f64(rows, s.n, s.k, pa, s.k, false, pb, s.n, false, pc, s.n, mem);
                else small(rows, s, pa, pb, pc);
            }
        });
    }
    template <class T>
    static void small(std::int64_t rows, const Step& s, const T* a, const T* b, T* c) {
        using U = std::make_unsigned_t<T>;
        for (std::int64_t i = 0; i < rows; ++i) {
            std::fill_n(c + i * s.n, s.n, T{0});
            for (std::int64_t k = 0; k < s.k; ++k) {
                U x = static_cast<U>(a[i * s.k + k]);
                for (std::int64_t j = 0; j < s.n; ++j) c[i * s.n + j] = static_cast<T>(static_cast<U>(c[i * s.n + j]) + x * static_cast<U>(b[k * s.n + j]));
            }
        }
    }
    DType dtype_;
    Equation e_;
    const vec::Table& t_;
};

}  // namespace einsum
QUERN_END
