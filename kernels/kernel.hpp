// What a kernel is. Kernels see tensors and attributes; they know no graph.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <quern/base/workers.hpp>
#include <quern/device.hpp>
#include <quern/error.hpp>
#include <quern/options.hpp>
#include <quern/tensor.hpp>
#include <quern/tensor/view.hpp>

QUERN_BEGIN

class Tensor;

/// What a kernel asks for at one concrete shape, before it runs.
struct Booking {
    std::size_t scratch = 0;             ///< bytes, 64-byte aligned, contents undefined at each run
    std::shared_ptr<const void> state;   ///< whatever depends on the shape (primitives, tables)
};

struct Call {
    std::span<const View> in;
    std::span<const View> out;
    std::byte* scratch;
    const void* state;
    Workers& workers;
    /// For a device kernel: its stream (cudaStream_t). All views and scratch are device memory, except inputs in host_in.
    void* stream = nullptr;
    std::span<const View> weights = {};  ///< device_weights() in device memory
};

/// A kernel with everything that does not depend on concrete shapes decided. Immutable and shared by
/// sessions and threads after it is made. Kernels may assume: ranks and types as when they were made,
/// outputs shaped by the operator's inference, data aligned to the element, no overlap of inputs and
/// outputs except what `inplace` allows.
/// A View of another kind than tensor points to a Value: inputs are read, an output is assigned. Tensors that are
/// put into a Value own their memory or share that of an input Value.
class Kernel {
public:
    virtual ~Kernel() = default;
    /// "family.backend", as profiles and `inspect` show it.
    virtual const char* name() const noexcept = 0;
    /// Called when a concrete shape is new to a session; `data` of views is not valid.
    virtual Booking book(std::span<const View> in, std::span<const View> out, int workers) const {
        (void)in, (void)out, (void)workers;
        return {};
    }
    virtual void run(const Call&) const = 0;
    /// Operators whose output sizes come from the data alone (NonZero, NonMaxSuppression, Unique):
    /// writes each output's dims to dims[o]; called with data valid, directly before run(); outputs' views
    /// are empty. Returns false where sizes follow from shapes (most kernels).
    virtual bool measure(const Call&, std::vector<std::int64_t>* dims) const {
        (void)dims;
        return false;
    }
    /// Where `refers`: the tensor that output 0 is, which an input Value holds. run() is not called and nothing is copied.
    virtual const Tensor* refer(const Call&) const { return nullptr; }
    bool refers = false;
    /// Bytes of weights that this kernel keeps packed.
    virtual std::size_t packed_bytes() const noexcept { return 0; }
    /// Bit k set: output 0 may be written over input k when that is not needed afterwards
    /// and has the same number of bytes. Where both are Values, input and output are then the same object.
    std::uint32_t inplace = 0;
    /// Bit k set: run() never reads input k (its constant was packed when the kernel was made); book() may
    /// still look at its shape.
    std::uint32_t unread = 0;
    /// Device kernels: bit k set: input k (a shape, axes, sizes) is read on the host, its view points to host memory.
    std::uint32_t host_in = 0;
    /// Device kernels: what was packed when the kernel was made; uploaded once, Call::weights shows it to run().
    virtual std::span<const Tensor> device_weights() const noexcept { return {}; }
    /// Bit k set: run() reads input k byte by byte, so that it need not be aligned to its elements.
    std::uint32_t bytewise = 0;
    /// Bit k set: the rows of input k may lie apart (View::pitch).
    std::uint32_t strided_in = 0;
    /// The rows of output 0 may lie apart.
    bool strided_out = false;
    /// Output 0 is the inputs beside each other in the last dimension. What a producer wrote there itself is left alone, so that
    /// the plan may place an input inside of the output; inputs and output may be strided.
    bool joins = false;
    /// Bit k set: input k may have View::room.
    std::uint32_t roomy_in = 0;
    /// Output 0 is input 0 with more rows. Where the output has View::room it lies in the memory of the input, and only what is new is written;
    /// book() raises where that is more than there is room for.
    bool grows = false;
};
// run() of a device kernel only enqueues on Call::stream: it neither allocates nor waits, and host memory that it reads
// is read before it returns. What it enqueues may be recorded and replayed for the same shapes and addresses.

class Packs;  // kernels/packs.hpp

