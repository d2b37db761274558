// Which convolutions cuDNN takes under quern's rules, asked of the real library without a device:
//   cudnn_graphs libcudnn.so.9 DEVICEPROP.json bench/shapes/conv_zoo.txt
// A table of plans by model: with bias, residual and ReLU in the graph, the plain convolution only, or none.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cudnn_offline.hpp"

namespace {
using namespace quern;

struct Row {
    std::string model;
    std::int64_t v[16];  // N C H W, M kh kw, strides, pads, dilations, group
};
std::vector<Row> rows(const char* path) {
    std::vector<Row> all;
    std::ifstream f(path);
    for (std::string line; std::getline(f, line);) {
        if (line.empty() || line[0] == '#') continue;
        std::istringstream in(line);
        Row r;
        in >> r.model;
        for (auto& x : r.v) in >> x;
        if (!in) {
            std::fprintf(stderr, "not a line of numbers: %s\n", line.c_str());
            std::exit(1);
        }
        all.push_back(r);
    }
    return all;
}
cuda::DnnConv described(const Row& r, std::int64_t batch, cudnnDataType_t type, bool last) {
    const auto* v = r.v;
    cuda::DnnConv c;
    c.type = type, c.last = last;
    c.x = {batch, v[1], v[2], v[3]}, c.w = {v[4], v[1] / v[15], v[5], v[6]}, c.y = {batch, v[4]};
    for (int d = 0; d < 2; ++d) {
        c.stride.push_back(v[7 + d]), c.before.push_back(v[9 + d]), c.after.push_back(v[11 + d]), c.dilation.push_back(v[13 + d]);
        c.y.push_back((v[2 + d] + v[9 + d] + v[11 + d] - v[13 + d] * (v[5 + d] - 1) - 1) / v[7 + d] + 1);
    }
    return c;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) return std::fprintf(stderr, "cudnn_graphs LIBRARY DEVICEPROP.json SHAPES\n"), 64;
    const cuda::Cudnn dnn = cuda::load_cudnn(argv[1]);
    if (!dnn.refusal.empty()) return std::fprintf(stderr, "%s\n", dnn.refusal.c_str()), 1;
    const cuda::DnnDescriptor device = device_properties(dnn, argv[2]);
    if (!device.good()) return std::fprintf(stderr, "%s\n", device.why.c_str()), 1;
    struct Variant {
        const char* name;
        cudnnDataType_t type;
        bool last, tf32;
        std::int64_t batch;
    };
    const Variant variants[] = {{"f32 batch 1", CUDNN_DATA_FLOAT, false, false, 1},    {"f32 batch 32", CUDNN_DATA_FLOAT, false, false, 32}, {"f32 channels last 32", CUDNN_DATA_FLOAT, true, false, 32},
                                {"TF32 batch 32", CUDNN_DATA_FLOAT, false, true, 32}, {"f16 batch 32", CUDNN_DATA_HALF, false, true, 32},   {"f16 channels last 32", CUDNN_DATA_HALF, true, true, 32},
                                {"bf16 channels last 32", CUDNN_DATA_BFLOAT16, true, true, 32}};
    struct Count {
        int fused = 0, plain = 0, none = 0;
    };
    std::map<std::string, std::map<std::string, Count>> counts;
    std::map<std::string, int> reasons;
    for (const Row& r : rows(argv[3]))
        for (const Variant& v : variants) {
            cuda::DnnConv c = described(r, v.batch, v.type, v.last);
            const cuda::DnnRules rules{v.tf32};
            Count& n = counts[r.model][v.name];
            std::string why;
            c.bias = c.residual = c.relu = true;
            if (cuda::plan_convolution(dnn, nullptr, &device, c, rules, why)) {
                ++n.fused;
                continue;
            }
            c.bias = c.residual = c.relu = false;
            if (cuda::plan_convolution(dnn, nullptr, &device, c, rules, why)) {
                ++n.plain;
            } else {
                ++n.none;
                ++reasons[why];
            }
        }
    std::printf("# Convolutions of the zoo as graphs of cuDNN\n\nBy `cudnn_graphs`, cuDNN %zu, for an H100's properties, without a device; no plan compiles at run time. Distinct convolutions with bias, residual and\nReLU in the graph / as the plain convolution only / without a plan.\n\n| model |", dnn.GetVersion());
    for (const Variant& v : variants) std::printf(" %s |", v.name);
    std::printf("\n|---|");
    for (std::size_t i = 0; i < std::size(variants); ++i) std::printf("---|");
    for (auto& [model, by] : counts) {
        std::printf("\n| %s |", model.c_str());
        for (const Variant& v : variants) std::printf(" %d / %d / %d |", by[v.name].fused, by[v.name].plain, by[v.name].none);
    }
    std::printf("\n");
    for (auto& [why, n] : reasons) std::printf("\n- %d: %s", n, why.c_str());
    std::printf("\n");
}
