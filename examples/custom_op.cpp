// An operator of one's own inside a model: the network's preprocessing, com.example::Cells, cuts a strip of any size into cells.
//   custom_op digits_strip.onnx IMAGE
#include <quern/quern.hpp>

#include <cstdio>

#include "support/image.hpp"

/// [height, width] -> [width / height, 1, size, size]: square cells, ink is 1.
static std::shared_ptr<const quern::CustomOp> cells() {
    quern::CustomOp op;
    op.domain = "com.example";
    op.name = "Cells";
    op.infer = [](quern::CustomInfer& node) {
        if (node.type(0) != quern::DType::f32) node.unsupported("a strip of other numbers than float");
        if (!node.ranked(0) || node.dims(0).size() != 2) node.fail("a strip has two dimensions");
        quern::Dim size = node.i("size", 8), height = node.dims(0)[0], width = node.dims(0)[1];  // numbers, or names such as "width"
        node.set(0, quern::DType::f32, {floor_div(width, height), 1, size, size});
    };
    op.run = [](const quern::CustomRun& node) {
        auto strip = node.input<float>(0);
        auto out = node.output<float>(0);
        int height = int(node.shape(0)[0]), width = int(node.shape(0)[1]), size = int(node.output_shape(0)[3]);
        Image image{width, height, std::vector<float>(strip.begin(), strip.end())};
        image = resize(image, size * int(node.output_shape(0)[0]), size);
        node.for_each(node.output_shape(0)[0], [&](std::int64_t c) {
            for (int y = 0; y < size; ++y)
                for (int x = 0; x < size; ++x) out[std::size_t((c * size + y) * size + x)] = 1 - image.at(y, int(c) * size + x);
        });
    };
    return std::make_shared<const quern::CustomOp>(std::move(op));
}

int main(int argc, char** argv) {
    if (argc != 3) return std::fprintf(stderr, "usage: %s digits_strip.onnx IMAGE\n", argv[0]), 64;
    try {
        Image strip = load_image(argv[2]);
        quern::Engine engine = quern::Model::load(argv[1], {}, {cells()}).compile();
        quern::Session session(engine);
        session.bind("strip", quern::Tensor::borrow(std::span(strip.pixels), {strip.height, strip.width}));
        session.run();
        std::printf("digits:");
        for (std::int64_t d : session.output("digits").data<std::int64_t>()) std::printf(" %d", int(d));
        std::puts("");
    } catch (const quern::Error& e) {
        return std::fprintf(stderr, "%s\n", e.what()), 1;
    }
}
