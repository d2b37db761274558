// The run loop: a plan's sizes resolved for concrete shapes, its memory, its steps.
#pragma once
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "../base/pages.hpp"
#include "../base/thread_pool.hpp"
#include "../plan/plan.hpp"
#include "../session.hpp"
#include "../value.hpp"
#include "arena_layout.hpp"

QUERN_BEGIN

/// Memory that only grows, of the host or of a device; 64-byte aligned. Host memory beside a device is page-locked, as far as that is
/// not too much: copies then run at full speed and beside the host. Counts against a budget shared by all arenas of a session.
class Arena {
public:
    static constexpr std::size_t most_pinned = std::size_t{256} << 20;
    explicit Arena(DeviceApi* api = nullptr, Device device = Device::cpu) : api_(api), device_(device) {}
    Arena(Arena&& o) noexcept
        : api_(o.api_), device_(o.device_), pinned_(o.pinned_), data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)), pages_(std::move(o.pages_)) {}
    Arena(const Arena&) = delete;
    Arena& operator=(Arena&&) = delete;
    void swap(Arena& o) noexcept {
        std::swap(api_, o.api_), std::swap(device_, o.device_), std::swap(pinned_, o.pinned_);
        std::swap(data_, o.data_), std::swap(size_, o.size_), std::swap(pages_, o.pages_);
    }
    ~Arena() { release(); }
    /// Makes room for `n` bytes; the contents are lost when it grows. True when the memory moved.
    bool reserve(std::size_t n);
    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

private:
    void release() noexcept;
    DeviceApi* api_;  // null: no device
    Device device_;
    bool pinned_ = false;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    Pages pages_;     // of the host
};

/// What all runners of one session share.
struct RunShared {
    Workers* workers = nullptr;
    std::size_t memory_limit = 0, memory_used = 0;
    std::chrono::steady_clock::time_point deadline = no_deadline;
    std::atomic<std::size_t>* packings = nullptr;  ///< weights packed by kernels chosen while running
    std::atomic<bool> cancelled{false};            ///< by another thread: the run ends at its next step or tile
    bool profile = false;
    std::chrono::steady_clock::time_point profile_start;
    std::vector<StepTime>* times = nullptr;
    void* stream = nullptr;       ///< of the device, for all runners of the session
    void* copy_stream = nullptr;  ///< of copies to the device that overtake what was enqueued before them; made when first needed
    bool device_graphs = true;
    bool unread = false;          ///< copies to or from memory of the host's steps are under way
    /// Counts `after` bytes where there were `before`; raises out_of_memory where memory_limit forbids it.
    void account(std::size_t before, std::size_t after);
};

/// Everything that depends on the concrete shapes of one signature. Recycled: its vectors keep their capacity.
struct Frame {
    struct Step {
        Booking booking;
        std::size_t scratch = 0;            // offset in the segment's arena
        std::array<int, 2> after = {-1, -1};  // by Lane: the last copy that uses memory which the step writes
        std::shared_ptr<Kernel> kernel;      // late choice; or nothing
        std::vector<int> ranks;              // of the inputs that it was chosen for
        std::vector<std::int64_t> key;       // shapes and contents that late inference last saw
        std::vector<std::vector<std::int64_t>> now, late_dims;  // what it gives, and what was resolved
    };
    std::vector<std::int64_t> key;     // rank, dims and room of the inputs, one after the other
    std::vector<std::int64_t> slots;   // the dim program
    std::vector<std::int64_t> dims;    // of ranked values, flattened
    std::vector<std::vector<std::int64_t>> loose;  // of unranked values
    std::vector<View> views;           // by value
    std::vector<std::size_t> offset;   // by root value, in its segment's arena
    std::vector<int> segment_of;       // by root value
    std::vector<std::size_t> segment_bytes;  // host's, then the device's
    struct Recording { std::shared_ptr<const void> graph; int runs = 0; };
    std::vector<Recording> recordings;  // of Plan::recordable, for the addresses that views have now
    std::vector<char> resolved;        // by segment
    std::vector<Tensor> strings;       // by value: string elements live outside of the arena
    std::vector<std::size_t> text;     // by value: bytes of these and of their content, as counted against the limit
    std::vector<std::vector<std::int64_t>> contents;  // symbolic values' memory
    std::vector<View> io;              // views of each step, inputs then outputs
    std::vector<Step> steps;
    std::uint64_t used = 0;            // for eviction
    std::uint64_t placed = 0;          // generation of the arenas that pointers were made for
    std::uint64_t targets = 0;         // and of the application's memory for outputs
    std::uint64_t recorded = 0;        // and of the recordings
};

class Control;

