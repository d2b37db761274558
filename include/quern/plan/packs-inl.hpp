#pragma once
#include <algorithm>
#include <cstring>
#include <functional>
#include <tuple>

#include "../base/checksum.hpp"
#include "packs.hpp"

QUERN_BEGIN

namespace packs_detail {
struct Known {
    std::mutex lock;
    std::vector<std::pair<const MappedFile*, std::weak_ptr<PackRegistry>>> registries;  // a registry keeps its file
};
/// Never destroyed: models may end after static objects have.
inline Known& known() {
    static Known* k = new Known;
    return *k;
}
}  // namespace packs_detail

QUERN_INLINE std::shared_ptr<PackRegistry> PackRegistry::of(std::shared_ptr<const MappedFile> file) {
    if (!file) return std::make_shared<PackRegistry>();
    auto& known = packs_detail::known();
    std::lock_guard<std::mutex> l(known.lock);
    std::erase_if(known.registries, [](auto& r) { return r.second.expired(); });
    for (auto& [f, r] : known.registries)
        if (auto there = f == file.get() ? r.lock() : nullptr) return there;
    auto made = std::make_shared<PackRegistry>();
    known.registries.emplace_back(file.get(), made);
    made->add(std::move(file));
    return made;
}
QUERN_INLINE void PackRegistry::add(std::shared_ptr<const MappedFile> file) {
    std::lock_guard<std::mutex> l(lock_);
    if (std::find(files_.begin(), files_.end(), file) != files_.end()) return;
    stable_.push_back(file->bytes());
    files_.push_back(std::move(file));
}
QUERN_INLINE void PackRegistry::add_stable(std::span<const std::byte> bytes) {
    std::lock_guard<std::mutex> l(lock_);
    stable_.push_back(bytes);
}
QUERN_INLINE bool PackRegistry::is_stable(const Tensor& t) const noexcept {
    const auto* p = static_cast<const std::byte*>(t.raw());
    std::lock_guard<std::mutex> l(lock_);
    return std::any_of(stable_.begin(), stable_.end(), [&](auto& s) { return p >= s.data() && p < s.data() + s.size(); });
}
QUERN_INLINE std::string PackRegistry::identity(const Tensor& t) const {
    constexpr std::size_t few = 4096;
    const std::string type = "#" + std::string(dtype_name(t.dtype())) + t.shape().to_string();
    if (is_stable(t)) return type + "@" + std::to_string(reinterpret_cast<std::uintptr_t>(t.raw()));
    if (t.dtype() == DType::string || t.bytes() > few) return {};
    return type + "=" + std::string(static_cast<const char*>(t.raw()), t.bytes());
}
/// Kept as long as the registry; null for other memory.
QUERN_INLINE const MappedFile* PackRegistry::file_of(const void* from) const noexcept {
    const auto* p = static_cast<const std::byte*>(from);
    std::lock_guard<std::mutex> l(lock_);
    for (auto& f : files_)
        if (auto b = f->bytes(); p >= b.data() && p < b.data() + b.size()) return f.get();
    return nullptr;
}
QUERN_INLINE void PackRegistry::expected(const void* from, std::size_t bytes) const noexcept {
    if (auto* file = file_of(from)) file->expect(from, bytes);
}
QUERN_INLINE void PackRegistry::consumed(const void* from, std::size_t bytes) const noexcept {
    if (auto* file = file_of(from)) file->forget(from, bytes);
}
QUERN_INLINE void PackRegistry::forget_files(std::vector<std::span<const std::byte>> read) const {
    std::sort(read.begin(), read.end(), [](auto& a, auto& b) { return std::less<>()(a.data(), b.data()); });
    std::lock_guard<std::mutex> l(lock_);
    for (auto& f : files_) {
        const std::byte *at = f->bytes().data(), *end = at + f->size();
        for (auto& r : read) {
            if (std::less<>()(r.data(), at) || std::less<>()(end, r.data() + r.size())) continue;
            f->forget(at, static_cast<std::size_t>(r.data() - at));
            at = r.data() + r.size();
        }
        f->forget(at, static_cast<std::size_t>(end - at));
    }
}
QUERN_INLINE Tensor PackRegistry::find(const std::string& key) {
    std::lock_guard<std::mutex> l(lock_);
    auto it = made_.find(key);
    auto held = it == made_.end() ? nullptr : it->second.lock();
    return held ? shared(held) : Tensor();
}
QUERN_INLINE Tensor PackRegistry::add(const std::string& key, Tensor made) {
    std::lock_guard<std::mutex> l(lock_);
    auto& weak = made_[key];
    auto held = weak.lock();
    if (!held) {
        held = std::make_shared<const Tensor>(std::move(made));
        weak = held;
    }
    return shared(held);
}
QUERN_INLINE Tensor PackRegistry::shared(const std::shared_ptr<const Tensor>& held) { return Tensor::share(held->dtype(), held->shape(), held->raw(), held); }
QUERN_INLINE Tensor PackRegistry::merge(const std::string& layout, Tensor made) {
    const std::string key = layout + "#" + std::to_string(checksum({static_cast<const std::byte*>(made.raw()), made.bytes()}));
    std::lock_guard<std::mutex> l(lock_);
    auto& list = computed_[key];
    std::erase_if(list, [](const Held& h) { return h.expired(); });
    for (const Held& h : list)
        if (auto held = h.lock(); held && held->bytes() == made.bytes() && std::memcmp(held->raw(), made.raw(), made.bytes()) == 0) return shared(held);
    list.push_back({});
    auto held = std::make_shared<const Tensor>(std::move(made));
    list.back() = held;
    return shared(held);
}

