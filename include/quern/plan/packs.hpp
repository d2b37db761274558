// Packed weights of engines: memory in few large blocks, each weight once for a model.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <quern/kernels/packs.hpp>

#include "../base/mapped_file.hpp"
#include "../base/pages.hpp"

QUERN_BEGIN

/// What was packed from the bytes of one model, for as long as an engine uses it: engines of the same model, and of other models of the same
/// file, find each other's. Thread-safe.
class QUERN_API PackRegistry {
public:
    /// The registry of all models of `file` in this process; of its own where `file` is null.
    static std::shared_ptr<PackRegistry> of(std::shared_ptr<const MappedFile> file);
    /// Keeps `file`, whose bytes are then stable.
    void add(std::shared_ptr<const MappedFile> file);
    /// Bytes that stay where they are, unchanged, as long as the registry: only they identify a weight by its address.
    void add_stable(std::span<const std::byte> bytes);
    bool is_stable(const Tensor& t) const noexcept;
    /// What tells the content of `t` from others: where it is stable its address, where it is short its bytes; else empty.
    std::string identity(const Tensor& t) const;
    /// These bytes are read next: see MappedFile::expect.
    void expected(const void* from, std::size_t bytes) const noexcept;
    /// See Packs::consumed.
    void consumed(const void* from, std::size_t bytes) const noexcept;
    /// The files' pages leave memory, those too that lie across the ends of two weights, but for what is read where it is: a page that comes
    /// back may bring 2 MB around it.
    void forget_files(std::vector<std::span<const std::byte>> read) const;
    Tensor find(const std::string& key);
    /// What is there under the key from now on: `made`, or what another thread put there meanwhile.
    Tensor add(const std::string& key, Tensor made);
    /// For weights that the passes computed, anew for each engine: equal bytes that are there in this layout, or `made`.
    Tensor merge(const std::string& layout, Tensor made);

private:
    using Held = std::weak_ptr<const Tensor>;
    const MappedFile* file_of(const void* from) const noexcept;
    static Tensor shared(const std::shared_ptr<const Tensor>& held);
    mutable std::mutex lock_;
    std::vector<std::span<const std::byte>> stable_;
    std::vector<std::shared_ptr<const MappedFile>> files_;
    std::unordered_map<std::string, Held> made_;
    std::unordered_map<std::string, std::vector<Held>> computed_;  ///< by layout and checksum
};

/// A packed weight of a plan. `node` names the first output of its node, in nested graphs after the names of the nodes around it.
struct PlanPack {
    std::string node;
    int ordinal = 0;  ///< the node's kernel asked for it as the how-manieth
    std::string layout;
    Tensor data;
};

/// Gives out memory for the packed weights of one engine. Thread-safe.
class QUERN_API PackStore {
public:
    /// `made`: weights that need no packing (an engine file's); others are not packed then, for their sources may not be there.
    explicit PackStore(std::shared_ptr<PackRegistry> registry, std::size_t expected_bytes, const std::vector<PlanPack>* made = nullptr);
    /// The packs of all nodes, sorted by node and ordinal; the store forgets them.
    std::vector<PlanPack> take();
    PackRegistry* registry() const noexcept { return registry_.get(); }

private:
    friend class NodePacks;
    struct Block {
        std::shared_ptr<Pages> pages;
        std::size_t used;
    };
    /// How long huge pages may keep an engine waiting: 0.5 GB of those that the system is slow to find take over a second where small ones
    /// take 0.15, and runs are 0.5 to 4 % slower with these. In proportion to what packing takes anyway.
    static constexpr std::int64_t patience_per_mb = 100'000, most_patience = 20'000'000;  // nanoseconds
    struct Room {
        std::shared_ptr<Pages> pages;
        std::size_t at;
    };
    /// Memory for an aligned copy.
    struct Spare {
        std::shared_ptr<Pages> pages;
        std::size_t there = 0;  ///< bytes that were touched and stayed
    };
    Room memory(std::size_t bytes);
    void give_back(const Tensor& t);  ///< where it was the last one taken of its block
    Spare spare(std::size_t bytes);  ///< asks for less and less: lower_all() makes the largest weights first
    std::shared_ptr<Pages> fresh(std::size_t bytes);
    void touch(Pages& p, std::size_t from, std::size_t to) noexcept;
    std::shared_ptr<PackRegistry> registry_;
    std::size_t block_bytes_;
    bool closed_;  ///< nothing new is packed
    std::atomic<std::int64_t> patience_;
    std::atomic<bool> small_{false};  ///< huge pages are slow to come
    std::mutex lock_;
    std::vector<Block> blocks_;
    std::unordered_map<std::string, std::pair<std::string, Tensor>> given_;  ///< layout and bytes, by node and ordinal
    std::vector<PlanPack> packs_;
    std::vector<Spare> spares_;  ///< used again and again
};

/// The Packs of one node.
class QUERN_API NodePacks final : public Packs {
public:
    NodePacks(PackStore& store, std::string node) : store_(store), node_(std::move(node)) {}
    ~NodePacks();
    NodePacks(const NodePacks&) = delete;
    NodePacks& operator=(const NodePacks&) = delete;
    Tensor get(std::string_view layout, std::span<const Tensor> sources, std::size_t bytes, const Fill& fill, bool in_step) override;
    Tensor aligned(const Tensor& t) override;
    void consumed(const void* from, std::size_t bytes) noexcept override;
    int count() const noexcept { return count_; }  ///< weights asked for
    int made() const noexcept { return made_; }    ///< of these packed now
    bool copied(const Tensor& t) const noexcept;   ///< aligned() copied it

private:
    void touch_more(std::size_t bytes) noexcept;
    PackStore& store_;
    std::string node_;
    struct Copy {
        Tensor copy, original;
        PackStore::Spare memory;
    };
    std::vector<Copy> copies_;
    PackStore::Room filling_{};                ///< what fill() writes now,
    std::size_t touched_ = 0, until_ = 0;      ///< how far its pages are there, and go
    std::span<const std::byte> reading_;       ///< the source that comes into memory as it is packed
    static constexpr std::size_t ahead = std::size_t{4} << 20;  ///< kernels consume as much at a time, at most
    int count_ = 0, made_ = 0;
};

QUERN_END
