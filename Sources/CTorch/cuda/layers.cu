// What stands between a decoder layer's matrix products: residual addition and norms, rotation with the store of keys and values,
// gated activations, angles. Rows are read and written once, in 16-byte pieces, and every rounding to bfloat16 is where the
// separate operations have it. Sums are in an order that depends on a row's width alone: a row's result is the same in any batch.
// Needs no header.
typedef unsigned short bf16;
typedef long long int64;

// How a norm's weight is stored.
#define WEIGHT_FLOAT 1
#define WEIGHT_OFFSET 2

__device__ __forceinline__ unsigned pack(float low, float high) {
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ void unpack(float (&x)[8], uint4 raw) {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[2 * i] = __uint_as_float(words[i] << 16);
        x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}
__device__ __forceinline__ uint4 pack(const float (&x)[8]) {
    return make_uint4(pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7]));
}
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
__device__ __forceinline__ void round_all(float (&x)[8]) { unpack(x, pack(x)); }
__device__ __forceinline__ uint4 load(const bf16 *at) { return *(const uint4 *)at; }
__device__ __forceinline__ void store(bf16 *at, uint4 x) { *(uint4 *)at = x; }
__device__ __forceinline__ void load_floats(float (&x)[8], const float *at) {
    const float4 a = *(const float4 *)at, b = *(const float4 *)(at + 4);
    x[0] = a.x; x[1] = a.y; x[2] = a.z; x[3] = a.w;
    x[4] = b.x; x[5] = b.y; x[6] = b.z; x[7] = b.w;
}
__device__ __forceinline__ float squares(const float (&x)[8]) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(x[i], x[i], sum);
    return sum;
}
// x <- x * scale * weight[first ..], rounded by who packs it. `raw` holds a bfloat16 weight that was fetched ahead.
__device__ __forceinline__ void weigh(float (&x)[8], float scale, const void *weight, int first, uint4 raw, int flags) {
    float w[8];
    if (flags & WEIGHT_FLOAT) load_floats(w, (const float *)weight + first);
    else unpack(w, raw);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = (flags & WEIGHT_OFFSET ? w[i] + 1.f : w[i]) * (scale * x[i]);
}

__device__ __forceinline__ float block_sum(float x, float *scratch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int s = 16; s; s >>= 1) x += __shfl_xor_sync(~0u, x, s);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < (blockDim.x + 31) / 32 ? scratch[lane] : 0.f;
#pragma unroll
    for (int s = 16; s; s >>= 1) x += __shfl_xor_sync(~0u, x, s);
    return x;
}

// sum = x + multiplier * norm(delta), normed = norm(sum), of rows of `columns`; N pieces of 8 a thread. Without `delta` the sum is
// x; without `delta_weight` delta is taken as it is; null results are not written. grid (rows), block columns / 8 / N in warps.
template <int N>
__device__ __forceinline__ void residual_norm(const bf16 *x, int64 x_stride, const bf16 *delta, int64 delta_stride,
                                              const void *delta_weight, float delta_eps, int delta_flags, float multiplier,
                                              const void *weight, float eps, int flags, bf16 *sum, bf16 *normed, int columns) {
    __shared__ float scratch[2][32];
    const int64 row = blockIdx.x;
    uint4 raw_x[N], raw_delta[N], raw_weight[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int first = (i * blockDim.x + threadIdx.x) * 8;
        raw_x[i] = raw_delta[i] = raw_weight[i] = make_uint4(0, 0, 0, 0);
        if (first >= columns) continue;
        raw_x[i] = load(x + row * x_stride + first);
        if (delta) raw_delta[i] = load(delta + row * delta_stride + first);
        if (normed && !(flags & WEIGHT_FLOAT)) raw_weight[i] = load((const bf16 *)weight + first);
    }
    float v[N][8];
#pragma unroll
    for (int i = 0; i < N; ++i) unpack(v[i], raw_x[i]);
    if (delta) {
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
                uint4 raw = make_uint4(0, 0, 0, 0);
                if (!(delta_flags & WEIGHT_FLOAT)) raw = load((const bf16 *)delta_weight + first);
                weigh(d[i], scale, delta_weight, first, raw, delta_flags);
                round_all(d[i]);
            }
        }
        if (multiplier != 1.f) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
#pragma unroll
                for (int j = 0; j < 8; ++j) d[i][j] *= multiplier;
                round_all(d[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int first = (i * blockDim.x + threadIdx.x) * 8;
#pragma unroll
            for (int j = 0; j < 8; ++j) v[i][j] += d[i][j];
            round_all(v[i]);
            if (sum && first < columns) store(sum + row * columns + first, pack(v[i]));
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
        store(normed + row * columns + first, pack(v[i]));
    }
}
#define RESIDUAL_NORM(N)                                                                                                           \
    extern "C" __global__ void __launch_bounds__(512)                                                                              \
    residual_norm_##N(const bf16 *x, int64 x_stride, const bf16 *delta, int64 delta_stride, const void *delta_weight,             \
                      float delta_eps, int delta_flags, float multiplier, const void *weight, float eps, int flags, bf16 *sum,     \
                      bf16 *normed, int columns) {                                                                                 \
        residual_norm<N>(x, x_stride, delta, delta_stride, delta_weight, delta_eps, delta_flags, multiplier, weight, eps, flags,   \
                         sum, normed, columns);                                                                                    \
    }
RESIDUAL_NORM(1)
RESIDUAL_NORM(2)
RESIDUAL_NORM(4)

