// Rewrites around convolutions and the layout pass: what must be rewritten, what must stay, and that answers stay the same.
#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_f;
using quern::onnx::attribute_i;
using quern::onnx::attribute_ints;
using quern::onnx::attribute_s;

namespace {

/// x [N, 4, H, W] -> c [N, 8, H, W]
ModelBuilder conv(bool bias = true) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "4", "H", "W"}).constant("w", ramp({8, 4, 3, 3})).constant("bias", ramp({8}, 0.2f));
    std::vector<std::string> in{"x", "w"};
    if (bias) in.push_back("bias");
    b.node("Conv", in, {"c"}, {attribute_ints("pads", {1, 1, 1, 1})});
    return b;
}
const std::vector<quern::NamedTensor> image = {{"x", ramp({2, 4, 6, 5})}};

TEST(ConvPasses, ConstantsOfChannelsGoIntoTheWeights) {
    for (bool bias : {false, true}) {
        auto b = conv(bias);
        b.constant("s", ramp({8, 1, 1}, 0.1f, 0.3f)).constant("t", ramp({1, 8, 1, 1})).constant("two", floats({}, {2})).constant("d", ramp({8, 1, 1}, 0.1f, 0.5f));
        b.node("Mul", {"s", "c"}, {"m"}).node("Add", {"m", "t"}, {"a"}).node("Div", {"a", "d"}, {"q"}).node("Sub", {"q", "two"}, {"e"}).node("Relu", {"e"}, {"y"}).output("y");
        auto text = after(b, "fuse");
        EXPECT_EQ(count(text, "= Mul(") + count(text, "= Add(") + count(text, "= Div(") + count(text, "= Sub(") + count(text, "= Relu("), 0) << text;
        same_answer(b, image);
    }
}
TEST(ConvPasses, ConstantsThatAreNotOfChannelsStay) {
    auto b = conv();
    b.constant("row", ramp({5})).constant("plane", ramp({8, 6, 5})).constant("eight", ramp({1, 1, 8}));  // [1, 1, 8] lies along the width
    b.node("Mul", {"c", "row"}, {"m"}).node("Add", {"m", "plane"}, {"y"}).output("y");
    auto text = after(b, "convolutions");
    EXPECT_EQ(count(text, "= Mul("), 1) << text;
    EXPECT_EQ(count(text, "= Add("), 1) << text;
    same_answer(b, image);
    ModelBuilder w;
    w.input("x", DType::f32, {"1", "4", "3", "8"}).constant("w", ramp({8, 4, 1, 1})).constant("eight", ramp({1, 1, 8}));
    w.node("Conv", {"x", "w"}, {"c"}).node("Mul", {"c", "eight"}, {"y"}).output("y");
    EXPECT_EQ(count(after(w, "convolutions"), "= Mul("), 1);
    same_answer(w, {{"x", ramp({1, 4, 3, 8})}});
}
TEST(ConvPasses, AConvolutionThatOthersReadKeepsItsWeights) {
    auto b = conv();
    b.constant("two", floats({}, {2})).node("Mul", {"c", "two"}, {"y"}).output("y").output("c");
    EXPECT_EQ(count(after(b, "convolutions"), "= Mul("), 1);
    same_answer(b, image);
}
TEST(ConvPasses, TwoMinusAConvolutionStays) {
    auto b = conv();
    b.constant("two", floats({}, {2})).node("Sub", {"two", "c"}, {"y"}).output("y");
    auto text = after(b, "convolutions");
    EXPECT_EQ(count(text, "= Sub("), 1) << text;
    same_answer(b, image);
}
TEST(ConvPasses, ZerosAroundAnImageBecomePadding) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "4", "H", "W"}).constant("w", ramp({8, 4, 3, 3})).constant("p", ints({8}, {0, 0, 1, 0, 0, 0, 2, 1}));
    b.node("Pad", {"x", "p"}, {"q"}).node("Conv", {"q", "w"}, {"y"}, {attribute_ints("strides", {2, 2}), attribute_ints("pads", {0, 1, 0, 0})}).output("y");
    EXPECT_EQ(count(after(b, "convolutions"), "= Pad("), 0);
    same_answer(b, image);
}
/// x [N, 4, H, W] enlarged, a convolution of 4 to `m` channels, concatenated with what it was made of; `after_conv`: a function in between.
ModelBuilder enlarged(const char* mode, std::vector<float> scales, std::int64_t m, std::int64_t kernel, const char* after_conv = nullptr, const char* coordinates = "half_pixel") {
    ModelBuilder b(19);
    b.input("x", DType::f32, {"N", "4", "H", "W"}).constant("s", floats({4}, scales)).constant("w", ramp({m, 4, kernel, kernel})).constant("bias", ramp({m}, 0.2f)).constant("roi", floats({8}, {0, 0, 0, 0, 1, 1, 1, 1}));
    b.node("Resize", {"x", "roi", "s"}, {"r"}, {attribute_s("mode", mode), attribute_s("coordinate_transformation_mode", coordinates)});
    b.node("Conv", {"r", "w", "bias"}, {"c"}, {attribute_ints("pads", std::vector<std::int64_t>(4, kernel / 2))});
    if (after_conv) b.node(after_conv, {"c"}, {"a"});
    b.constant("two", floats({}, {2})).node("Concat", {after_conv ? "a" : "c", after_conv ? "a" : "c"}, {"cc"}, {attribute_i("axis", 1)}).node("Mul", {"cc", "two"}, {"y"}).output("y");
    return b;
}
/// The line of `op` comes before that of `then`.
bool before(const std::string& text, const char* op, const char* then) { return text.find(std::string("= ") + op + "(") < text.find(std::string("= ") + then + "("); }
TEST(ConvPasses, APointwiseConvolutionComesBeforeAnEnlargement) {
    for (const char* mode : {"nearest", "linear", "cubic"})
        for (float wide : {1.f, 2.f, 2.5f}) {
            auto b = enlarged(mode, {1, 1, 2, wide}, 3, 1);
            auto text = after(b, "convolutions");
            EXPECT_TRUE(before(text, "Conv", "Resize")) << text;
            same_answer(b, image);
        }
}
TEST(ConvPasses, OtherConvolutionsStayBehindAnEnlargement) {
    auto stays = [](ModelBuilder b) {
        auto text = after(b, "convolutions");
        EXPECT_TRUE(before(text, "Resize", "Conv")) << text;
        same_answer(b, image);
    };
    stays(enlarged("linear", {1, 1, 2, 2}, 3, 3));
    stays(enlarged("linear", {1, 1, 2, 2}, 5, 1));     // more channels than before
    stays(enlarged("linear", {1, 1, 2, 0.5f}, 3, 1));  // fewer columns
    stays(enlarged("linear", {2, 1, 2, 2}, 3, 1));     // more images
    stays(enlarged("linear", {1, 1, 2, 2}, 3, 1, "Relu"));
    stays(enlarged("linear", {1, 1, 2, 2}, 3, 1, nullptr, "tf_crop_and_resize"));
    auto b = enlarged("linear", {1, 1, 2, 2}, 3, 1);  // somebody else wants the enlarged picture
    b.output("r");
    EXPECT_TRUE(before(after(b, "convolutions"), "Resize", "Conv"));
}
TEST(ConvPasses, OtherPaddingStays) {
    for (int kind = 0; kind < 4; ++kind) {
        ModelBuilder b;
        b.input("x", DType::f32, {"N", "4", "H", "W"}).constant("w", ramp({8, kind == 2 ? 6 : 4, 3, 3})).constant("one", floats({}, {1}));
        b.constant("p", kind == 2 ? ints({8}, {0, 1, 0, 0, 0, 1, 0, 0}) : kind == 3 ? ints({8}, {0, 0, -1, 0, 0, 0, 0, 1}) : ints({8}, {0, 0, 1, 1, 0, 0, 1, 1}));
        if (kind == 0) b.node("Pad", {"x", "p", "one"}, {"q"});
        else b.node("Pad", {"x", "p"}, {"q"}, {attribute_s("mode", kind == 1 ? "edge" : "constant")});
        b.node("Conv", {"q", "w"}, {"y"}).output("y");
        EXPECT_EQ(count(after(b, "convolutions"), "= Pad("), 1) << kind;
        same_answer(b, image);
    }
}
TEST(ConvPasses, ActivationsAreRecognizedInTheirSpellings) {
    for (int kind = 0; kind < 5; ++kind) {
        auto b = conv();
        b.constant("three", floats({}, {3})).constant("zero", floats({}, {0})).constant("six", floats({}, {6})).constant("sixth", floats({}, {1.f / 6}));
        if (kind == 0) b.node("Sigmoid", {"c"}, {"s"}).node("Mul", {"s", "c"}, {"y"});
        if (kind == 1) b.node("HardSigmoid", {"c"}, {"s"}, {attribute_f("alpha", 1.f / 6)}).node("Mul", {"c", "s"}, {"y"});
        if (kind > 1) b.node("Add", {"three", "c"}, {"p"}).node("Clip", {"p", "zero", "six"}, {"r"});
        if (kind == 2) b.node("Div", {"r", "six"}, {"h"}).node("Mul", {"c", "h"}, {"y"});
        if (kind == 3) b.node("Mul", {"c", "r"}, {"h"}).node("Mul", {"h", "sixth"}, {"y"});
        if (kind == 4) b.node("Div", {"r", "six"}, {"y"});
        b.output("y");
        auto text = after(b, "fuse");
        EXPECT_EQ(count(text, kind == 0 ? "activation=\"Swish\"" : kind == 4 ? "activation=\"HardSigmoid\"" : "activation=\"HardSwish\""), 1) << text;
        EXPECT_EQ(count(text, "= Mul(") + count(text, "= Div(") + count(text, "= Clip("), 0) << text;
        same_answer(b, image);
    }
}
TEST(ConvPasses, WhatOnlyLooksLikeAnActivationStays) {
    auto b = conv();
    b.constant("three", floats({}, {3.1f})).constant("zero", floats({}, {0})).constant("six", floats({}, {6})).constant("w2", ramp({8, 8, 1, 1}));
    b.node("Sigmoid", {"c"}, {"s"}).node("Conv", {"c", "w2"}, {"d"}).node("Mul", {"s", "d"}, {"gate"});      // another value's sigmoid
    b.node("Add", {"three", "c"}, {"p"}).node("Clip", {"p", "zero", "six"}, {"r"}).node("Div", {"r", "six"}, {"h"});  // 3.1
    b.node("HardSigmoid", {"d"}, {"hs"}).node("Mul", {"hs", "d"}, {"k"});                                    // alpha 0.2
    b.node("Add", {"gate", "h"}, {"u"}).node("Add", {"u", "k"}, {"y"}).output("y");
    auto text = after(b, "convolutions");
    EXPECT_EQ(count(text, "= Mul("), 2) << text;
    EXPECT_EQ(count(text, "= Swish(") + count(text, "= HardSwish("), 0) << text;
    same_answer(b, image);
}