/// What kernels are chosen for.
struct Target {
    Isa isa = Isa::baseline;
    std::span<const Backend* const> backends;
    /// Receives each refusal: kernel name and reason.
    std::vector<std::string>* refusals = nullptr;
    Device device = Device::cpu;
    int sm = 0;         ///< compute capability times ten (90: sm_90); 0 on the CPU
    bool winograd = true;  ///< Options::winograd
    bool tf32 = false;  ///< products of f32 may be rounded to TF32 on the device
    /// Where packed weights live; null: in memory of their own.
    Packs* packs = nullptr;
    /// select() takes the entry of this name if it accepts; empty: the best that does.
    std::string_view prefer;
    /// Receives the names of all entries that accept, when tuning.
    std::vector<std::string>* accepted = nullptr;
    LogCallback log = {};  ///< Options::log
};

/// One candidate of a family. P is the family's plan-time problem (attributes, types, constant weights).
template <class P>
struct Entry {
    const char* name;
    /// Empty: accepted; else why not.
    std::string (*refuse)(const P&, const Target&);
    std::unique_ptr<Kernel> (*make)(const P&, const Target&);
};

/// Families with more than one kernel; the order is that of Backend::lists.
enum class Family : std::uint8_t {
#define QUERN_FAMILY(name, space) name,
#include "families.inc"
#undef QUERN_FAMILY
    count
};

struct RankedEntry {
    const void* entry;  ///< Entry<P> of the family's P
    int rank;           ///< line in kernels.inc: smaller is better
};
class DeviceApi;  // kernels/device.hpp
/// What a backend library brings: for each family its lines of kernels.inc, best first.
struct Backend {
    const char* name;
    std::span<const RankedEntry> lists[static_cast<int>(Family::count)];
    Device device = Device::cpu;  ///< where its kernels run
    /// Opens device number `ordinal`; raises unsupported saying why it cannot be used. Null for the CPU.
    std::shared_ptr<DeviceApi> (*open)(int ordinal, const Options&) = nullptr;
};

namespace detail {
/// The first entry after rank `below` over the merged lists; null at the end.
inline const RankedEntry* next_entry(Family family, const Target& target, int below) {
    const RankedEntry* best = nullptr;
    for (const Backend* b : target.backends)
        for (const RankedEntry& e : b->lists[static_cast<int>(family)])
            if (b->device == target.device && e.rank > below && (!best || e.rank < best->rank)) best = &e;
    return best;
}
}  // namespace detail

/// Rank of the kernel that select() would take (smaller is better), or INT_MAX: how passes compare layouts.
template <class P>
int best_rank(Family family, const P& problem, const Target& target) {
    for (const RankedEntry* e = detail::next_entry(family, target, -1); e; e = detail::next_entry(family, target, e->rank))
        if (static_cast<const Entry<P>*>(e->entry)->refuse(problem, target).empty()) return e->rank;
    return std::numeric_limits<int>::max();
}

/// The best kernel of a family that accepts the problem; refusals go to target.refusals.
/// Raises unsupported with all reasons when none does.
template <class P>
std::unique_ptr<Kernel> select(Family family, const P& problem, const Target& target) {
    std::string reasons;
    auto each = [&](auto&& f) {
        for (const RankedEntry* e = detail::next_entry(family, target, -1); e; e = detail::next_entry(family, target, e->rank)) f(*static_cast<const Entry<P>*>(e->entry));
    };
    const Entry<P>* wanted = nullptr;
    if (!target.prefer.empty() || target.accepted)
        each([&](const Entry<P>& e) {
            if (!target.accepted && e.name != target.prefer) return;
            if (!e.refuse(problem, target).empty()) return;
            if (e.name == target.prefer) wanted = &e;
            if (target.accepted) target.accepted->push_back(e.name);
        });
    if (wanted) return wanted->make(problem, target);
    for (const RankedEntry* e = detail::next_entry(family, target, -1); e; e = detail::next_entry(family, target, e->rank)) {
        auto* entry = static_cast<const Entry<P>*>(e->entry);
        std::string why = entry->refuse(problem, target);
        if (why.empty()) return entry->make(problem, target);
        if (target.refusals) target.refusals->push_back(std::string(entry->name) + ": " + why);
        reasons += (reasons.empty() ? "" : "; ") + std::string(entry->name) + ": " + why;
    }
    raise(ErrorCode::unsupported, reasons.empty() ? "the family has no kernel for this device" : "no kernel accepts this: " + reasons);
}

QUERN_END