/// Runs one plan; not thread-safe. Subgraphs have runners of their own.
class Runner {
public:
    /// `given[i]`: input i is a Value that the run may empty.
    Runner(std::shared_ptr<const Plan> plan, RunShared& shared, std::vector<char> given = {});
    ~Runner();
    /// One run. `inputs` in the plan's order; their memory must live until outputs are read. One of Plan::caches may have View::room: then its
    /// output lies there, too.
    void run(std::span<const View> inputs);
    /// From the next run on: where outputs that are `to[i]` may be written by the step that makes them, host memory that no input and nothing else of
    /// `to` has; undefined: in the runner's memory. What comes out with other dims or type, or is no memory of the run's own (an input, a constant), stays where it is.
    void write_outputs_to(std::span<const Tensor> to);
    /// Whether these bytes are the runner's.
    bool owns(const void* data, std::size_t bytes) const noexcept;
    /// Waits until what was copied to the host is there.
    void settle();
    const View& output(std::size_t i) const { return frame_->views[plan_->outputs[i]]; }
    DType output_type(std::size_t i) const { return plan_->values[plan_->outputs[i]].dtype; }
    const Plan& plan() const { return *plan_; }
    /// After a run: what step `s` read and wrote.
    std::span<const View> in_views(int s) const { return {frame_->io.data() + io_at_[s], plan_->steps[s].in.size()}; }
    std::span<const View> out_views(int s) const { return {frame_->io.data() + io_at_[s] + plan_->steps[s].in.size(), plan_->steps[s].out.size()}; }
    std::size_t memory_bytes() const;
    void trim();

private:
    friend struct Resolver;
    void bind(std::span<const View> inputs);
    Frame* find_frame(std::span<const View> inputs);
    void init_frame(Frame& f);
    void resolve(int segment);
    void evaluate_dims(int segment, int begin, int end);
    void set_shape(int value);
    std::size_t bytes_of(int value) const;
    void allocate(int segment, int begin, int end, Device device);
    std::size_t arena_of(int segment, Device device) const { return static_cast<std::size_t>(segment) + (device == Device::cpu ? 0 : plan_->segments.size()); }
    void run_step(int step);
    enum Lane { in_turn, overtaking };  // of copies: the stream, the stream of those that run beside it
    Lane lane_of(int step) const { return plan_->steps[step].beside < 0 ? in_turn : overtaking; }
    void find_hazards(int segment, int begin, int end);
    void before_host(int step);
    void wait_for(Lane lane, int step);
    void transfer(int step);
    bool run_recorded(int region);
    void book(int begin, int end);
    void place();
    void late(int step);
    void late_infer(int step, std::vector<std::vector<std::int64_t>>& dims, bool& same);
    void run_control(int step, std::vector<std::vector<std::int64_t>>& dims);
    void refer(int step, std::vector<std::vector<std::int64_t>>& dims);
    void repoint(int root, void* data);
    bool bound_early(int slot) const;
    void fill_io();
    void count_box(int value);
    void count_text(int value, std::size_t content);
    void expect_text(int step);
    void choose_late(int step);
    void execute(int step);
    const Kernel* kernel_of(int step) const { return plan_->steps[step].kernel ? plan_->steps[step].kernel.get() : frame_->steps[step].kernel.get(); }
    std::string where(int step) const;

    std::shared_ptr<const Plan> plan_;
    RunShared& shared_;
    std::vector<int> dims_at_, io_at_;
    std::vector<int> segment_end_;
    std::vector<std::unique_ptr<Frame>> frames_;
    Frame* frame_ = nullptr;
    std::vector<Arena> arenas_;  // by segment, host's, then the device's; shared by all frames
    std::uint64_t clock_ = 0, generation_ = 1, targets_at_ = 0;
    std::vector<Tensor> targets_;                     // by output: where it may be written
    std::vector<int> written_;                        // by output: the root that may be there instead; -1
    std::vector<std::unique_ptr<Control>> controls_;  // by step
    std::vector<Value> boxes_;                        // by value: what is no tensor; for a tensor inside of one, its owner
    std::vector<std::size_t> box_bytes_;              // as counted against the limit
    std::vector<int> takes_;                          // by step: the input whose Value becomes output 0's, or -1
    std::vector<std::vector<int>> views_of_, io_of_;  // by root whose memory moves from run to run: its views, their places in Frame::io
    ArenaLayout layout_;
    std::vector<int> block_of_, scratch_of_;  // of layout_: by root value, by step
    std::vector<View> none_;
    std::vector<std::vector<int>> dying_;  // by step: roots whose last use it is
    std::vector<std::vector<int>> born_;   // by step: roots of which it makes the first columns, and no more
    std::vector<char> adopted_;            // by root: its memory went over to an output
    std::vector<void*> events_;            // by step: behind a copy between memories
    std::array<int, 2> passed_ = {-1, -1};  // by Lane: copies up to this step are done
    bool stale_ = false;                    // work of the run before may be under way
    struct Flight { int step; std::size_t at, end; };
    std::vector<Flight> flying_;           // find_hazards: copies that nothing has waited for, and the memory of the host that they use
};

QUERN_END
