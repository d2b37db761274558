// Grey images for the examples: stb_image decodes, the rest is here.
#pragma once
#include <quern/quern.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#if __has_include(<stb/stb_image.h>)
#include <stb/stb_image.h>
#else
#include <stb_image.h>
#endif

struct Image {
    int width = 0, height = 0;
    std::vector<float> pixels;  ///< rows of [0, 1], 0 is black
    float at(int y, int x) const { return pixels[std::size_t(y) * std::size_t(width) + std::size_t(x)]; }
};

/// Any PNG or JPEG as grey. Raises io.
inline Image load_image(const std::string& path) {
    Image im;
    stbi_uc* p = stbi_load(path.c_str(), &im.width, &im.height, nullptr, 1);
    if (!p) quern::raise(quern::ErrorCode::io, "cannot read the image '" + path + "': " + stbi_failure_reason());
    im.pixels.resize(std::size_t(im.width) * std::size_t(im.height));
    std::transform(p, p + im.pixels.size(), im.pixels.begin(), [](stbi_uc v) { return float(v) / 255; });
    stbi_image_free(p);
    return im;
}

/// Another size: area average where it shrinks, linear interpolation where it grows.
inline Image resize(const Image& im, int width, int height) {
    auto axis = [](const std::vector<float>& in, int rows, int n, int m) {  // [rows, n] -> [rows, m]
        std::vector<float> out(std::size_t(rows) * std::size_t(m));
        double scale = double(n) / m, reach = std::max(scale, 1.0);
        for (int j = 0; j < m; ++j) {
            double c = (j + 0.5) * scale - 0.5, total = 0;
            std::vector<std::pair<int, double>> taps;
            for (int i = int(std::ceil(c - reach)); i <= int(std::floor(c + reach)); ++i) {
                double w = 1 - std::fabs(i - c) / reach;
                if (w > 0) taps.emplace_back(std::clamp(i, 0, n - 1), w), total += w;
            }
            for (int r = 0; r < rows; ++r) {
                double v = 0;
                for (auto [i, w] : taps) v += w * in[std::size_t(r) * std::size_t(n) + std::size_t(i)];
                out[std::size_t(r) * std::size_t(m) + std::size_t(j)] = float(v / total);
            }
        }
        return out;
    };
    auto flip = [](const std::vector<float>& in, int rows, int cols) {
        std::vector<float> out(in.size());
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < cols; ++c) out[std::size_t(c) * std::size_t(rows) + std::size_t(r)] = in[std::size_t(r) * std::size_t(cols) + std::size_t(c)];
        return out;
    };
    std::vector<float> wide = axis(im.pixels, im.height, im.width, width);
    std::vector<float> tall = axis(flip(wide, im.height, width), width, im.height, height);
    return {width, height, flip(tall, width, height)};
}
