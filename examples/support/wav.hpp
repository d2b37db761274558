// 16-bit PCM WAV files for the examples.
#pragma once
#include <quern/quern.hpp>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

struct Wav {
    int rate = 0;
    std::vector<float> samples;  ///< the first channel, [-1, 1)
};

/// Raises io for anything but uncompressed 16-bit PCM.
inline Wav load_wav(const std::string& path) {
    auto fail = [&](const char* why) { quern::raise(quern::ErrorCode::io, "'" + path + "': " + why); };
    std::ifstream f(path, std::ios::binary);
    std::string b{std::istreambuf_iterator<char>(f), {}};
    auto u = [&](std::size_t p, int n) {
        std::uint32_t v = 0;
        std::memcpy(&v, b.data() + p, std::size_t(n));
        return v;
    };
    if (b.size() < 12 || b.compare(0, 4, "RIFF") != 0 || b.compare(8, 4, "WAVE") != 0) fail("not a WAV file");
    Wav wav;
    std::uint32_t channels = 0;
    for (std::size_t p = 12; p + 8 <= b.size();) {
        std::size_t size = std::min<std::size_t>(u(p + 4, 4), b.size() - p - 8), at = p + 8;
        if (b.compare(p, 4, "fmt ") == 0 && size >= 16) {
            if (u(at, 2) != 1 || u(at + 14, 2) != 16) fail("give uncompressed 16-bit PCM");
            channels = u(at + 2, 2), wav.rate = int(u(at + 4, 4));
        } else if (b.compare(p, 4, "data") == 0 && channels) {
            for (std::size_t i = at; i + 2 * channels <= at + size; i += 2 * channels)
                wav.samples.push_back(float(std::int16_t(u(i, 2))) / 32768);
        }
        p = at + size + size % 2;
    }
    if (wav.samples.empty()) fail("no samples");
    return wav;
}
