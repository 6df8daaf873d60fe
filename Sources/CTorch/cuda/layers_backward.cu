// Gradients of what stands between a decoder layer's matrix products (layers.cu), each one pass over memory: what the forward pass
// computed besides its inputs is computed again. Weights' gradients are summed a block at a time, `partial`, and the blocks' shares
// added up afterwards: in an order that depends on the sizes alone. After rows.cu.

// Of normed = norm(x): dx = d_sum + (d norm / d x) * d_normed, where d_sum, null for none, is what reaches x beside the norm.
// Blocks go through rows blockIdx, blockIdx + gridDim, ...; partial [gridDim, columns].
template <class T, int N>
__device__ __forceinline__ void norm_backward(const T *x, int64 x_stride, const T *d_normed, int64 d_stride, const T *d_sum,
                                              int64 d_sum_stride, const void *weight, float eps, int flags, T *dx, float *partial,
                                              int rows, int columns) {
    __shared__ float scratch[2][2][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    float gradient[N][8] = {};
    Piece<T> raw_weight[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int first = (i * blockDim.x + threadIdx.x) * 8;
        raw_weight[i] = zero_piece<T>();
        if (first < columns && !(flags & WEIGHT_FLOAT)) raw_weight[i] = load((const T *)weight + first);
    }
    int turn = 0;
    for (int64 row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
        Piece<T> raw_x[N], raw_d[N], raw_sum[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int first = (i * blockDim.x + threadIdx.x) * 8;
            raw_x[i] = raw_d[i] = raw_sum[i] = zero_piece<T>();
            if (first >= columns) continue;
            raw_x[i] = load(x + row * x_stride + first);
            raw_d[i] = load(d_normed + row * d_stride + first);
            if (d_sum) raw_sum[i] = load(d_sum + row * d_sum_stride + first);
        }
        float total = 0, product = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int first = (i * blockDim.x + threadIdx.x) * 8;
            if (first >= columns) continue;
            float v[8], d[8], w[8];
            unpack(v, raw_x[i]);
            unpack(d, raw_d[i]);
            weights(w, weight, first, raw_weight[i], flags);
            total += squares(v);
#pragma unroll
            for (int j = 0; j < 8; ++j) product = fmaf(d[j] * w[j], v[j], product);
        }
        total = warp_sum(total);
        product = warp_sum(product);
        // Two sets in turn: a warp that is a row ahead writes the other one.
        if (lane == 0) {
            scratch[turn][0][warp] = total;
            scratch[turn][1][warp] = product;
        }
        __syncthreads();
        total = warp_sum(lane < warps ? scratch[turn][0][lane] : 0.f);
        product = warp_sum(lane < warps ? scratch[turn][1][lane] : 0.f);
        const float scale = rsqrtf(total / columns + eps), share = scale * scale * scale * (product / columns);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int first = (i * blockDim.x + threadIdx.x) * 8;
            if (first >= columns) continue;
            float v[8], d[8], w[8], s[8];
            unpack(v, raw_x[i]);
            unpack(d, raw_d[i]);
            unpack(s, raw_sum[i]);
            weights(w, weight, first, raw_weight[i], flags);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                gradient[i][j] = fmaf(d[j], v[j] * scale, gradient[i][j]);
                s[j] += scale * d[j] * w[j] - share * v[j];
            }
            store(dx + row * columns + first, pack(s, T()));
        }
    }
    if (!partial) return;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int first = (i * blockDim.x + threadIdx.x) * 8;
        if (first < columns) store(partial + (int64)blockIdx.x * columns + first, pack(gradient[i], float()));
    }
}
#define NORM_BACKWARD(T, N, THREADS, BLOCKS)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                                  \
    norm_backward_##N##_##T(const T *x, int64 x_stride, const T *d_normed, int64 d_stride, const T *d_sum, int64 d_sum_stride,     \
                            const void *weight, float eps, int flags, T *dx, float *partial, int rows, int columns) {              \
        norm_backward<T, N>(x, x_stride, d_normed, d_stride, d_sum, d_sum_stride, weight, eps, flags, dx, partial, rows, columns); \
    }
NORM_BACKWARD(bf16, 1, 256, 4)
NORM_BACKWARD(bf16, 2, 256, 3)
NORM_BACKWARD(bf16, 4, 512, 1)
NORM_BACKWARD(float, 1, 256, 3)
NORM_BACKWARD(float, 2, 256, 2)
NORM_BACKWARD(float, 4, 512, 1)

