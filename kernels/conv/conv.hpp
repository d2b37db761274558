// Convolutions: the contract of the family.
#pragma once
#include <vector>

#include <quern/kernels/kernel.hpp>
#include <quern/kernels/vec/vec.hpp>
#include <quern/tensor.hpp>

QUERN_BEGIN
namespace conv {

enum class AutoPad : std::uint8_t { notset, same_upper, same_lower, valid };
enum class Layout : std::uint8_t { nchw, nhwc };  ///< for any number of spatial dims (ncw, nwc, ...)

/// Sliding windows over spatial dimensions, shared by convolution and pooling.
struct Window {
    std::vector<std::int64_t> kernel, strides, pads, dilations;  ///< pads: begins, then ends; sized 2 * spatial
    AutoPad auto_pad = AutoPad::notset;
    int spatial() const { return static_cast<int>(kernel.size()); }
    /// Padding before dimension d for an input of `size` (resolves auto_pad).
    std::int64_t pad_begin(int d, std::int64_t size) const {
        if (auto_pad == AutoPad::notset) return pads[d];
        if (auto_pad == AutoPad::valid) return 0;
        std::int64_t out = (size + strides[d] - 1) / strides[d];
        std::int64_t total = (out - 1) * strides[d] + (kernel[d] - 1) * dilations[d] + 1 - size;
        if (total < 0) total = 0;
        return auto_pad == AutoPad::same_upper ? total / 2 : total - total / 2;
    }
};

/// Y = post(conv(X, W) + bias + residual) (https://onnx.ai/onnx/operators/onnx__Conv.html).
/// Views: in[0] = X, in[1] = W [M, C/group, k...] (always ONNX's order), in[2] = bias [M] or absent,
/// in[3] = residual of Y's shape and layout or absent; in[4] = gate [N, 1..., C] or absent: X times it is what is convolved
/// (pointwise in nhwc, one group, constant weights only); out[0] = Y. X, Y in `layout`: nchw = [N, C, d...],
/// nhwc = [N, d..., C], and kernels may take rows of X and Y that lie apart. f32 (f64: nchw only, post none). Output dims decide the padding at the ends.
/// Tolerance against double, f32: 2e-6 * sqrt(C/group * prod(k)) relative to the sum of |x||w|.
struct Problem {
    DType dtype = DType::f32;
    Layout layout = Layout::nchw;
    Window window;
    std::int64_t group = 1;
    std::int64_t channels = -1, out_channels = -1;  ///< -1: not known when planning
    std::int64_t width = -1;                        ///< X's last dimension in space; -1: not known when planning
    bool has_bias = false, has_residual = false, has_gate = false;
    vec::Post post = vec::Post::none;
    float post_alpha = 0, post_beta = 0;
    bool transposed = false;  ///< on a device: ConvTranspose of in[0..2] as conv_transpose.hpp has them, explicit pads, post none
    Tensor w;  ///< the weights when constant: packed once, in[1] is not read again; their bytes may lie unaligned (aligned_weights())
};
/// Each output pixel is a product of one input pixel.
inline bool pointwise(const Window& w) {
    for (std::size_t d = 0; d < w.kernel.size(); ++d)
        if (w.kernel[d] != 1 || w.strides[d] != 1) return false;
    for (std::int64_t p : w.pads)
        if (p != 0) return false;
    return true;
}

}  // namespace conv
QUERN_END
