// Selections of which only the first rows are read: what is limited, what is not, and that the answer stays.
#include "support/pass_test.hpp"

using namespace quern_test;
using quern::onnx::attribute_g;
using quern::onnx::attribute_i;

namespace {

struct Detector {
    ModelBuilder some, none, b;
    std::int64_t start = 0, step = 1, axis = 0;
    const char* classes = "1";
    bool sized = false, shown = false;

    /// The rows that suppression leaves, as exporters write it; `to` gets constants and nodes.
    static void rows(ModelBuilder& to) {
        to.constant("most", ints({1}, {1000})).constant("iou", floats({1}, {0.5f})).constant("two", ints({1}, {2})).constant("one", ints({1}, {1}));
        to.node("NonMaxSuppression", {"boxes", "scores", "most", "iou"}, {"s"}).node("Gather", {"s", "two"}, {"g"}, {attribute_i("axis", 1)}).node("Squeeze", {"g", "one"}, {"keep"});
    }
    void cut(const char* end = "five") {
        b.constant("start", ints({1}, {start})).constant("five", ints({1}, {5})).constant("axis", ints({1}, {axis})).constant("step", ints({1}, {step}));
        b.node("Slice", {"keep", "start", end, "axis", "step"}, {"y"}).output("y");
        if (sized) b.node("Shape", {"keep"}, {"n"}).output("n");
    }
    Detector& inputs() {
        b.input("boxes", DType::f32, {"1", "N", "4"}).input("scores", DType::f32, {"1", classes, "N"});
        return *this;
    }
    Detector& plain() {
        inputs();
        rows(b);
        if (shown) b.output("keep");
        cut();
        return *this;
    }
    Detector& behind_if() {
        inputs();
        rows(some);
        some.output("keep");
        if (shown) some.output("keep");
        none.constant("nothing", ints({0}, {})).node("Identity", {"nothing"}, {"no"}).output("no");
        if (shown) none.output("no");
        b.input("any", DType::boolean, {});
        std::vector<std::string> out{"keep"};
        if (shown) out.push_back("all");
        b.node("If", {"any"}, out, {attribute_g("then_branch", some.proto().graph), attribute_g("else_branch", none.proto().graph)});
        if (shown) b.output("all");
        cut();
        return *this;
    }
    bool limited() {
        std::string before = after(b, "inline_if"), text = after(b, "limit");
        EXPECT_EQ(count(before, "most=int64[1]"), 1) << before;
        return count(text, "most=int64[1]") == 0;
    }
    void same(bool with_any) {
        std::int64_t n = 40;
        Tensor boxes(DType::f32, {1, n, 4}), any(DType::boolean, {});
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t k = 0; k < 4; ++k) boxes.data<float>()[i * 4 + k] = float((i * 37 + k / 2 * 5) % 61) + (k < 2 ? 0.f : 9.f);
        for (bool yes : {true, false}) {
            any.data<bool>()[0] = yes;
            std::vector<quern::NamedTensor> in{{"boxes", boxes}, {"scores", ramp({1, std::string(classes) == "1" ? 1 : 2, n})}};
            if (with_any) in.push_back({"any", any});
            same_answer(b, in);
        }
    }
};

TEST(LimitSelections, OnlyTheRowsThatAreReadAreSelected) {
    Detector d;
    EXPECT_TRUE(d.plain().limited());
    d.same(false);
}
TEST(LimitSelections, ThroughTheBranchThatSelects) {
    Detector d;
    EXPECT_TRUE(d.behind_if().limited());
    d.same(true);
}
TEST(LimitSelections, OtherReadersSeeAllRows) {
    for (int which = 0; which < 3; ++which) {
        Detector d;
        d.sized = which == 0, d.shown = which > 0;
        EXPECT_FALSE((which == 2 ? d.behind_if() : d.plain()).limited()) << which;
        d.same(which == 2);
    }
}
TEST(LimitSelections, OtherSlicesAndSeveralClassesStay) {
    for (int which = 0; which < 3; ++which) {
        Detector d;
        if (which == 0) d.start = 1;
        if (which == 1) d.step = 2;
        if (which == 2) d.classes = "2";
        EXPECT_FALSE(d.plain().limited()) << which;
        d.same(false);
    }
    Detector d;  // an end that is not known
    d.inputs();
    Detector::rows(d.b);
    d.b.input("end", DType::i64, {"1"});
    d.cut("end");
    EXPECT_FALSE(d.limited());
}

}  // namespace
