// What the run loop does with a device: copies between memories, what waits for them, recorded regions.
#pragma once
#include "runner-inl.hpp"

QUERN_BEGIN

/// Steps of the host write where copies still read or write: for each the last copy of which it has to wait.
QUERN_INLINE void Runner::find_hazards(int segment, int begin, int end) {
    const Plan& p = *plan_;
    Frame& f = *frame_;
    flying_.clear();
    auto here = [&](int root) { return p.values[root].home == PlanValue::Home::arena && p.values[root].device == Device::cpu && p.values[root].dtype != DType::string && f.segment_of[root] == segment; };
    for (int s = begin; s < end; ++s) {
        const PlanStep& st = p.steps[s];
        if (st.transfer == Transfer::to_device || st.transfer == Transfer::to_host) {
            const int root = p.values[st.transfer == Transfer::to_device ? st.in[0] : st.out[0]].root;
            if (here(root)) flying_.push_back({s, f.offset[root], f.offset[root] + bytes_of(root)});
        }
        if (!st.on_host) continue;
        std::array<int, 2>& after = f.steps[s].after = {-1, -1};
        auto writes = [&](std::size_t at, std::size_t n) {
            for (const Flight& c : flying_)
                if (c.at < at + n && at < c.end) after[lane_of(c.step)] = std::max(after[lane_of(c.step)], c.step);
        };
        auto landed = [&](int in_turn_to, int overtaking_to) {
            std::erase_if(flying_, [&](const Flight& c) { return c.step <= in_turn_to || (lane_of(c.step) == overtaking && c.step <= overtaking_to); });
        };
        landed(st.reads_copy, -1);
        if (st.device != Device::cpu || st.transfer != Transfer::none) continue;
        for (int v : st.out)
            if (v >= 0 && here(p.values[v].root)) writes(f.offset[p.values[v].root], bytes_of(p.values[v].root));
        if (scratch_of_[s] >= 0) writes(f.steps[s].scratch, f.steps[s].booking.scratch);
        landed(after[in_turn], after[overtaking]);
    }
}

/// Enqueues a copy. One that overtakes has a stream of its own, for which the device's work waits from here on.
QUERN_INLINE void Runner::transfer(int step) {
    const PlanStep& st = plan_->steps[step];
    DeviceApi& api = *plan_->device;
    const View &from = in_views(step)[0], &to = out_views(step)[0];
    const std::size_t n = to.present() ? storage_bytes(to.dtype, to.count()) : 0;
    if (!n) return;
    if (st.transfer == Transfer::on_device) return api.copy(to.data, from.data, n, shared_.stream);
    void* stream = shared_.stream;
    if (lane_of(step) == overtaking) {
        if (stale_) settle();  // the memory that it writes was in use in the run before
        if (!shared_.copy_stream) shared_.copy_stream = api.make_stream();
        stream = shared_.copy_stream;
    }
    const bool event = st.marked || lane_of(step) == overtaking;
    if (event && !events_[step]) events_[step] = api.make_event();
    shared_.unread = true;
    if (st.transfer == Transfer::to_device) api.to_device(to.data, from.data, n, stream);
    else api.to_host(to.data, from.data, n, stream);
    if (event) api.record(events_[step], stream);
    if (lane_of(step) == overtaking) api.follow(shared_.stream, events_[step]);
}

QUERN_INLINE void Runner::settle() {
    stale_ = false;
    if (!shared_.unread) return;
    plan_->device->synchronize(shared_.stream);
    shared_.unread = false;
}
/// Waits for the copies whose results step `s` reads, or whose memory it writes.
QUERN_INLINE void Runner::before_host(int s) {
    if (stale_) settle();
    const std::array<int, 2>& after = frame_->steps[s].after;
    wait_for(in_turn, std::max(plan_->steps[s].reads_copy, after[in_turn]));
    wait_for(overtaking, after[overtaking]);
}
QUERN_INLINE void Runner::wait_for(Lane lane, int step) {
    if (step <= passed_[lane]) return;
    if (events_[step]) plan_->device->wait(events_[step]);
    passed_[lane] = step;
    if (lane == in_turn) passed_[overtaking] = std::max(passed_[overtaking], step);  // the stream waits for those that overtake
}
/// Replays the steps of a recordable region; records them in the second run with the same addresses (the first one sets
/// kernels up). False: they are to be run one by one.
QUERN_INLINE bool Runner::run_recorded(int region) {
    Frame::Recording& r = frame_->recordings[region];
    if (!r.graph) {
        if (++r.runs != 2) return false;
        auto [begin, end] = plan_->recordable[region];
        if (!plan_->device->begin_capture(shared_.stream)) return false;
        auto done = guarded([&, b = begin, e = end] {
            for (int s = b; s < e; ++s) with_place([&] { return where(s); }, [&] { execute(s); });
        });
        auto graph = plan_->device->end_capture(shared_.stream);  // ends also what failed
        if (!done) raise(done.error());
        if (!graph) return false;
        r.graph = std::move(graph);
    }
    plan_->device->replay(r.graph.get(), shared_.stream);
    return true;
}

QUERN_END
