// What stands between a decoder layer's matrix products: residual addition and norms, rotation with the store of keys and values,
// gated activations, angles. Rows are read and written once, and every rounding to bfloat16 is where the separate operations
// have it. Sums are in an order that depends on a row's width alone: a row's result is the same in any batch. After rows.cu.

// As e4m3, saturated; the first value in the lowest byte.
__device__ __forceinline__ unsigned pack_e4m3(float low, float high) {
#if __CUDA_ARCH__ >= 890
    unsigned short r;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(high), "f"(low));
    return r;
#else
    unsigned r = 0;
    for (int i = 1; i >= 0; --i) {
        const float x = i ? high : low, size = fminf(fabsf(x), 448.f);
        // Below 2^-6 a sum's last bit is 2^-9, the subnormal step; above, three bits of fraction are kept.
        const unsigned bits = __float_as_uint(size);
        const unsigned code = size < 0.015625f ? __float_as_uint(size + 16384.f) & 15
                                               : (bits + 0x7ffff + (bits >> 20 & 1) - (120u << 23)) >> 20;
        r = r << 8 | (x != x ? 127 : code) | (__float_as_uint(x) >> 24 & 128);
    }
    return r;
#endif
}
__device__ __forceinline__ uint2 pack_e4m3(const float (&x)[8]) {
    return make_uint2(pack_e4m3(x[0], x[1]) | pack_e4m3(x[2], x[3]) << 16, pack_e4m3(x[4], x[5]) | pack_e4m3(x[6], x[7]) << 16);
}

// sum = x + multiplier * norm(delta), normed = norm(sum), of rows of `columns`; N pieces of 8 a thread. Without `delta`, in norm_*,
// the sum is x; without `delta_weight` delta is taken as it is; null results are not written. grid (rows), block columns / 8 / N in warps.
template <class T, int N, bool HAS_DELTA>
__device__ __forceinline__ void residual_norm(const T *x, int64 x_stride, const T *delta, int64 delta_stride,
                                              const void *delta_weight, float delta_eps, int delta_flags, float multiplier,
                                              const void *weight, float eps, int flags, T *sum, T *normed, int columns) {
    __shared__ float scratch[2][32];
    const int64 row = blockIdx.x;
    Piece<T> raw_x[N], raw_delta[N], raw_weight[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int first = (i * blockDim.x + threadIdx.x) * 8;
        raw_x[i] = raw_delta[i] = raw_weight[i] = zero_piece<T>();
        if (first >= columns) continue;
        raw_x[i] = load(x + row * x_stride + first);
        if (HAS_DELTA) raw_delta[i] = load(delta + row * delta_stride + first);
        if (normed && !(flags & WEIGHT_FLOAT)) raw_weight[i] = load((const T *)weight + first);
    }
    float v[N][8];
#pragma unroll
    for (int i = 0; i < N; ++i) unpack(v[i], raw_x[i]);
    if constexpr (HAS_DELTA) {
        float d[N][8];
#pragma unroll
        for (int i = 0; i < N; ++i) unpack(d[i], raw_delta[i]);
        if (delta_weight) {
            float total = 0;
#pragma unroll
            for (int i = 0; i < N; ++i) total += squares(d[i]);
            const float scale = rsqrtf(block_sum(total, scratch[1]) / columns + delta_eps);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const int first = (i * blockDim.x + threadIdx.x) * 8;
                if (first >= columns) continue;
                Piece<T> raw = zero_piece<T>();
                if (!(delta_flags & WEIGHT_FLOAT)) raw = load((const T *)delta_weight + first);
                weigh(d[i], scale, delta_weight, first, raw, delta_flags);
                round_all<T>(d[i]);
            }
        }
        if (multiplier != 1.f) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
#pragma unroll
                for (int j = 0; j < 8; ++j) d[i][j] *= multiplier;
                round_all<T>(d[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int first = (i * blockDim.x + threadIdx.x) * 8;
#pragma unroll
            for (int j = 0; j < 8; ++j) v[i][j] = __fadd_rn(v[i][j], d[i][j]);
            round_all<T>(v[i]);
            if (sum && first < columns) store(sum + row * columns + first, pack(v[i], T()));
        }
    }
    if (!normed) return;
    float total = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) total += squares(v[i]);
    const float scale = rsqrtf(block_sum(total, scratch[0]) / columns + eps);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int first = (i * blockDim.x + threadIdx.x) * 8;
        if (first >= columns) continue;
        weigh(v[i], scale, weight, first, raw_weight[i], flags);
        store(normed + row * columns + first, pack(v[i], T()));
    }
}
#define RESIDUAL_NORM(name, T, N, HAS_DELTA)                                                                                       \
    extern "C" __global__ void __launch_bounds__(512)                                                                              \
    name##_##N##_##T(const T *x, int64 x_stride, const T *delta, int64 delta_stride, const void *delta_weight, float delta_eps,    \
                     int delta_flags, float multiplier, const void *weight, float eps, int flags, T *sum, T *normed,               \
                     int columns) {                                                                                                \
        residual_norm<T, N, HAS_DELTA>(x, x_stride, delta, delta_stride, delta_weight, delta_eps, delta_flags, multiplier, weight, \
                                       eps, flags, sum, normed, columns);                                                          \
    }