/// Everything between two convolutions works on channels last where a target has them so: no transpose is left inside.
void vanish(ModelBuilder& b, const std::vector<quern::NamedTensor>& in, int left = 1) {
    auto text = b.model().dump("final");
    if (count(text, "quern::PlanarConv(")) {  // the picture of 4 channels is read as it is
        EXPECT_EQ(count(text, "= Transpose("), left) << text;
    }
    same_answer(b, in);
}
TEST(Layout, PadSliceReduceAndPoolsWorkOnChannelsLast) {
    auto b = conv();
    b.constant("p", ints({8}, {0, 1, 2, 0, 0, 0, 1, 1})).constant("one", floats({}, {1})).constant("w2", ramp({4, 9, 3, 3}));
    b.constant("from", ints({2}, {1, 0})).constant("to", ints({2}, {4, 1000})).constant("ax", ints({2}, {1, -1})).constant("step", ints({2}, {1, 2}));
    b.constant("axes", ints({2}, {-1, 2})).constant("w3", ramp({4, 3, 1, 1}));
    b.node("Pad", {"c", "p", "one"}, {"q"}).node("Conv", {"q", "w2"}, {"d"}).node("Slice", {"d", "from", "to", "ax", "step"}, {"s"}).node("Conv", {"s", "w3"}, {"e"});
    b.node("MaxPool", {"e"}, {"m"}, {attribute_ints("kernel_shape", {2, 2})}).node("ReduceMean", {"m", "axes"}, {"r"}, {attribute_i("keepdims", 0)}).output("r");
    vanish(b, image, 0);
}
TEST(Layout, ReductionsOfPartOfAPlaneWithoutTheirDimsStay) {
    auto b = conv();
    b.constant("axes", ints({1}, {3})).constant("ch", ints({1}, {1})).node("ReduceMax", {"c", "axes"}, {"y"}, {attribute_i("keepdims", 0)}).output("y");
    b.node("ReduceSum", {"c", "ch"}, {"z"}, {attribute_i("keepdims", 0)}).output("z").node("ReduceMin", {"c", "axes"}, {"k"}).output("k");
    same_answer(b, image);
}
TEST(Layout, ResizeByScalesAndBySizes) {
    for (bool scales : {true, false}) {
        auto b = conv();
        b.constant("s", floats({4}, {1, 1, 2, 1.5f})).constant("w2", ramp({4, 8, 1, 1})).constant("four", ints({2}, {9, 4}));
        b.constant("zero", ints({1}, {0})).constant("two", ints({1}, {2}));
        b.node("Shape", {"c"}, {"shape"}).node("Slice", {"shape", "zero", "two"}, {"nc"}).node("Concat", {"nc", "four"}, {"sizes"}, {attribute_i("axis", 0)});
        if (scales) b.node("Resize", {"c", "", "s"}, {"r"}, {attribute_s("mode", "linear")});
        else b.node("Resize", {"c", "", "", "sizes"}, {"r"}, {attribute_s("mode", "nearest")});
        b.node("Conv", {"r", "w2"}, {"y"}).output("y");
        vanish(b, image, scales ? 1 : 2);  // one that only a Shape reads: it never runs
    }
}
TEST(Layout, TransposedConvolutionOfBlocks) {
    for (std::int64_t channels : {3, 20}) {
        auto b = conv();
        b.constant("u", ramp({8, channels, 3, 2})).constant("ub", ramp({channels})).constant("w2", ramp({4, channels, 1, 1}));
        b.node("ConvTranspose", {"c", "u", "ub"}, {"t"}, {attribute_ints("strides", {3, 2})}).node("Conv", {"t", "w2"}, {"y"}).output("y");
        vanish(b, image);
    }
}
TEST(Layout, OtherTransposedConvolutionsStay) {
    for (int kind = 0; kind < 3; ++kind) {
        auto b = conv();
        b.constant("u", ramp({8, kind == 2 ? 2 : 4, 2, 2})).constant("w2", ramp({4, 4, 1, 1}));
        if (kind == 0) b.node("ConvTranspose", {"c", "u"}, {"t"});
        if (kind == 1) b.node("ConvTranspose", {"c", "u"}, {"t"}, {attribute_ints("strides", {2, 2}), attribute_ints("pads", {1, 0, 0, 1})});
        if (kind == 2) b.node("ConvTranspose", {"c", "u"}, {"t"}, {attribute_ints("strides", {2, 2}), attribute_i("group", 2)});
        b.node("Conv", {"t", "w2"}, {"y"}).output("y");
        EXPECT_EQ(count(b.model().dump("final"), "quern::ConvTranspose("), 0);
        same_answer(b, image);
    }
}
TEST(Layout, ShuffledChannels) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "4", "6", "5"}).constant("w", ramp({8, 4, 3, 3})).node("Conv", {"x", "w"}, {"c"}, {attribute_ints("pads", {1, 1, 1, 1})});
    b.constant("w2", ramp({4, 8, 1, 1})).constant("split", ints({5}, {0, 2, 4, 6, 5})).constant("whole", ints({4}, {-1, 8, 6, 5}));
    b.node("Reshape", {"c", "split"}, {"s"}).node("Transpose", {"s"}, {"t"}, {attribute_ints("perm", {0, 2, 1, 3, 4})}).node("Reshape", {"t", "whole"}, {"u"});
    b.node("Conv", {"u", "w2"}, {"y"}).output("y");
    vanish(b, image);
}
TEST(Layout, GatesOfOnePixelScaleChannels) {
    auto b = conv();
    b.constant("w2", ramp({4, 8, 1, 1})).constant("ws", ramp({8, 8, 1, 1}));
    b.node("GlobalAveragePool", {"c"}, {"g"}).node("Conv", {"g", "ws"}, {"h"}).node("Sigmoid", {"h"}, {"i"}).node("Mul", {"i", "c"}, {"m"}).node("Conv", {"m", "w2"}, {"y"}).output("y");
    vanish(b, image);
}

