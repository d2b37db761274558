// Control steps while running: If, Loop, Scan and what keeps values between the runs of a subgraph.
#pragma once
#include "runner.hpp"
#include "../value.hpp"

QUERN_BEGIN

/// A control node with the runners of its subgraphs. Not thread-safe.
class Control {
public:
    virtual ~Control() = default;
    /// `in`: the node's inputs, captured ones last. Their memory must live until the outputs are read.
    virtual void run(std::span<const View> in) = 0;
    /// Valid until the next run.
    std::span<const View> outputs() const noexcept { return out_; }
    std::size_t memory_bytes() const;
    void trim();

protected:
    Control(const Plan& plan, const PlanStep& step, RunShared& shared);
    void run_body(Runner& body, std::span<const View> args);
    void add_body(const std::shared_ptr<const Plan>& plan);
    /// Output `o` is `v`; a tensor becomes a Value where the plan has an optional there: an optional that has a value is that value.
    void give(std::size_t o, const View& v);
    RunShared& shared_;
    std::vector<std::unique_ptr<Runner>> bodies_;  // by attribute name
    std::vector<View> out_;
    std::vector<Kind> kinds_;  // of the outputs as planned
    std::vector<Value> boxes_;
    virtual std::size_t kept_bytes() const { return 0; }
};

/// The control operator of the step, ready to run.
std::unique_ptr<Control> make_control(const Plan& plan, const PlanStep& step, RunShared& shared);

/// A value that outlives the run that made it: a copy that grows on demand and is written over next time.
class Kept {
public:
    /// As a value of `kind`: a tensor is boxed where that is none.
    void assign(const View& from, RunShared& shared, Kind kind);
    /// Begins an empty list of slices.
    void clear() noexcept { slices_ = 0; }
    /// Appends `slice`; all slices have one shape.
    void append(const View& slice, RunShared& shared);
    /// The slices as one tensor with their number in front, in reverse order if asked for. `like`: the shape of a slice
    /// where there is none, -1 where it is not known. Where not `wanted`, nothing was appended, whatever number there were.
    /// Once after the last append.
    View stacked(bool reverse, std::span<const std::int64_t> like, DType type, bool wanted);
    const View& view() const noexcept { return view_; }
    std::size_t bytes() const noexcept { return memory_.size() + strings_.capacity() * sizeof(std::string); }

private:
    std::byte* room(std::size_t n, std::size_t keep, RunShared& shared);
    Arena memory_;
    std::vector<std::string> strings_;
    std::vector<std::int64_t> dims_;
    Value box_;
    View view_;
    std::int64_t slices_ = 0, slice_count_ = 0;
    std::size_t at_ = 0;
};

QUERN_END
