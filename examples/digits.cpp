// Reads handwritten digits from a strip of square cells, dark ink on light paper.
//   digits digits.onnx IMAGE        (digits_qdq.onnx and digits_qop.onnx are the same network in 8 bits)
#include <quern/quern.hpp>

#include <cstdio>

#include "support/image.hpp"

int main(int argc, char** argv) {
    if (argc != 3) return std::fprintf(stderr, "usage: %s digits.onnx IMAGE\n", argv[0]), 64;
    try {
        Image strip = load_image(argv[2]);
        int n = strip.width / strip.height;
        if (n < 1) quern::raise(quern::ErrorCode::invalid_argument, "the image is to be one row of square cells");
        strip = resize(strip, n * 8, 8);

        quern::Engine engine = quern::Model::load(argv[1]).compile();
        quern::Session session(engine);
        auto cells = session.input("image", {n, 1, 8, 8}).data<float>();
        for (int c = 0; c < n; ++c)
            for (int y = 0; y < 8; ++y)
                for (int x = 0; x < 8; ++x) cells[std::size_t(64 * c + 8 * y + x)] = 1 - strip.at(y, 8 * c + x);
        session.run();

        auto prob = session.output("prob").data<float>();  // [n, 10]
        for (int y = 0; y < 8; ++y, std::puts(""))
            for (int x = 0; x < std::min(n, 10) * 8; ++x) std::putchar(" .:oO@@"[int((1 - strip.at(y, x)) * 5.99f)]);
        std::printf("digits:");
        double least = 1;
        for (int c = 0; c < n; ++c) {
            auto p = prob.data() + 10 * c;
            auto best = std::max_element(p, p + 10);
            std::printf(" %d", int(best - p));
            least = std::min(least, double(*best));
        }
        std::printf("\nleast certain: %.1f %%\n", least * 100);
    } catch (const quern::Error& e) {
        return std::fprintf(stderr, "%s\n", e.what()), 1;
    }
}
