// Attention of f16 and bf16 by tensor cores: blocks of 64 queries, 16 a warp, against tiles of keys of which the next one is on
// its way while one is used. Scores, their exponentials and sums stay in registers (f32); only the exponentials are rounded to the
// half type, as an operand of the second product.
#include <quern/kernels/attention/cuda_parts.hpp>

QUERN_BEGIN
namespace attention::cuda {

template <int D>
struct HalfTile {
    static constexpr int keys = D > 64 ? 32 : 64, row = D + 8;  // 8 rows of a fragment are in 32 banks
    static constexpr int blocks = D == 64 || D == 96 ? 3 : 0;  // by shared memory sm_100 could have four: 128 registers, which are too few
    static constexpr std::size_t elements = kQueries * row + 4 * keys * row;
};
/// Two neighbours as one register of a fragment.
template <class T>
__device__ __forceinline__ unsigned pair(float x, float y) {
    const T v[2] = {quern::cuda::from_float<T>(x), quern::cuda::from_float<T>(y)};
    unsigned u;
    memcpy(&u, v, sizeof u);
    return u;
}

// Lane 4 g + t of a warp has of its 16 queries rows g and g + 8, of 8 keys or columns 2 t and 2 t + 1.
template <class T, int D>
__global__ void __launch_bounds__(kThreads, simt::by_arch(0, HalfTile<D>::blocks)) half_tiles(const Arguments a, bool vector, unsigned tiles_each) {
    using S = HalfTile<D>;
    constexpr int KT = S::keys / 8, DT = D / 8;
    T* sq = simt::dynamic_smem<T>();
    T* sk = sq + kQueries * S::row;  // two stages of keys, then two of values
    T* sv = sk + 2 * S::keys * S::row;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const Head<T> head(a, blockIdx.x / tiles_each);
    const int q0 = blockIdx.x % tiles_each * kQueries;
    const int count = a.queries - q0 < kQueries ? static_cast<int>(a.queries - q0) : kQueries;
    int from[2], to[2], first, last, ignored;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        from[h] = to[h] = 0;
        if (const int r = warp * 16 + g + 8 * h; r < count) a.visible(q0 + r, from[h], to[h]);
    }
    a.visible(q0, first, ignored);  // both ends grow with the query
    a.visible(q0 + count - 1, ignored, last);
    const auto copy = [&](int s, int k0) {
        const int n = a.keys - k0 < S::keys ? static_cast<int>(a.keys - k0) : S::keys;
        stage<T, D, 8>(sk + s * S::keys * S::row, head.k + k0 * a.k_row, a.k_row, n, S::keys, static_cast<int>(a.d),
                       vector);
        stage<T, D, 8>(sv + s * S::keys * S::row, head.v + k0 * a.v_row, a.v_row, n, S::keys, static_cast<int>(a.dv),
                       vector);
    };
    stage<T, D, 8>(sq, head.q + q0 * a.q_row, a.q_row, count, kQueries, static_cast<int>(a.d), vector);
    const int begin = first / S::keys * S::keys;
    if (begin < last) copy(0, begin);
    simt::cp_async_commit();
    const bool plain = !a.mask[0].data && !a.mask[1].data && !(a.softcap > 0);
    float o[DT][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {};
    for (int k0 = begin, slot = 0; k0 < last; k0 += S::keys, slot ^= 1) {
        if (k0 + S::keys < last) copy(slot ^ 1, k0 + S::keys);
        simt::cp_async_commit();
        simt::cp_async_wait<1>();
        __syncthreads();  // this tile is there for all
        const T* pk = sk + slot * S::keys * S::row;
        const T* pv = sv + slot * S::keys * S::row;
        float s[KT][4] = {};
#pragma unroll
        for (int c = 0; c < D; c += 16) {
            unsigned fq[4];
            simt::ldmatrix_x4<false>(fq, sq + (warp * 16 + lane % 16) * S::row + c + lane / 16 * 8);
#pragma unroll
            for (int j = 0; j < KT; j += 2) {
                unsigned fk[4];
                simt::ldmatrix_x4<false>(fk, pk + (j * 8 + lane % 16) * S::row + c + lane / 16 * 8);
                simt::mma_m16n8k16<T>(s[j], fq, fk[0], fk[2]);
                simt::mma_m16n8k16<T>(s[j + 1], fq, fk[1], fk[3]);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = q0 + warp * 16 + g + 8 * h;
            float top = m[h];
#pragma unroll
            for (int j = 0; j < KT; ++j)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; ++e) {
                    const int key = k0 + j * 8 + 2 * t + e % 2;
                    if (key < from[h] || key >= to[h]) s[j][e] = -INFINITY;
                    else s[j][e] = plain ? s[j][e] * a.scale : head.score(a, s[j][e], row, key);
                    top = fmaxf(top, s[j][e]);
                }
#pragma unroll
            for (int w = 1; w < 4; w <<= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, w));
            const float kept = m[h] == top ? 1.0f : expf(m[h] - top);
            float sum = 0;
#pragma unroll
            for (int j = 0; j < KT; ++j)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; ++e) {
                    s[j][e] = s[j][e] == -INFINITY ? 0.0f : expf(s[j][e] - top);
                    sum += s[j][e];
                }
            m[h] = top;
            l[h] = l[h] * kept + sum;
#pragma unroll
            for (int c = 0; c < DT; ++c) o[c][2 * h] *= kept, o[c][2 * h + 1] *= kept;
        }
#pragma unroll
        for (int j = 0; j < KT; j += 2) {
            const unsigned fp[4] = {pair<T>(s[j][0], s[j][1]), pair<T>(s[j][2], s[j][3]),
                                    pair<T>(s[j + 1][0], s[j + 1][1]), pair<T>(s[j + 1][2], s[j + 1][3])};
#pragma unroll
            for (int c = 0; c < DT; c += 2) {
                unsigned fv[4];
                simt::ldmatrix_x4<true>(fv, pv + (j * 8 + lane % 16) * S::row + c * 8 + lane / 16 * 8);
                simt::mma_m16n8k16<T>(o[c], fp, fv[0], fv[1]);
                simt::mma_m16n8k16<T>(o[c + 1], fp, fv[2], fv[3]);
            }
        }
        __syncthreads();  // this tile has been read
    }
    simt::cp_async_wait<0>();
    __syncthreads();
    // Rows leave 16 bytes at a time, through the place of this warp's queries.
    T* rows = sq + warp * 16 * S::row;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int w = 1; w < 4; w <<= 1) l[h] += __shfl_xor_sync(0xffffffffu, l[h], w);
        const float inverse = inverse_of(a, l[h], to[h] > from[h]);
