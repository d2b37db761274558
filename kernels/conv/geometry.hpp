// Shapes of a convolution resolved. Shared by the family's kernels.
#pragma once
#include <algorithm>

#include <quern/kernels/conv/conv.hpp>

QUERN_BEGIN
namespace conv {

struct Geometry {
    vec::ConvShape s;  ///< `channels` of one group; nhwc: in_channels and out_channels are floats from pixel to pixel
    std::int64_t images = 0, group = 1, m = 0;  ///< m: output channels of one group
    std::int64_t k() const { return s.channels * s.taps(); }
    std::int64_t x_image() const { return s.in_channels * s.pixels_in(); }
    std::int64_t y_image() const { return s.out_channels * s.pixels_out(); }
    bool depthwise() const { return s.channels == 1 && m == 1; }
};
inline Geometry resolve(const Problem& p, std::span<const View> in, const View& y) {
    Geometry g;
    const View& x = in[0];
    int n = p.window.spatial(), first = p.layout == Layout::nchw ? 2 : 1, channel = p.layout == Layout::nchw ? 1 : x.rank - 1;
    g.images = x.dim(0);
    g.group = std::max<std::int64_t>(1, p.group);
    g.s.channels = x.dim(channel) / g.group;
    g.m = y.dim(channel) / g.group;
    g.s.in_channels = p.layout == Layout::nchw ? x.dim(channel) : x.row();
    g.s.out_channels = p.layout == Layout::nchw ? y.dim(channel) : y.row();
    for (int d = 0; d < 3; ++d) {
        int from = d - (3 - n);
        bool there = from >= 0;
        g.s.in[d] = there ? x.dim(first + from) : 1;
        g.s.out[d] = there ? y.dim(first + from) : 1;
        g.s.kernel[d] = there ? p.window.kernel[from] : 1;
        g.s.stride[d] = there ? p.window.strides[from] : 1;
        g.s.dilation[d] = there ? p.window.dilations[from] : 1;
        g.s.pad[d] = there ? p.window.pad_begin(from, g.s.in[d]) : 0;
    }
    return g;
}
/// Pixels of few tiles, an odd number, are cut once more, so that two workers have as much to do: `others` tiles of each piece, `work`
/// multiply-adds of all. True where it was done; pixels are then best the inner loop, for workers to share as few weights as possible.
inline bool even_tiles(std::int64_t pixels, std::int64_t others, double work, std::int64_t& tiles_p, std::int64_t& tile_p) {
    const std::int64_t n = tiles_p * others;
    if (n % 2 == 0 || n >= 16 || tile_p < 28 || work < 5e5) return false;
    tile_p = (pixels + 2 * tiles_p - 1) / (2 * tiles_p);
    tiles_p = (pixels + tile_p - 1) / tile_p;
    return true;
}

}  // namespace conv
QUERN_END