RESIDUAL_NORM(residual_norm, bf16, 1, true)
RESIDUAL_NORM(residual_norm, bf16, 2, true)
RESIDUAL_NORM(residual_norm, bf16, 4, true)
RESIDUAL_NORM(residual_norm, float, 1, true)
RESIDUAL_NORM(residual_norm, float, 2, true)
RESIDUAL_NORM(residual_norm, float, 4, true)
RESIDUAL_NORM(norm, bf16, 1, false)
RESIDUAL_NORM(norm, bf16, 2, false)
RESIDUAL_NORM(norm, bf16, 4, false)
RESIDUAL_NORM(norm, float, 1, false)
RESIDUAL_NORM(norm, float, 2, false)
RESIDUAL_NORM(norm, float, 4, false)

// The rows of a fused projection, (query_heads + 2 * kv_heads) heads each: queries and keys are normed by head where there are
// weights, their first `rotated` dimensions turned by cos and sin [rows, rotated / 2] (halves paired), and written to `out`, which may
// be `heads` itself; keys and values are stored at the rows' slots where there are pools, of bfloat16 or e4m3; a negative slot takes
// nothing. 2^lane_bits lanes a head, each two pieces of 8. `touched`: how many heads of a row are worked on.
template <class T>
__device__ __forceinline__ void prepare_heads(const T *heads, int64 stride, T *out, int64 out_stride, int rows, int query_heads,
                                              int kv_heads, int head, int rotated, int lane_bits, int touched,
                                              const float *__restrict__ cosines, const float *__restrict__ sines,
                                              const void *query_weight, const void *key_weight, float eps, int flags,
                                              void *key_pool, void *value_pool, const int *__restrict__ slots, int is_float8) {
    const unsigned index = blockIdx.x * 256 + threadIdx.x;
    const int lane = index & ((1 << lane_bits) - 1), item = index >> lane_bits;
    const int row = item / touched, number = item - row * touched;
    const bool is_active = row < rows && lane * 16 < head;
    const int half = rotated / 2;
    const bool is_key_or_query = number < query_heads + kv_heads;
    const bool is_turned = lane * 16 < rotated && is_key_or_query;
    const HeadLane at(lane, rotated);
    const T *mine = heads + row * stride + number * head;
    float a[8], b[8];
    Piece<T> raw_a = zero_piece<T>(), raw_b = raw_a;
    int slot = -1;
    if (is_active) {
        raw_a = load(mine + at.first);
        raw_b = load(mine + at.second);
        if (key_pool && number >= query_heads) slot = slots[row];
    }
    unpack(a, raw_a);
    unpack(b, raw_b);
    float c[8], s[8];
    if (is_active && is_turned) {
        load_floats(c, cosines + (int64)row * half + at.first);
        load_floats(s, sines + (int64)row * half + at.first);
    }
    const void *weight = number < query_heads ? query_weight : key_weight;
    if (query_weight) {
        float total = squares(a) + squares(b);
        for (int step = 1 << lane_bits >> 1; step; step >>= 1) total += __shfl_xor_sync(~0u, total, step);
        if (is_active && is_key_or_query) {
            const float scale = rsqrtf(total / head + eps);
            Piece<T> w_a = raw_a, w_b = raw_b;
            if (!(flags & WEIGHT_FLOAT)) {
                w_a = load((const T *)weight + at.first);
                w_b = load((const T *)weight + at.second);
            }
            weigh(a, scale, weight, at.first, w_a, flags);
            weigh(b, scale, weight, at.second, w_b, flags);
            raw_a = pack(a, T());
            raw_b = pack(b, T());
            unpack(a, raw_a);
            unpack(b, raw_b);
        }
    }
    if (!is_active) return;
    if (is_turned) {
        float x[8], y[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            // Rounded after each product, as the separate operations are.
            x[i] = __fsub_rn(__fmul_rn(a[i], c[i]), __fmul_rn(b[i], s[i]));
            y[i] = __fadd_rn(__fmul_rn(b[i], c[i]), __fmul_rn(a[i], s[i]));
        }
        raw_a = pack(x, T());
        raw_b = pack(y, T());
    }
    if (is_key_or_query && (query_weight || is_turned || out != heads)) {
        T *to = out + row * out_stride + number * head;
        store(to + at.first, raw_a);
        store(to + at.second, raw_b);
    }
    if (slot < 0) return;
    void *pool = is_key_or_query ? key_pool : value_pool;
    const int64 place = ((int64)slot * kv_heads + number - query_heads - (is_key_or_query ? 0 : kv_heads)) * head;
    if (is_float8) {
        unsigned char *to = (unsigned char *)pool + place;
        unpack(a, raw_a);
        unpack(b, raw_b);
        *(uint2 *)(to + at.first) = pack_e4m3(a);
        *(uint2 *)(to + at.second) = pack_e4m3(b);
    } else {
        T *to = (T *)pool + place;
        store(to + at.first, raw_a);
        store(to + at.second, raw_b);
    }
}
#define PREPARE_HEADS(T)                                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                                              \
    prepare_heads_##T(const T *heads, int64 stride, T *out, int64 out_stride, int rows, int query_heads, int kv_heads, int head,   \
                      int rotated, int lane_bits, int touched, const float *cosines, const float *sines, const void *query_weight, \
                      const void *key_weight, float eps, int flags, void *key_pool, void *value_pool, const int *slots,            \
                      int is_float8) {                                                                                             \
        prepare_heads<T>(heads, stride, out, out_stride, rows, query_heads, kv_heads, head, rotated, lane_bits, touched, cosines,  \
                         sines, query_weight, key_weight, eps, flags, key_pool, value_pool, slots, is_float8);                     \
    }