#pragma unroll
        for (int c = 0; c < DT; ++c) {
            const T v[2] = {quern::cuda::from_float<T>(o[c][2 * h] * inverse),
                            quern::cuda::from_float<T>(o[c][2 * h + 1] * inverse)};
            simt::store_pack(rows + (g + 8 * h) * S::row + c * 8 + 2 * t, v);
        }
    }
    __syncwarp();
    const int left = count - warp * 16;
    T* out = head.y + (q0 + warp * 16) * a.y_row;
    if (vector) {
#pragma unroll 1
        for (int i = lane; i < 16 * DT; i += 32) {
            const int r = i / DT, c = i % DT * 8;
            if (r >= left || c >= a.dv) continue;
            T v[8];
            simt::load_pack(rows + r * S::row + c, v);
            simt::store_pack(out + r * a.y_row + c, v);
        }
    } else {
#pragma unroll 1
        for (int i = lane; i < 16 * D; i += 32) {
            const int r = i / D, c = i % D;
            if (r < left && c < a.dv) out[r * a.y_row + c] = rows[r * S::row + c];
        }
    }
}

template <class T, int D>
cudaError_t run(const Arguments& a, std::int64_t heads, cudaStream_t stream) {
    return launch<T, D>(a, heads, stream, [&](bool vector, unsigned each) {
        return simt::launch(half_tiles<T, D>, dim3(static_cast<unsigned>(heads * each)), dim3(kThreads),
                            HalfTile<D>::elements * sizeof(T), stream, a, vector, each);
    });
}
cudaError_t run_half(const Arguments& a, std::int64_t heads, cudaStream_t stream) {
    return by_width(a, [&](auto d) {
        constexpr int D = decltype(d)::value;
        return a.type == DType::f16 ? run<__half, D>(a, heads, stream) : run<__nv_bfloat16, D>(a, heads, stream);
    });
}

}  // namespace attention::cuda
QUERN_END