// Of prepare_heads: d_heads [rows, (query_heads + 2 * kv_heads) * head] of the gradients of queries, keys and values, each by its
// strides of rows and heads, null where none came. `heads` are the projection's rows as they were, read only where there are
// norms, whose weights' gradients go to partial [gridDim.x, 2, head]: then the grid is (any, 2), queries, keys and values.
template <class T, bool HAS_NORMS>
__device__ __forceinline__ void prepare_heads_backward(const T *d_query, int64 query_row, int64 query_head, const T *d_key,
                                                       int64 key_row, int64 key_head, const T *d_value, int64 value_row,
                                                       int64 value_head, const T *heads, int64 stride, T *d_heads, int rows,
                                                       int query_heads, int kv_heads, int head, int rotated, int lane_bits,
                                                       const float *__restrict__ cosines, const float *__restrict__ sines,
                                                       const void *query_weight, const void *key_weight, float eps, int flags,
                                                       float *partial) {
    const int all = query_heads + 2 * kv_heads, half = rotated / 2;
    // Where weights learn, a block's heads have one weight.
    const int offset = HAS_NORMS && blockIdx.y ? query_heads : 0;
    const int touched = !HAS_NORMS ? all : blockIdx.y ? 2 * kv_heads : query_heads;
    const int lane = threadIdx.x & ((1 << lane_bits) - 1);
    const HeadLane at(lane, rotated);
    const int64 lanes = ((int64)rows * touched) << lane_bits;
    float gradient[16] = {};
    for (int64 base = (int64)blockIdx.x * 256; base < lanes; base += (int64)gridDim.x * 256) {
        const int item = (base + threadIdx.x) >> lane_bits, row = item / touched, number = offset + item - row * touched;
        const bool is_active = row < rows && lane * 16 < head, is_query = number < query_heads;
        const bool is_value = number >= query_heads + kv_heads;
        const bool is_turned = lane * 16 < rotated && !is_value;
        const T *from = is_query ? d_query : is_value ? d_value : d_key;
        const bool is_there = from != nullptr;
        from += is_query   ? row * query_row + number * query_head
                : is_value ? row * value_row + (number - query_heads - kv_heads) * value_head
                           : row * key_row + (number - query_heads) * key_head;
        const int64 place = (int64)number * head;
        Piece<T> raw_a = zero_piece<T>(), raw_b = raw_a, raw_x = raw_a, raw_y = raw_a;
        if (is_active && is_there) {
            raw_a = load(from + at.first);
            raw_b = load(from + at.second);
        }
        const bool is_normed = HAS_NORMS && !is_value;
        if (is_active && is_normed) {
            raw_x = load(heads + row * stride + place + at.first);
            raw_y = load(heads + row * stride + place + at.second);
        }
        float a[8], b[8];
        unpack(a, raw_a);
        unpack(b, raw_b);
        if (is_active && is_turned) {
            float c[8], s[8];
            load_floats(c, cosines + (int64)row * half + at.first);
            load_floats(s, sines + (int64)row * half + at.first);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float first = __fadd_rn(__fmul_rn(a[i], c[i]), __fmul_rn(b[i], s[i]));
                b[i] = __fsub_rn(__fmul_rn(b[i], c[i]), __fmul_rn(a[i], s[i]));
                a[i] = first;
            }
        }
        if constexpr (HAS_NORMS) {
            float x[8], y[8], u[8] = {}, v[8] = {};
            unpack(x, raw_x);
            unpack(y, raw_y);
            const void *weight = is_query ? query_weight : key_weight;
            if (is_active && is_normed) {
                Piece<T> w_a = raw_a, w_b = raw_b;
                if (!(flags & WEIGHT_FLOAT)) {
                    w_a = load((const T *)weight + at.first);
                    w_b = load((const T *)weight + at.second);
                }
                weights(u, weight, at.first, w_a, flags);
                weights(v, weight, at.second, w_b, flags);
            }
            float total = squares(x) + squares(y), product = 0;
#pragma unroll
            for (int i = 0; i < 8; ++i) product += a[i] * u[i] * x[i] + b[i] * v[i] * y[i];
            for (int step = 1 << lane_bits >> 1; step; step >>= 1) {
                total += __shfl_xor_sync(~0u, total, step);
                product += __shfl_xor_sync(~0u, product, step);
            }
            if (is_normed) {
                const float scale = rsqrtf(total / head + eps), share = scale * scale * scale * (product / head);
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    gradient[i] += a[i] * x[i] * scale;
                    gradient[8 + i] += b[i] * y[i] * scale;
                    a[i] = scale * a[i] * u[i] - share * x[i];
                    b[i] = scale * b[i] * v[i] - share * y[i];
                }
            }
        }
        if (!is_active) continue;
        T *to = d_heads + (int64)row * all * head + place;
        store(to + at.first, pack(a, T()));
        store(to + at.second, pack(b, T()));
    }
    if constexpr (HAS_NORMS) {
        // The threads of one lane hold the same dimensions.
        __shared__ float shares[16 * 256];
#pragma unroll
        for (int i = 0; i < 16; ++i) shares[i * 256 + threadIdx.x] = gradient[i];
        __syncthreads();
        for (int number = threadIdx.x; number < 16 << lane_bits; number += 256) {
            const int own = number >> 4, i = number & 15;
            if (own * 16 >= head) continue;
            float total = 0;
            for (int thread = own; thread < 256; thread += 1 << lane_bits) total += shares[i * 256 + thread];
            const HeadLane place(own, rotated);
            partial[((int64)blockIdx.x * 2 + blockIdx.y) * head + (i < 8 ? place.first + i : place.second + i - 8)] = total;
        }
    }
}
#define PREPARE_HEADS_BACKWARD(name, T, HAS_NORMS, BLOCKS)                                                                         \
    extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                                      \
    name##_##T(const T *d_query, int64 query_row, int64 query_head, const T *d_key, int64 key_row, int64 key_head,                 \
                               const T *d_value, int64 value_row, int64 value_head, const T *heads, int64 stride, T *d_heads,      \
                               int rows, int query_heads, int kv_heads, int head, int rotated, int lane_bits,                      \
                               const float *cosines, const float *sines, const void *query_weight, const void *key_weight,         \
                               float eps, int flags, float *partial) {                                                             \
        prepare_heads_backward<T, HAS_NORMS>(d_query, query_row, query_head, d_key, key_row, key_head, d_value, value_row, value_head, heads,\
                                  stride, d_heads, rows, query_heads, kv_heads, head, rotated, lane_bits, cosines, sines,          \
                                  query_weight, key_weight, eps, flags, partial);                                                  \
    }
