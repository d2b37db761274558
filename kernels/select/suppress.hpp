// NonMaxSuppression.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/select/order.hpp>

QUERN_BEGIN
namespace selection {

/// Boxes that were kept, found again by the strip of x that their left side lies in: of thousands (detectors move the boxes of
/// each class to a place of their own) only those near a candidate are compared with it.
class Strips {
public:
    struct Box { float y0, x0, y1, x1; };
    /// Strips for boxes whose left sides lie in [lo, hi]; others are taken too, at the ends.
    Strips(float lo, float hi, std::int64_t boxes) : lo_(lo) {
        strips_.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(boxes / 16, 1, 1024)));
        scale_ = static_cast<float>(strips_.size()) / (hi - lo);
    }
    void add(const Box& b) {
        Strip& s = strips_[at(b.x0)];
        s.y0.push_back(b.y0), s.x0.push_back(b.x0), s.y1.push_back(b.y1), s.x1.push_back(b.x1);
        widest_ = std::max(widest_, b.x1 - b.x0);  // of infinite boxes NaN is left out: they overlap nothing by more than NaN
    }
    /// Whether a kept box overlaps `b` by more than `limit` of what both cover together.
    bool overlaps(const Box& b, float limit) const {
        float reach = b.x0 - widest_;
        reach -= (std::abs(b.x0) + widest_) * 1e-6f;  // the widths and this difference were rounded
        for (std::size_t i = at(reach), last = at(b.x1); i <= last; ++i)
            if (any(strips_[i], b, limit)) return true;
        return false;
    }

private:
    struct Strip { std::vector<float> y0, x0, y1, x1; };
    std::size_t at(float x) const {
        float v = (x - lo_) * scale_;
        if (!(v > 0)) return 0;
        return v < static_cast<float>(strips_.size()) ? static_cast<std::size_t>(v) : strips_.size() - 1;
    }
    static bool any(const Strip& s, const Box& b, float limit) {
        const std::size_t n = s.x0.size();
        const float area = (b.x1 - b.x0) * (b.y1 - b.y0);
        for (std::size_t i = 0; i < n;) {
            int found = 0;
            for (const std::size_t end = std::min(n, i + 16); i < end; ++i) {
                float w = std::min(b.x1, s.x1[i]) - std::max(b.x0, s.x0[i]), h = std::min(b.y1, s.y1[i]) - std::max(b.y0, s.y0[i]);
                float both = w * h, areas = area + (s.x1[i] - s.x0[i]) * (s.y1[i] - s.y0[i]) - both;
                found |= static_cast<int>(w > 0) & static_cast<int>(h > 0) & static_cast<int>(areas > 0) & static_cast<int>(both / areas > limit);
            }
            if (found) return true;
        }
        return false;
    }
    std::vector<Strip> strips_;
    float lo_, scale_ = 0, widest_ = 0;
};