/// x [1, 16, 12, 12] -> pointwise -> depthwise -> pointwise + x
ModelBuilder inverted(bool tap = false, std::int64_t stride = 1) {
    ModelBuilder b;
    b.input("x", DType::f32, {"1", "16", "12", "12"}).constant("we", ramp({64, 16, 1, 1}, 0.02f, -0.2f)).constant("wd", ramp({64, 1, 3, 3})).constant("wp", ramp({16, 64, 1, 1}, 0.02f, -0.2f));
    b.constant("be", ramp({64})).constant("bp", ramp({16}));
    b.node("Conv", {"x", "we", "be"}, {"e"}).node("Relu", {"e"}, {"er"});
    b.node("Conv", {"er", "wd"}, {"d"}, {attribute_ints("pads", {1, 1, 1, 1}), attribute_ints("strides", {stride, stride}), attribute_i("group", 64)}).node("HardSwish", {"d"}, {"dr"});
    b.node("Conv", {"dr", "wp", "bp"}, {"p"});
    if (stride == 1) b.node("Add", {"p", "x"}, {"y"}).output("y");
    else b.output("p");
    if (tap) b.output("er");
    return b;
}
const std::vector<quern::NamedTensor> sixteen = {{"x", ramp({1, 16, 12, 12})}};
TEST(Chain, AnInvertedResidualIsOneStep) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    for (std::int64_t stride : {1, 2}) {
        auto b = inverted(false, stride);
        auto text = b.model().dump("final");
        EXPECT_EQ(count(text, "quern::FusedDepthwise("), 1) << text;
        EXPECT_EQ(count(text, "quern::FusedConv("), 0) << text;
        same_answer(b, sixteen);
    }
}
TEST(Chain, WhatOthersReadIsNotTakenIn) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    auto b = inverted(true);
    auto text = b.model().dump("final");
    EXPECT_EQ(count(text, "quern::FusedDepthwise("), 1) << text;  // depthwise and projection
    EXPECT_EQ(count(text, "quern::FusedConv("), 1) << text;
    same_answer(b, sixteen);
}
TEST(Chain, OtherConvolutionsStay) {
    ModelBuilder b;
    b.input("x", DType::f32, {"1", "16", "12", "12"}).constant("we", ramp({64, 16, 3, 3}, 0.02f, -0.2f)).constant("wd", ramp({64, 2, 3, 3})).constant("ws", ramp({64, 1, 3, 3}));
    b.constant("wp", ramp({16, 64, 1, 1}, 0.02f, -0.2f));
    b.node("Conv", {"x", "we"}, {"e"}).node("Conv", {"e", "wd"}, {"d"}, {attribute_i("group", 32)}).node("Conv", {"d", "wp"}, {"p"}, {attribute_ints("strides", {2, 2})});
    b.node("Conv", {"e", "ws"}, {"s"}, {attribute_i("group", 64)}).node("Conv", {"s", "wp"}, {"q"}, {attribute_ints("strides", {2, 2})}).output("p").output("q");
    auto text = b.model().dump("final");
    EXPECT_EQ(count(text, "quern::FusedDepthwise("), 0) << text;
    same_answer(b, sixteen, 1e-3);
}