QUERN_INLINE PackStore::PackStore(std::shared_ptr<PackRegistry> registry, std::size_t expected_bytes, const std::vector<PlanPack>* made)
    : registry_(std::move(registry)), block_bytes_(std::clamp<std::size_t>(expected_bytes, std::size_t{64} << 10, std::size_t{64} << 20)), closed_(made != nullptr),
      patience_(std::min(most_patience, static_cast<std::int64_t>(expected_bytes >> 20) * patience_per_mb)) {
    if (made)
        for (auto& p : *made) given_[p.node + "#" + std::to_string(p.ordinal)] = {p.layout, p.data};
}
QUERN_INLINE std::vector<PlanPack> PackStore::take() {
    for (Block& b : blocks_) {
        b.pages->drop(b.used);
        if (small_) b.pages->expect(0, b.used);  // the system may make them huge in the background
    }
    std::sort(packs_.begin(), packs_.end(), [](auto& a, auto& b) { return std::tie(a.node, a.ordinal) < std::tie(b.node, b.ordinal); });
    return std::move(packs_);
}
QUERN_INLINE std::shared_ptr<Pages> PackStore::fresh(std::size_t bytes) {
    auto pages = std::make_shared<Pages>(bytes, small_ ? 0 : bytes);
    if (!pages->data()) raise(ErrorCode::out_of_memory, "no memory for " + std::to_string(bytes) + " bytes of weights");
    if (small_) pages->expect_small(0);
    return pages;
}
QUERN_INLINE void PackStore::touch(Pages& p, std::size_t from, std::size_t to) noexcept {
    if (p.touch(from, to, small_, patience_)) return;
    std::lock_guard<std::mutex> l(lock_);
    if (small_.exchange(true)) return;
    for (Block& b : blocks_)
        b.pages->expect_small(0);
}
/// The largest weights come first: the small ones that follow fill what these left of each block.
QUERN_INLINE PackStore::Room PackStore::memory(std::size_t bytes) {
    const std::size_t n = (bytes + 63) / 64 * 64;
    std::lock_guard<std::mutex> l(lock_);
    auto b = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& x) { return n <= x.pages->size() - x.used; });
    if (b == blocks_.end()) b = blocks_.insert(b, Block{fresh(n > block_bytes_ / 2 ? n : block_bytes_), 0});
    Room r{b->pages, b->used};
    b->used += n;
    return r;
}
QUERN_INLINE void PackStore::give_back(const Tensor& t) {
    const auto* from = static_cast<const std::byte*>(t.raw());
    const std::size_t n = (t.bytes() + 63) / 64 * 64;
    std::lock_guard<std::mutex> l(lock_);
    auto b = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& x) { return n <= x.used && x.pages->data() + (x.used - n) == from; });
    if (b == blocks_.end()) return;
    b->used -= n;
    if (b->used == 0) blocks_.erase(b);
}
/// Memory of at least `bytes` that nobody uses.
QUERN_INLINE PackStore::Spare PackStore::spare(std::size_t bytes) {
    {
        std::lock_guard<std::mutex> l(lock_);
        std::erase_if(spares_, [&](auto& s) { return s.pages->size() / 4 > bytes; });
        for (auto& s : spares_)
            if (s.pages->size() >= bytes) {
                std::swap(s, spares_.back());
                Spare found = std::move(spares_.back());
                spares_.pop_back();
                // The largest come first: what lies behind would stay to the end.
                if (found.there > bytes) found.pages->drop(bytes);
                found.there = std::min(found.there, bytes);
                return found;
            }
    }
    return {fresh(bytes), 0};
}