PREPARE_HEADS(bf16)
PREPARE_HEADS(float)

// activation(gate) * up of rows [gate, up], each half as long as the row; the activation is rounded before the product.
// `pieces`: of 8, in half a row; `total`: in all rows.
template <class T, Activation kind>
__device__ __forceinline__ void gated(const T *gate_up, T *out, unsigned pieces, unsigned total) {
    const unsigned index = blockIdx.x * 256 + threadIdx.x;
    if (index >= total) return;
    const unsigned row = index / pieces;
    const T *at = gate_up + ((int64)index + (int64)row * pieces) * 8;
    const Piece<T> raw_gate = load(at), raw_up = load(at + (int64)pieces * 8);
    float gate[8], up[8];
    unpack(gate, raw_gate);
    unpack(up, raw_up);
#pragma unroll
    for (int j = 0; j < 8; ++j) gate[j] = activated<T, kind>(gate[j]);
    round_all<T>(gate);
#pragma unroll
    for (int j = 0; j < 8; ++j) gate[j] *= up[j];
    store(out + (int64)index * 8, pack(gate, T()));
}
#define GATED(T, kind)                                                                                                             \
    extern "C" __global__ void __launch_bounds__(256)                                                                              \
    gated_##kind##_##T(const T *__restrict__ gate_up, T *__restrict__ out, unsigned pieces, unsigned total) {                      \
        gated<T, kind>(gate_up, out, pieces, total);                                                                               \
    }
GATED(bf16, silu)
GATED(bf16, gelu)
GATED(bf16, gelu_tanh)
GATED(float, silu)
GATED(float, gelu)
GATED(float, gelu_tanh)

// cos and sin [rows, count] of position * frequency, times a factor.
extern "C" __global__ void __launch_bounds__(256)
rotary_angles(const void *__restrict__ positions, int is_wide, const float *__restrict__ frequencies, int count, unsigned total, float factor,
              float *__restrict__ cosines, float *__restrict__ sines) {
    const unsigned index = blockIdx.x * 256 + threadIdx.x;
    if (index >= total) return;
    const unsigned row = index / count;
    const float angle = __fmul_rn(is_wide ? (float)((const int64 *)positions)[row] : (float)((const int *)positions)[row], frequencies[index - row * count]);
    cosines[index] = __fmul_rn(cosf(angle), factor);
    sines[index] = __fmul_rn(sinf(angle), factor);
}
