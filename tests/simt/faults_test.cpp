// Each planted fault is reported with its line, and the same kernel without the fault is clean.
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "device_memory.hpp"
#include "faults.hpp"
#include "runtime.hpp"

namespace {

using faults::Planted;
constexpr int kSeeds = 11;

std::string line(const Planted& p) { return "faults.cu:" + std::to_string(p.line); }

struct Outcome {
    std::string fault;  // first message
    bool wrong = false;
};
Outcome run(const Planted& p, bool sound, int seed) {
    simt::config.seed = static_cast<std::uint64_t>(seed);
    std::vector<float> x(faults::size);
    std::iota(x.begin(), x.end(), 1.0f);
    DeviceBuffer<float> in(faults::size), out(faults::size);
    in.upload(x);
    const cudaError_t e = p.launch(sound, in.data(), out.data());
    Outcome o;
    EXPECT_EQ(e != cudaSuccess, simt::faulted());
    o.fault = simt::take_fault();
    o.wrong = out.download() != x;
    return o;
}
void expect_sound(const Planted& p) {
    for (int seed = 0; seed < kSeeds; ++seed) {
        const Outcome o = run(p, true, seed);
        EXPECT_EQ(o.fault, "") << p.name << ", seed " << seed;
        EXPECT_FALSE(o.wrong) << p.name << ", seed " << seed;
    }
}
// In every seed, with the line.
void expect_reported(const Planted& p, const char* what) {
    for (int seed = 0; seed < kSeeds; ++seed) {
        const Outcome o = run(p, false, seed);
        EXPECT_NE(o.fault.find(what), std::string::npos) << p.name << ", seed " << seed << ": " << o.fault;
        EXPECT_NE(o.fault.find(line(p)), std::string::npos) << p.name << ", seed " << seed << ": " << o.fault;
    }
}
bool some_seed_is_wrong(const Planted& p) {
    for (int seed = 0; seed < kSeeds; ++seed)
        if (run(p, false, seed).wrong) return true;
    return false;
}

TEST(Launch, MoreSharedMemoryThanTheDeviceHas) {
    const simt::Config before = simt::config;
    simt::config.shared_of_block = 1;
    DeviceBuffer<float> out(faults::size);
    EXPECT_EQ(faults::missing_barrier.launch(true, out.data(), out.data()), cudaErrorInvalidConfiguration);
    simt::config = before;
    EXPECT_EQ(simt::take_fault(), "");
}
TEST(Planted, MissingBarrier) {
    for (const Planted* p : {&faults::missing_barrier, &faults::missing_second_barrier}) {
        expect_sound(*p);
        if (simt::checks() == simt::Checks::race) expect_reported(*p, "shared memory");
        else EXPECT_TRUE(some_seed_is_wrong(*p)) << p->name;
    }
}

TEST(Planted, MissingBarrierBetweenBuffers) {
    const Planted& p = faults::missing_buffer_barrier;
    expect_sound(p);
    if (simt::checks() == simt::Checks::race) expect_reported(p, "shared memory");
    else EXPECT_TRUE(some_seed_is_wrong(p));
}

TEST(Planted, EarlyReadOfACopy) {
    const Planted& p = faults::early_copy_read;
    expect_sound(p);
    if (simt::checks() == simt::Checks::race) expect_reported(p, "is not waited for");
    else
        for (int seed = 0; seed < kSeeds; ++seed) EXPECT_TRUE(run(p, false, seed).wrong);  // NaN stands there
}

TEST(Planted, UnfinishedCopy) {
    expect_sound(faults::unfinished_copy);
    expect_reported(faults::unfinished_copy, "unfinished copy");
}

TEST(Planted, OutOfBoundsStore) {
    const Planted& p = faults::out_of_bounds_store;
    expect_sound(p);
    if (simt::checks() == simt::Checks::race) expect_reported(p, "out of bounds write");
    if (simt::checks() == simt::Checks::address) { EXPECT_DEATH(run(p, false, 1), line(p)); }
}

TEST(Planted, StaticArrayOverrun) {
    const Planted& p = faults::static_array_overrun;
    expect_sound(p);
    if (simt::checks() == simt::Checks::address) { EXPECT_DEATH(run(p, false, 1), line(p)); }
}

TEST(Planted, MisalignedVector) {
    expect_sound(faults::misaligned_vector);
    expect_reported(faults::misaligned_vector, "misaligned");
}

TEST(Planted, MissingSyncwarp) {
    expect_sound(faults::missing_syncwarp);
    if (simt::checks() == simt::Checks::race) expect_reported(faults::missing_syncwarp, "shared memory");
}

TEST(Planted, TwoBlocks) {
    expect_sound(faults::two_blocks);
    if (simt::checks() == simt::Checks::race) expect_reported(faults::two_blocks, "another block");
}

TEST(Planted, DivergentBarrier) {
    expect_sound(faults::divergent_barrier);
    expect_reported(faults::divergent_barrier, "divergent barrier");
}

TEST(Planted, EarlyExit) {
    expect_sound(faults::early_exit);
    expect_reported(faults::early_exit, "divergent warp");
}

TEST(Launch, RefusesWhatNoDeviceTakes) {
    EXPECT_EQ(faults::launch_too_many_threads(), cudaErrorInvalidConfiguration);
    EXPECT_FALSE(simt::faulted());
}

}  // namespace
