// Reads a line of text (A-Z, 0-9, spaces) from images: a convolutional and recurrent network whose output is
// decoded by CTC (the best class at each step; repeats and blanks dropped). The width of the line is free.
//   read_line ocr_crnn.onnx IMAGE...
#include <quern/quern.hpp>

#include <cstdio>
#include <numeric>

#include "support/image.hpp"

static std::string decode(const quern::Tensor& logp) {  // [steps, 1, classes]; class 0 is the blank
    static constexpr char alphabet[] = " ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    auto steps = logp.shape()[0], classes = logp.shape()[2];
    auto p = logp.data<float>().data();
    std::string text;
    std::int64_t last = 0;
    for (std::int64_t s = 0; s < steps; ++s, p += classes) {
        std::int64_t best = std::max_element(p, p + classes) - p;
        if (best && best != last) text += alphabet[best - 1];
        last = best;
    }
    return text;
}

int main(int argc, char** argv) {
    if (argc < 3) return std::fprintf(stderr, "usage: %s ocr_crnn.onnx IMAGE...\n", argv[0]), 64;
    try {
        quern::Engine engine = quern::Model::load(argv[1]).compile();
        quern::Session session(engine);
        for (int i = 2; i < argc; ++i) {
            Image im = load_image(argv[i]);
            im = resize(im, std::max(32, int(std::lround(32.0 * im.width / im.height))), 32);
            float mean = std::accumulate(im.pixels.begin(), im.pixels.end(), 0.0f) / float(im.pixels.size());
            if (mean < 0.5f)  // light ink on dark paper
                for (float& v : im.pixels) v = 1 - v;
            session.bind("line", quern::Tensor::borrow(std::span(im.pixels), {1, 1, 32, im.width}));
            session.run();
            std::printf("%s: %s\n", argv[i], decode(session.output("logp")).c_str());
        }
    } catch (const quern::Error& e) {
        return std::fprintf(stderr, "%s\n", e.what()), 1;
    }
}