QUERN_INLINE NodePacks::~NodePacks() {
    std::lock_guard<std::mutex> l(store_.lock_);
    for (Copy& c : copies_) {
        c.copy = Tensor();
        if (c.memory.pages && c.memory.pages.use_count() == 1 && store_.spares_.size() < 8) store_.spares_.push_back(std::move(c.memory));
    }
}
QUERN_INLINE Tensor NodePacks::get(std::string_view layout, std::span<const Tensor> sources, std::size_t bytes, const Fill& fill, bool in_step) {
    PlanPack p{node_, count_++, std::string(layout), {}};
    if (store_.closed_) {
        auto it = store_.given_.find(p.node + "#" + std::to_string(p.ordinal));
        if (it == store_.given_.end() || it->second.first != layout || it->second.second.bytes() != bytes)
            raise(ErrorCode::invalid_model, "the engine file has " + (it == store_.given_.end() ? std::string("no weights") : "weights packed as '" + it->second.first + "' in " + std::to_string(it->second.second.bytes()) + " bytes") +
                                                " where '" + p.layout + "' in " + std::to_string(bytes) + " bytes is needed: compile the model again");
        p.data = it->second.second;
    } else {
        std::string key;
        auto original = [&](const Tensor& s) -> const Tensor& {
            for (auto& c : copies_)
                if (c.copy.raw() == s.raw()) return c.original;
            return s;
        };
        if (store_.registry_) {
            key = p.layout + "#" + std::to_string(bytes);
            for (const Tensor& source : sources) {
                const std::string id = store_.registry_->identity(original(source));
                if (id.empty()) {
                    key.clear();
                    break;
                }
                key += id;
            }
            if (!key.empty()) p.data = store_.registry_->find(key);
        }
        if (!p.data.defined()) {
            filling_ = store_.memory(bytes);
            p.data = Tensor::share(DType::u8, Shape{static_cast<std::int64_t>(bytes)}, filling_.pages->data() + filling_.at, filling_.pages);
            for (const Tensor& source : sources) {
                if (!store_.registry_ || source.dtype() == DType::string) continue;
                // Of what is large only a part is there at a time, beside what was packed of it.
                const bool large = source.bytes() > 2 * ahead;
                if (large) reading_ = {static_cast<const std::byte*>(source.raw()), source.bytes()};
                store_.registry_->expected(source.raw(), large ? ahead : source.bytes());
            }
            touched_ = filling_.at, until_ = filling_.at + bytes;
            touch_more(in_step ? ahead : bytes);
            fill(static_cast<std::byte*>(p.data.raw()));
            filling_ = {};
            reading_ = {};
            ++made_;
            if (store_.registry_) {
                Tensor kept = key.empty() ? store_.registry_->merge(p.layout, p.data) : store_.registry_->add(key, p.data);
                if (kept.raw() != p.data.raw()) store_.give_back(p.data);
                p.data = std::move(kept);
            }
        }
    }
    Tensor data = p.data;
    std::lock_guard<std::mutex> l(store_.lock_);
    store_.packs_.push_back(std::move(p));
    return data;
}
QUERN_INLINE Tensor NodePacks::aligned(const Tensor& t) {
    constexpr std::size_t small = std::size_t{64} << 10;
    std::size_t element = static_cast<std::size_t>(std::max(8, std::min(dtype_bits(t.dtype()), 64))) / 8;
    if (t.bytes() < small || t.dtype() == DType::string || reinterpret_cast<std::uintptr_t>(t.raw()) % element == 0) {
        Tensor a = t.aligned();
        if (a.raw() != t.raw()) copies_.push_back({a, t, {}});
        return a;
    }
    // In parts, whose pages in the file go at once.
    constexpr std::size_t part = std::size_t{1} << 20;
    PackStore::Spare memory = store_.spare(t.bytes());
    std::byte* const to = memory.pages->data();
    const auto* from = static_cast<const std::byte*>(t.raw());
    for (std::size_t at = 0; at < t.bytes(); at += part) {
        const std::size_t n = std::min(part, t.bytes() - at);
        if (store_.registry_) store_.registry_->expected(from + at, n);
        if (at + n > memory.there) {
            store_.touch(*memory.pages, memory.there, at + n);
            memory.there = at + n;
        }
        std::memcpy(to + at, from + at, n);
        consumed(from + at, n);
    }
    Tensor a = Tensor::share(t.dtype(), t.shape(), to, memory.pages);
    copies_.push_back({a, t, std::move(memory)});
    return a;
}
QUERN_INLINE bool NodePacks::copied(const Tensor& t) const noexcept {
    return std::any_of(copies_.begin(), copies_.end(), [&](auto& c) { return c.original.raw() == t.raw(); });
}
QUERN_INLINE void NodePacks::consumed(const void* from, std::size_t bytes) noexcept {
    if (store_.registry_) store_.registry_->consumed(from, bytes);
    if (filling_.pages) touch_more(bytes);
    // What was read is gone: as much comes.
    const auto* p = static_cast<const std::byte*>(from);
    if (reading_.empty() || p < reading_.data() || p >= reading_.data() + reading_.size()) return;
    const auto at = static_cast<std::size_t>(p - reading_.data()) + ahead;
    if (at < reading_.size()) store_.registry_->expected(reading_.data() + at, std::min(bytes, reading_.size() - at));
}
/// As much of what is packed comes into memory as leaves the source.
QUERN_INLINE void NodePacks::touch_more(std::size_t bytes) noexcept {
    const std::size_t to = touched_ + std::min(bytes, until_ - touched_);
    if (to > touched_) store_.touch(*filling_.pages, touched_, to);
    touched_ = to;
}

QUERN_END