// In place on the rows of a fused projection, (query_heads + 2 * kv_heads) heads each: queries and keys are normed by head where
// there are weights, their first `rotated` dimensions turned by cos and sin [rows, rotated / 2] (halves paired), keys and values
// stored at the rows' slots where there are pools, of bfloat16 or e4m3; a negative slot takes nothing. 2^lane_bits lanes a head, each two pieces of 8:
// the two that are rotated together, or two that stay. `touched`: how many heads of a row are worked on.
extern "C" __global__ void __launch_bounds__(256)
rotary_store(bf16 *heads, int rows, int query_heads, int kv_heads, int head, int rotated, int lane_bits, int touched,
             const float *__restrict__ cosines, const float *__restrict__ sines, const void *query_weight, const void *key_weight,
             float eps, int flags, void *key_pool, void *value_pool, const int *__restrict__ slots, int is_float8) {
    const unsigned index = blockIdx.x * 256 + threadIdx.x;
    const int lane = index & ((1 << lane_bits) - 1), item = index >> lane_bits;
    const int row = item / touched, number = item - row * touched;
    const bool is_active = row < rows && lane * 16 < head;
    const int half = rotated / 2;
    const bool is_turned = lane * 16 < rotated && number < query_heads + kv_heads;
    // Where the lane's two pieces lie within the head.
    const int first = lane * 16 < rotated ? lane * 8 : lane * 16, second = lane * 16 < rotated ? first + half : first + 8;
    bf16 *mine = heads + ((int64)row * (query_heads + 2 * kv_heads) + number) * head;
    float a[8], b[8];
    uint4 raw_a = make_uint4(0, 0, 0, 0), raw_b = raw_a;
    int slot = -1;
    if (is_active) {
        raw_a = load(mine + first);
        raw_b = load(mine + second);
        if (key_pool && number >= query_heads) slot = slots[row];
    }
    unpack(a, raw_a);
    unpack(b, raw_b);
    float c[8], s[8];
    if (is_active && is_turned) {
        load_floats(c, cosines + (int64)row * half + first);
        load_floats(s, sines + (int64)row * half + first);
    }
    const void *weight = number < query_heads ? query_weight : key_weight;
    if (query_weight) {
        float total = squares(a) + squares(b);
        for (int step = 1 << lane_bits >> 1; step; step >>= 1) total += __shfl_xor_sync(~0u, total, step);
        if (is_active && number < query_heads + kv_heads) {
            const float scale = rsqrtf(total / head + eps);
            uint4 w_a = raw_a, w_b = raw_b;
            if (!(flags & WEIGHT_FLOAT)) {
                w_a = load((const bf16 *)weight + first);
                w_b = load((const bf16 *)weight + second);
            }
            weigh(a, scale, weight, first, w_a, flags);
            weigh(b, scale, weight, second, w_b, flags);
            raw_a = pack(a);
            raw_b = pack(b);
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
        raw_a = pack(x);
        raw_b = pack(y);
    }
    if (number < query_heads + kv_heads && (query_weight || is_turned)) {
        store(mine + first, raw_a);
        store(mine + second, raw_b);
    }
    if (slot < 0) return;
    const bool is_key = number < query_heads + kv_heads;
    void *pool = is_key ? key_pool : value_pool;
    const int64 at = ((int64)slot * kv_heads + number - query_heads - (is_key ? 0 : kv_heads)) * head;
    if (is_float8) {
        unsigned char *to = (unsigned char *)pool + at;
        unpack(a, raw_a);
        unpack(b, raw_b);
        *(uint2 *)(to + first) = pack_e4m3(a);
        *(uint2 *)(to + second) = pack_e4m3(b);
    } else {
        bf16 *to = (bf16 *)pool + at;
        store(to + first, raw_a);
        store(to + second, raw_b);
    }
}

// activation(gate) * up of rows [gate, up], each half as long as the row; the activation is rounded before the product.
// `pieces`: of 8, in half a row; `total`: in all rows.
enum Activation { silu, gelu, gelu_tanh };
template <Activation kind> __device__ __forceinline__ float activated(float x) {
    if (kind == silu) return __fdividef(x, 1.f + __expf(-x));
    if (kind == gelu) return x * 0.5f * (1.f + erff(x * 0.70710678118654752f));
    // (1 + tanh u) / 2 is the logistic function of 2 u.
    return __fdividef(x, 1.f + __expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}
template <Activation kind>
__device__ __forceinline__ void gated(const bf16 *gate_up, bf16 *out, unsigned pieces, unsigned total) {
    const unsigned index = blockIdx.x * 256 + threadIdx.x;
    if (index >= total) return;
    const unsigned row = index / pieces;
    const bf16 *at = gate_up + ((int64)index + (int64)row * pieces) * 8;
    const uint4 raw_gate = load(at), raw_up = load(at + (int64)pieces * 8);
    float gate[8], up[8];
    unpack(gate, raw_gate);
    unpack(up, raw_up);
#pragma unroll
    for (int j = 0; j < 8; ++j) gate[j] = activated<kind>(gate[j]);
    round_all(gate);
#pragma unroll
    for (int j = 0; j < 8; ++j) gate[j] *= up[j];
    store(out + (int64)index * 8, pack(gate));
}
#define GATED(kind)                                                                                                                \
    extern "C" __global__ void __launch_bounds__(256)                                                                              \
    gated_##kind(const bf16 *__restrict__ gate_up, bf16 *__restrict__ out, unsigned pieces, unsigned total) {                      \
        gated<kind>(gate_up, out, pieces, total);                                                                                  \
    }
GATED(silu)
GATED(gelu)
GATED(gelu_tanh)

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