/// boxes[batches, n, 4], scores[batches, classes, n] -> [selected, 3] of batch, class, box
/// (https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html).
class NonMaxSuppression final : public Kernel {
public:
    explicit NonMaxSuppression(bool centers) : centers_(centers) {}
    const char* name() const noexcept override { return "non_max_suppression.portable"; }
    bool measure(const Call& call, std::vector<std::int64_t>* dims) const override {
        dims[0] = {static_cast<std::int64_t>(select(call).size() / 3), 3};
        return true;
    }
    void run(const Call& call) const override {
        auto s = select(call);
        if (static_cast<std::int64_t>(s.size()) != call.out[0].count()) raise(ErrorCode::internal, "selection changed between measuring and running");
        std::copy(s.begin(), s.end(), call.out[0].out<std::int64_t>());
    }

private:
    using Box = Strips::Box;
    Box box(const float* p) const {
        if (centers_) return {p[1] - p[3] / 2, p[0] - p[2] / 2, p[1] + p[3] / 2, p[0] + p[2] / 2};
        return {std::min(p[0], p[2]), std::min(p[1], p[3]), std::max(p[0], p[2]), std::max(p[1], p[3])};
    }
    /// Sorts by score, the largest first and NaN last; equal ones stay in order.
    static std::uint64_t key(float score, std::int64_t i) { return ranked(score != score ? ~0u : ~rank_of(score), i); }
    struct Limits {
        std::int64_t count;
        float iou, least;
        bool cut;
    };
    /// The boxes of one class that stay, best first.
    std::vector<std::int64_t> one(const float* boxes, const float* s, std::int64_t n, const Limits& l) const {
        std::vector<std::uint64_t> order;
        order.reserve(static_cast<std::size_t>(n));
        float lo = std::numeric_limits<float>::infinity(), hi = -lo;
        for (std::int64_t i = 0; i < n; ++i)
            if (!l.cut || s[i] > l.least) {
                order.push_back(key(s[i], i));
                float x = box(boxes + i * 4).x0;
                lo = std::min(lo, x), hi = std::max(hi, x);
            }
        Strips chosen(lo, hi, static_cast<std::int64_t>(order.size()));
        std::vector<std::int64_t> kept;
        // Only as many are put in order as are looked at.
        std::size_t sorted = 0, next = static_cast<std::size_t>(std::max<std::int64_t>(128, std::min(l.count, n))) * 2;
        for (std::size_t at = 0; at < order.size() && static_cast<std::int64_t>(kept.size()) < l.count; ++at) {
            if (at == sorted) {
                auto from = order.begin() + static_cast<std::ptrdiff_t>(sorted);
                sorted += std::min(next, order.size() - sorted);
                auto to = order.begin() + static_cast<std::ptrdiff_t>(sorted);
                if (to != order.end()) std::nth_element(from, to, order.end());
                std::sort(from, to);
                next *= 4;
            }
            const std::int64_t i = position_of(order[at]);
            Box b = box(boxes + i * 4);
            const bool area = b.x1 > b.x0 && b.y1 > b.y0;  // what has none overlaps nothing, and any number of such boxes may be there
            if (area && chosen.overlaps(b, l.iou)) continue;
            if (area) chosen.add(b);
            kept.push_back(i);
        }
        return kept;
    }
    std::vector<std::int64_t> select(const Call& call) const {
        const View &boxes = call.in[0], &scores = call.in[1];
        auto scalar = [&](std::size_t i) { return call.in.size() > i && call.in[i].present() && call.in[i].count() > 0; };
        Limits l{scalar(2) ? *call.in[2].in<std::int64_t>() : 0, scalar(3) ? *call.in[3].in<float>() : 0, 0, scalar(4)};
        if (!(l.iou >= 0 && l.iou <= 1)) raise(ErrorCode::shape_mismatch, "an iou_threshold of " + std::to_string(l.iou) + "; accepted: 0 to 1");
        if (l.cut) l.least = *call.in[4].in<float>();
        const std::int64_t n = boxes.dims[1], classes = scores.dims[1];
        if (n == 0) return {};
        if (n > most_ranked) raise(ErrorCode::shape_mismatch, std::to_string(n) + " boxes; accepted: up to " + std::to_string(most_ranked));
        std::vector<std::vector<std::int64_t>> kept(static_cast<std::size_t>(scores.dims[0] * classes));
        call.workers.for_each(scores.dims[0] * classes, [&](std::int64_t bc) {
            kept[static_cast<std::size_t>(bc)] = one(boxes.in<float>() + bc / classes * n * 4, scores.in<float>() + bc * n, n, l);
        });
        std::vector<std::int64_t> r;
        for (std::size_t bc = 0; bc < kept.size(); ++bc)
            for (std::int64_t i : kept[bc]) {
                r.push_back(static_cast<std::int64_t>(bc) / classes);
                r.push_back(static_cast<std::int64_t>(bc) % classes);
                r.push_back(i);
            }
        return r;
    }
    bool centers_;
};

}  // namespace selection
QUERN_END