/// A depthwise convolution whose channels are scaled by what its means say, then a projection.
ModelBuilder excited(int kind) {
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "16", "H", "W"}).constant("we", ramp({48, 16, 1, 1}, 0.02f, -0.2f)).constant("wd", ramp({48, 1, 3, 3})).constant("wp", ramp({24, 48, 1, 1}, 0.02f, -0.2f));
    b.constant("w1", ramp({8, 48, 1, 1}, 0.02f, -0.2f)).constant("w2", ramp({48, 8, 1, 1}, 0.1f, -1.f)).constant("bd", ramp({48}, 0.05f, -0.5f));
    b.node("Conv", {"x", "we"}, {"e0"}).node("HardSwish", {"e0"}, {"e"});
    b.node("Conv", {kind == 1 ? "e0" : "e", "wd", "bd"}, {"d0"}, {attribute_ints("pads", {1, 1, 1, 1}), attribute_i("group", 48)}).node("HardSwish", {"d0"}, {"d"});
    if (kind == 1) b.output("e");  // others read what the depthwise convolution reads: it stands alone
    if (kind == 2) b.constant("axes", ints({1}, {2})).node("ReduceMean", {"d", "axes"}, {"g"});
    else b.node("GlobalAveragePool", {"d"}, {"g"});
    b.node("Conv", {"g", "w1"}, {"h0"}).node("Relu", {"h0"}, {"h"}).node("Conv", {"h", "w2"}, {"i0"}).node("HardSigmoid", {"i0"}, {"i"}).node("Mul", {"i", "d"}, {"m"}).node("Conv", {"m", "wp"}, {"y"}).output("y");
    if (kind == 3) b.output("m");
    return b;
}
TEST(Gates, SqueezeAndExcitationPassesOverPlanesOnce) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    for (int kind : {0, 1}) {
        SCOPED_TRACE(kind);
        auto b = excited(kind);
        auto text = b.model().dump("final");
        EXPECT_EQ(count(text, "quern::FusedDepthwise("), 1) << text;
        EXPECT_EQ(count(text, "= ReduceMean(") + count(text, "= Mul("), 0) << text;
        for (auto [n, h, w] : {std::tuple{1, 12, 12}, std::tuple{2, 7, 30}, std::tuple{3, 1, 1}, std::tuple{1, 70, 64}}) {
            std::vector<quern::NamedTensor> in{{"x", ramp({n, 16, h, w}, 0.05f, -0.5f)}};
            same_answer(b, in, 1e-4);
            auto one = b.run(in, {.threads = 1});
            for (int threads : {2, 3, 16}) {
                auto more = b.run(in, {.threads = threads});
                for (std::size_t o = 0; o < one.size(); ++o) EXPECT_EQ(0, std::memcmp(one[o].raw(), more[o].raw(), one[o].bytes())) << threads;
            }
        }
    }
}
TEST(Gates, OtherMeansAndScalesStay) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    auto rows = excited(2);  // means of columns are no gate of one pixel
    auto text = rows.model().dump("final");
    EXPECT_EQ(count(text, "= ReduceMean("), 1) << text;
    EXPECT_EQ(count(text, "= Mul("), 1) << text;
    same_answer(rows, {{"x", ramp({2, 16, 9, 7}, 0.05f, -0.5f)}}, 1e-4);
    auto shown = excited(3);  // others read the product
    text = shown.model().dump("final");
    EXPECT_EQ(count(text, "= ReduceMean("), 0) << text;
    EXPECT_EQ(count(text, "= Mul("), 1) << text;
    same_answer(shown, {{"x", ramp({2, 16, 9, 7}, 0.05f, -0.5f)}}, 1e-4);
}

