// Where blocks that are needed for a while each lie in one piece of memory.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../error.hpp"

QUERN_BEGIN

/// Offsets for blocks so that those needed at the same step do not overlap, in little more than the most that is needed at any step.
/// Recycled: its vectors keep their capacity.
class ArenaLayout {
public:
    void clear() { blocks_.clear(); }
    /// A block of `bytes`, needed from `step` on, which is no earlier than that of the block before.
    int take(std::size_t bytes, int step) {
        blocks_.push_back({(bytes + 63) / 64 * 64, step, never, 0});
        return static_cast<int>(blocks_.size()) - 1;
    }
    /// `step` is the last that needs the block; blocks that are not given are needed to the end.
    void give(int block, int step) { blocks_[static_cast<std::size_t>(block)].last = step; }
    /// Decides all offsets; the bytes that they need. Raises out_of_memory where no memory could hold them.
    std::size_t place();
    /// A multiple of 64.
    std::size_t offset(int block) const { return blocks_[static_cast<std::size_t>(block)].at; }
    /// The most that is needed at a step: no layout takes less.
    std::size_t least() const noexcept { return least_; }

private:
    static constexpr int never = INT32_MAX;
    static constexpr std::size_t most_by_size = 4096;  // blocks: the time grows with their square
    struct Block {
        std::size_t size;
        int first, last;
        std::size_t at;
    };
    struct Hole {
        std::size_t at, size;
    };
    std::size_t in_order();
    std::size_t by_size();
    std::size_t take_hole(std::size_t n, std::size_t& top);
    void add_hole(std::size_t at, std::size_t n);

    std::vector<Block> blocks_;
    std::vector<Hole> holes_;           // by offset
    std::vector<int> order_, placed_;
    std::vector<std::size_t> kept_;     // offsets in order of steps
    std::size_t least_ = 0;
};

/// In the order of steps blocks go where memory was used last, which is still in the cache; where that leaves holes, the largest go first.
inline std::size_t ArenaLayout::place() {
    std::size_t total = in_order();
    if (total <= least_ + least_ / 16 || blocks_.size() > most_by_size) return total;
    kept_.clear();
    for (const Block& b : blocks_) kept_.push_back(b.at);
    const std::size_t other = by_size();
    if (other < total) return other;
    for (std::size_t i = 0; i < blocks_.size(); ++i) blocks_[i].at = kept_[i];
    return total;
}

inline std::size_t ArenaLayout::take_hole(std::size_t n, std::size_t& top) {
    auto best = holes_.end();
    for (auto h = holes_.begin(); h != holes_.end(); ++h)
        if (h->size >= n && (best == holes_.end() || h->size < best->size)) best = h;
    if (best != holes_.end()) {
        const std::size_t at = best->at;
        best->at += n;
        best->size -= n;
        if (!best->size) holes_.erase(best);
        return at;
    }
    std::size_t at = top;
    if (!holes_.empty() && holes_.back().at + holes_.back().size == top) {  // the last hole grows
        at = holes_.back().at;
        holes_.pop_back();
    }
    top = at + n;
    return at;
}
inline void ArenaLayout::add_hole(std::size_t at, std::size_t n) {
    auto it = std::lower_bound(holes_.begin(), holes_.end(), at, [](const Hole& h, std::size_t a) { return h.at < a; });
    it = holes_.insert(it, Hole{at, n});
    if (auto next = it + 1; next != holes_.end() && it->at + it->size == next->at) {
        it->size += next->size;
        it = holes_.erase(next) - 1;
    }
    if (it != holes_.begin())
        if (auto before = it - 1; before->at + before->size == it->at) {
            before->size += it->size;
            holes_.erase(it);
        }
}
/// Each in the smallest hole that is large enough when its first step comes.
inline std::size_t ArenaLayout::in_order() {
    holes_.clear();
    order_.resize(blocks_.size());
    for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<int>(i);
    std::sort(order_.begin(), order_.end(), [&](int a, int b) {
        const Block &x = blocks_[static_cast<std::size_t>(a)], &y = blocks_[static_cast<std::size_t>(b)];
        return x.last != y.last ? x.last < y.last : a < b;
    });
    std::size_t top = 0, live = 0, done = 0;
    least_ = 0;
    for (Block& b : blocks_) {
        for (; done < order_.size() && blocks_[static_cast<std::size_t>(order_[done])].last < b.first; ++done)
            if (const Block& gone = blocks_[static_cast<std::size_t>(order_[done])]; gone.size) add_hole(gone.at, gone.size), live -= gone.size;
        b.at = 0;
        if (!b.size) continue;
        if (b.size > SIZE_MAX / 2 - top) raise(ErrorCode::out_of_memory, "the activations do not fit into memory");
        live += b.size;
        least_ = std::max(least_, live);
        b.at = take_hole(b.size, top);
    }
    return top;
}
/// The largest first, each in the smallest gap between those that share a step with it.
inline std::size_t ArenaLayout::by_size() {
    std::sort(order_.begin(), order_.end(), [&](int a, int b) {
        const Block &x = blocks_[static_cast<std::size_t>(a)], &y = blocks_[static_cast<std::size_t>(b)];
        return x.size != y.size ? x.size > y.size : a < b;
    });
    placed_.clear();  // by offset
    std::size_t top = 0;
    for (int i : order_) {
        Block& b = blocks_[static_cast<std::size_t>(i)];
        if (!b.size) break;
        std::size_t cursor = 0, at = 0, best = SIZE_MAX;
        for (int k : placed_) {
            const Block& p = blocks_[static_cast<std::size_t>(k)];
            if (p.first > b.last || p.last < b.first) continue;
            if (p.at > cursor && p.at - cursor >= b.size && p.at - cursor < best) at = cursor, best = p.at - cursor;
            cursor = std::max(cursor, p.at + p.size);
        }
        if (best == SIZE_MAX) at = cursor;
        if (b.size > SIZE_MAX / 2 - at) return SIZE_MAX;  // in_order() fits
        b.at = at;
        top = std::max(top, at + b.size);
        auto place = std::upper_bound(placed_.begin(), placed_.end(), at, [&](std::size_t a, int k) { return a < blocks_[static_cast<std::size_t>(k)].at; });
        placed_.insert(place, i);
    }
    return top;
}

QUERN_END
