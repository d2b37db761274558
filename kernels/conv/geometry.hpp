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

}  // namespace conv
QUERN_END