TEST(Layout, APictureIsReadAsItIs) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    ModelBuilder b;
    b.input("x", DType::f32, {"N", "3", "H", "W"}).constant("w", ramp({16, 3, 3, 3})).constant("w2", ramp({8, 16, 1, 1}));
    b.node("Conv", {"x", "w"}, {"c"}, {attribute_ints("strides", {2, 2}), attribute_ints("pads", {1, 1, 1, 1})}).node("Relu", {"c"}, {"r"}).node("Conv", {"r", "w2"}, {"y"}).output("y");
    auto text = b.model().dump("layout");
    EXPECT_EQ(count(text, "quern::PlanarConv("), 1) << text;
    EXPECT_EQ(count(text, "= Transpose("), 1) << text;
    same_answer(b, {{"x", ramp({2, 3, 9, 12})}}, 1e-4);
}
TEST(Gates, TheFirstPoolIsPartOfTheFirstConvolution) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    for (int kind = 0; kind < 5; ++kind) {
        SCOPED_TRACE(kind);
        ModelBuilder b;
        b.input("x", DType::f32, {"N", "3", "H", "W"}).constant("w", ramp({16, 3, 3, 3})).constant("w2", ramp({8, 16, 1, 1}));
        b.node("Conv", {"x", "w"}, {"c"}, {attribute_ints("strides", {2, 2}), attribute_ints("pads", {1, 1, 1, 1})}).node("Relu", {"c"}, {"r"});
        std::vector<quern::onnx::Attribute> how{attribute_ints("kernel_shape", {3, 3}), attribute_ints("strides", {2, 2})};
        if (kind == 0) how.push_back(attribute_i("ceil_mode", 1));
        if (kind == 1) how.push_back(attribute_s("auto_pad", "SAME_UPPER"));
        if (kind == 2) how.push_back(attribute_ints("dilations", {2, 1}));
        if (kind == 3) how[1] = attribute_ints("strides", {1, 2});
        b.node("MaxPool", {"r"}, {"p"}, how).node("Conv", {"p", "w2"}, {"y"}).output("y");
        if (kind == 4) b.output("r");  // others read what is pooled
        auto text = b.model().dump("final");
        EXPECT_EQ(count(text, "MaxPool("), kind < 2 ? 0 : 1) << text;
        for (auto [n, h, w] : {std::tuple{2, 30, 41}, std::tuple{1, 11, 10}, std::tuple{3, 64, 64}}) same_answer(b, {{"x", ramp({n, 3, h, w})}}, 1e-4);
    }
}
TEST(Layout, ManyChannelsAreTransposedFirst) {
    auto b = conv();
    b.constant("w2", ramp({16, 8, 3, 3})).node("Conv", {"c", "w2"}, {"y"}).output("y");
    auto text = b.model().dump("layout");
    EXPECT_EQ(count(text, "quern::PlanarConv("), quern::best_isa() == quern::Isa::baseline ? 0 : 1) << text;  // of 4 channels, not of 8
    same_answer(b, image, 1e-4);
}
ModelBuilder dense(bool training = false) {
    auto b = conv();
    for (auto [name, n] : {std::pair{"1", 8}, std::pair{"2", 24}})
        for (const char* part : {"s", "o", "m", "v"}) b.constant(std::string(part) + name, ramp({n}, 0.05f, 0.5f));
    b.constant("w1", ramp({16, 8, 3, 3}, 0.02f, -0.2f)).constant("w2", ramp({4, 24, 1, 1}));
    b.node("BatchNormalization", {"c", "s1", "o1", "m1", "v1"}, {"n1"}).node("Relu", {"n1"}, {"r1"}).node("Conv", {"r1", "w1"}, {"d"}, {attribute_ints("pads", {1, 1, 1, 1})});
    b.node("Concat", {"c", "d"}, {"k"}, {attribute_i("axis", 1)}).node("BatchNormalization", {"k", "s2", "o2", "m2", "v2"}, {"n2"}).node("Relu", {"n2"}, {"r2"}).node("Conv", {"r2", "w2"}, {"y"}).output("y");
    if (training) b.output("k");
    return b;
}
TEST(Layout, NormalizationTakesItsConcatenationAndItsActivation) {
    auto b = dense();
    auto text = b.model().dump("layout");
    if (count(text, "layout=\"nhwc\"")) {
        EXPECT_EQ(count(text, "quern::FusedBatchNormalization("), 2) << text;
        EXPECT_EQ(count(text, "= Concat(") + count(text, "= Relu(") + count(text, " BatchNormalization("), 0) << text;
    }
    same_answer(b, image, 1e-3);
}
TEST(Layout, AConcatenationThatOthersReadStays) {
    auto b = dense(true);
    auto text = b.model().dump("layout");
    EXPECT_EQ(count(text, "= Concat("), 1) << text;
    same_answer(b, image, 1e-3);
}

TEST(Options, WinogradCanBeForbidden) {
    if (quern::best_isa() == quern::Isa::baseline) GTEST_SKIP();
    ModelBuilder b;
    b.input("x", DType::f32, {"1", "32", "9", "9"}).constant("w", ramp({32, 32, 3, 3}, 0.02f, -0.2f)).node("Conv", {"x", "w"}, {"y"}, {attribute_ints("pads", {1, 1, 1, 1})}).output("y");
    EXPECT_NE(b.model().compile({.threads = 1}).describe().find("by conv.winograd"), std::string::npos);
    auto text = b.model().compile({.threads = 1, .winograd = false}).describe();
    EXPECT_EQ(text.find("by conv.winograd"), std::string::npos) << text;
    EXPECT_NE(text.find("Options::winograd is off"), std::string::npos) << text;
}

}  // namespace