PREPARE_HEADS_BACKWARD(prepare_heads_backward, bf16, false, 5)
PREPARE_HEADS_BACKWARD(prepare_heads_backward, float, false, 5)
PREPARE_HEADS_BACKWARD(prepare_normed_heads_backward, bf16, true, 3)
PREPARE_HEADS_BACKWARD(prepare_normed_heads_backward, float, true, 3)

// Of activation(gate) * up, rows [gate, up], the activation rounded as in the forward pass.
template <class T, Activation kind>
__device__ __forceinline__ void gated_backward(const T *gate_up, const T *d_out, T *d_gate_up, unsigned pieces, unsigned total) {
    const unsigned index = blockIdx.x * 256 + threadIdx.x;
    if (index >= total) return;
    const unsigned row = index / pieces;
    const int64 at = ((int64)index + (int64)row * pieces) * 8, half = (int64)pieces * 8;
    const Piece<T> raw_gate = load(gate_up + at), raw_up = load(gate_up + at + half), raw_d = load(d_out + (int64)index * 8);
    float gate[8], up[8], d[8], active[8];
    unpack(gate, raw_gate);
    unpack(up, raw_up);
    unpack(d, raw_d);
#pragma unroll
    for (int j = 0; j < 8; ++j) active[j] = activated<T, kind>(gate[j]);
    round_all<T>(active);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        gate[j] = d[j] * up[j] * slope<T, kind>(gate[j]);
        up[j] = d[j] * active[j];
    }
    store(d_gate_up + at, pack(gate, T()));
    store(d_gate_up + at + half, pack(up, T()));
}
#define GATED_BACKWARD(T, kind)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                              \
    gated_backward_##kind##_##T(const T *__restrict__ gate_up, const T *__restrict__ d_out, T *__restrict__ d_gate_up,             \
                                unsigned pieces, unsigned total) {                                                                 \
        gated_backward<T, kind>(gate_up, d_out, d_gate_up, pieces, total);                                                         \
    }
GATED_BACKWARD(bf16, silu)
GATED_BACKWARD(bf16, gelu)
GATED_BACKWARD(bf16, gelu_tanh)
GATED_BACKWARD(float, silu)
GATED_BACKWARD(float, gelu)
GATED_BACKWARD(float, gelu_tanh)
