// A 64-bit checksum for files.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "../version.hpp"

QUERN_BEGIN

/// XXH64 of the bytes (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md): finds damage, not forgery.
inline std::uint64_t checksum(std::span<const std::byte> bytes, std::uint64_t seed = 0) noexcept {
    constexpr std::uint64_t p1 = 0x9E3779B185EBCA87u, p2 = 0xC2B2AE3D27D4EB4Fu, p3 = 0x165667B19E3779F9u, p4 = 0x85EBCA77C2B2AE63u, p5 = 0x27D4EB2F165667C5u;
    auto left = [](std::uint64_t x, int n) { return x << n | x >> (64 - n); };
    auto word = [](const std::byte* p) {
        std::uint64_t v;
        std::memcpy(&v, p, 8);
        return v;
    };
    auto round = [&](std::uint64_t acc, std::uint64_t lane) { return left(acc + lane * p2, 31) * p1; };
    const std::byte *p = bytes.data(), *end = p + bytes.size();
    std::uint64_t h;
    if (bytes.size() >= 32) {
        std::uint64_t a = seed + p1 + p2, b = seed + p2, c = seed, d = seed - p1;
        for (; end - p >= 32; p += 32) a = round(a, word(p)), b = round(b, word(p + 8)), c = round(c, word(p + 16)), d = round(d, word(p + 24));
        h = left(a, 1) + left(b, 7) + left(c, 12) + left(d, 18);
        for (std::uint64_t v : {a, b, c, d}) h = (h ^ round(0, v)) * p1 + p4;
    } else {
        h = seed + p5;
    }
    h += bytes.size();
    for (; end - p >= 8; p += 8) h = left(h ^ round(0, word(p)), 27) * p1 + p4;
    if (end - p >= 4) {
        std::uint32_t v;
        std::memcpy(&v, p, 4);
        h = left(h ^ v * p1, 23) * p2 + p3;
        p += 4;
    }
    for (; p < end; ++p) h = left(h ^ static_cast<std::uint64_t>(*p) * p5, 11) * p1;
    h = (h ^ h >> 33) * p2;
    h = (h ^ h >> 29) * p3;
    return h ^ h >> 32;
}

QUERN_END
