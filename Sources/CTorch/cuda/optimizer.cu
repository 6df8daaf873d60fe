// AdamW in one pass over the tensors of a list: gradient, moments, master and weight are each read and written once. Compiled for
// each kind of tensor; moment_codes.inc is put before.
//   WEIGHT_BF16, MASTER, GRAD_BF16 0 or 1; MOMENTS 0 float32, 1 bfloat16, 2 codes of 8 bits; STOCHASTIC 0 or 1
typedef unsigned short half_word; // bfloat16

struct Entry {
    void *weight;
    float *master;
    const void *grad;
    void *first, *second;
    float *first_scale, *second_scale;
    long long count, first_chunk; // elements; chunks of all entries before
    long long offset;             // of the first element in its tensor
    int slot;
    float weight_decay;
};

constexpr int piece = 8, threads = 256, chunk = CHUNK;

__device__ __forceinline__ float widen(half_word x) { return __uint_as_float(static_cast<unsigned>(x) << 16); }
__device__ __forceinline__ half_word round_nearest(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<half_word>((bits >> 16) | 0x40);
    return static_cast<half_word>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
// `random` has 16 bits.
__device__ __forceinline__ half_word round_stored(float x, unsigned random) {
#if STOCHASTIC
    return static_cast<half_word>((__float_as_uint(x) + random) >> 16);
#else
    return round_nearest(x);
#endif
}

// `n` of 8 numbers; all 8 at once where they are aligned.
__device__ __forceinline__ void load(const float *p, float *x, int n, bool whole) {
    if (whole) {
        const float4 a = reinterpret_cast<const float4 *>(p)[0], b = reinterpret_cast<const float4 *>(p)[1];
        x[0] = a.x; x[1] = a.y; x[2] = a.z; x[3] = a.w; x[4] = b.x; x[5] = b.y; x[6] = b.z; x[7] = b.w;
    } else
#pragma unroll
        for (int i = 0; i < piece; ++i) x[i] = i < n ? p[i] : 0.0f;
}
__device__ __forceinline__ void load(const half_word *p, float *x, int n, bool whole) {
    if (whole) {
        const uint4 a = *reinterpret_cast<const uint4 *>(p);
        const unsigned word[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[2 * i] = __uint_as_float(word[i] << 16);
            x[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
        }
    } else
#pragma unroll
        for (int i = 0; i < piece; ++i) x[i] = i < n ? widen(p[i]) : 0.0f;
}
__device__ __forceinline__ void store(float *p, const float *x, int n, bool whole) {
    if (whole) {
        reinterpret_cast<float4 *>(p)[0] = make_float4(x[0], x[1], x[2], x[3]);
        reinterpret_cast<float4 *>(p)[1] = make_float4(x[4], x[5], x[6], x[7]);
    } else
#pragma unroll
        for (int i = 0; i < piece; ++i)
            if (i < n) p[i] = x[i];
}
__device__ __forceinline__ void store(half_word *p, const half_word *x, int n, bool whole) {
    if (whole) {
        uint4 a;
        a.x = x[0] | static_cast<unsigned>(x[1]) << 16;
        a.y = x[2] | static_cast<unsigned>(x[3]) << 16;
        a.z = x[4] | static_cast<unsigned>(x[5]) << 16;
        a.w = x[6] | static_cast<unsigned>(x[7]) << 16;
        *reinterpret_cast<uint4 *>(p) = a;
    } else
#pragma unroll
        for (int i = 0; i < piece; ++i)
            if (i < n) p[i] = x[i];
}
__device__ __forceinline__ void load_codes(const unsigned char *p, unsigned *x, int n, bool whole) {
    if (whole) {
        const uint2 a = *reinterpret_cast<const uint2 *>(p);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[i] = a.x >> (8 * i) & 255;
            x[4 + i] = a.y >> (8 * i) & 255;
        }
    } else
#pragma unroll
        for (int i = 0; i < piece; ++i) x[i] = i < n ? p[i] : 0;
}
__device__ __forceinline__ void store_codes(unsigned char *p, const unsigned *x, int n, bool whole) {
    if (whole) {
        uint2 a;
        a.x = x[0] | x[1] << 8 | x[2] << 16 | x[3] << 24;
        a.y = x[4] | x[5] << 8 | x[6] << 16 | x[7] << 24;
        *reinterpret_cast<uint2 *>(p) = a;
    } else
#pragma unroll
        for (int i = 0; i < piece; ++i)
            if (i < n) p[i] = static_cast<unsigned char>(x[i]);
}

// The entry that a chunk belongs to.
__device__ __forceinline__ int find_entry(const Entry *entries, int count, long long at) {
    int low = 0, high = count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (entries[middle].first_chunk <= at) low = middle;
        else high = middle - 1;
    }
    return low;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    return x;
}
__device__ __forceinline__ double block_sum(double x) {
    __shared__ double parts[threads / 32];
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(~0u, x, i);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < threads / 32; ++i) sum += parts[i];
    __syncthreads();
    return sum;
}

#if GRAD_BF16
typedef half_word Grad;
#else
typedef float Grad;
#endif

// partials[block] = the sum of squares of the chunks that the block takes
extern "C" __global__ void __launch_bounds__(threads) squares(const Entry *entries, int count, long long chunks, double *partials) {
    double sum = 0;
    for (long long at = blockIdx.x; at < chunks; at += gridDim.x) {
        const Entry &e = entries[find_entry(entries, count, at)];
        const long long begin = (at - e.first_chunk) * chunk, end = begin + chunk < e.count ? begin + chunk : e.count;
        const Grad *grad = static_cast<const Grad *>(e.grad);
        const bool aligned = reinterpret_cast<unsigned long long>(grad) % 16 == 0;
        float part = 0;
        for (long long i = begin + threadIdx.x * piece; i < end; i += threads * piece) {
            const int n = static_cast<int>(end - i < piece ? end - i : piece);
            float g[piece];
            load(grad + i, g, n, aligned && n == piece);
#pragma unroll
            for (int j = 0; j < piece; ++j) part += g[j] * g[j];
        }
        sum += part;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// control[0] (+)= all partials, in a fixed order
extern "C" __global__ void __launch_bounds__(threads) add_squares(const double *partials, int count, int is_first, double *control) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += threads) sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) control[0] = is_first ? sum : control[0] + sum;
}

// One block: decides the step and counts it.
extern "C" __global__ void __launch_bounds__(threads) prepare(const int *slots, int count, float *steps, float *corrections, double *control,
                                                   double max_norm, double beta1, double beta2) {
    const double norm = sqrt(control[0]);
    const bool taken = isfinite(norm);
    if (threadIdx.x == 0) {
        control[1] = norm;
        control[2] = max_norm > 0 && norm > max_norm ? max_norm / (norm + 1e-6) : 1.0;
        control[3] = taken;
    }
    if (!taken) return;
    for (int i = threadIdx.x; i < count; i += threads) {
        const int slot = slots[i];
        const float step = steps[slot] + 1;
        steps[slot] = step;
        corrections[2 * slot] = static_cast<float>(1 / (1 - pow(beta1, static_cast<double>(step))));
        corrections[2 * slot + 1] = static_cast<float>(1 / sqrt(1 - pow(beta2, static_cast<double>(step))));
    }
}

#if MOMENTS == 1
typedef half_word Moment;
#else
typedef float Moment;
#endif
#if WEIGHT_BF16
typedef half_word Weight;
#else
typedef float Weight;
#endif

// One chunk a block; a warp takes 256 elements at a time, which is a block of 8-bit moments.
extern "C" __global__ void __launch_bounds__(threads) apply(const Entry *entries, int count, const float *steps, const float *corrections,
                                                 const double *control, float lr, float beta1, float beta2, float eps,
                                                 unsigned long long seed) {
    if (control[3] == 0) return;
    const Entry e = entries[find_entry(entries, count, blockIdx.x)];
    const float factor = static_cast<float>(control[2]), by_first = corrections[2 * e.slot], by_second = corrections[2 * e.slot + 1];
    const float keep = 1 - lr * e.weight_decay, rate = lr * by_first;
    const long long begin = (blockIdx.x - e.first_chunk) * chunk, end = begin + chunk < e.count ? begin + chunk : e.count;
    const int lane = threadIdx.x % 32;
    // Pieces begin at multiples of 8, so all depends on where the tensors begin.
    const unsigned long long places = reinterpret_cast<unsigned long long>(e.weight) | reinterpret_cast<unsigned long long>(e.master) |
                                      reinterpret_cast<unsigned long long>(e.grad) | reinterpret_cast<unsigned long long>(e.first) |
                                      reinterpret_cast<unsigned long long>(e.second);
    const bool aligned = places % 16 == 0;
#if MOMENTS == 2
    __shared__ float decades[2 * DECADES], first_values[256], second_values[256];
    if (threadIdx.x < 2 * DECADES) decades[threadIdx.x] = decade_entry(threadIdx.x);
    first_values[threadIdx.x] = decode_first(threadIdx.x);
    second_values[threadIdx.x] = decode_second(threadIdx.x);
    __syncthreads();
#endif
#if STOCHASTIC
    const unsigned key = rounding_key(seed, e.slot, steps[e.slot]);
#endif
    for (long long base = begin + threadIdx.x / 32 * 256; base < end; base += threads * piece) {
        const long long i = base + lane * piece;
        const int n = static_cast<int>(end - i < piece ? (end > i ? end - i : 0) : piece);
        const bool whole = aligned && n == piece;
        float g[piece], w[piece], m[piece], v[piece];
        load(static_cast<const Grad *>(e.grad) + i, g, n, whole);
#if MASTER
        load(e.master + i, w, n, whole);
#else
        load(static_cast<const Weight *>(e.weight) + i, w, n, whole);
#endif
#if MOMENTS == 2
        unsigned a[piece], b[piece];
        load_codes(static_cast<const unsigned char *>(e.first) + i, a, n, whole);
        load_codes(static_cast<const unsigned char *>(e.second) + i, b, n, whole);
        const long long block = base / MOMENT_BLOCK;
        const float a_scale = e.first_scale[block], b_scale = e.second_scale[block];
#pragma unroll
        for (int j = 0; j < piece; ++j) {
            m[j] = first_values[a[j]] * a_scale;
            v[j] = second_values[b[j]] * b_scale;
        }
#else
        load(static_cast<const Moment *>(e.first) + i, m, n, whole);
        load(static_cast<const Moment *>(e.second) + i, v, n, whole);
#endif
#pragma unroll
        for (int j = 0; j < piece; ++j) {
            const float x = g[j] * factor;
            m[j] += (1 - beta1) * (x - m[j]);
            v[j] = beta2 * v[j] + (1 - beta2) * x * x;
            w[j] = w[j] * keep - rate * m[j] / (sqrtf(v[j]) * by_second + eps);
        }
#if STOCHASTIC
        unsigned bits[piece];
#pragma unroll
        for (int j = 0; j < piece; ++j) bits[j] = random_bits(key, static_cast<unsigned>(e.offset + i + j));
#define CHANCE(j) bits[j]
#else
#define CHANCE(j) 0u
#endif
#if MASTER
        store(e.master + i, w, n, whole);
#endif
#if WEIGHT_BF16
        half_word rounded[piece];
#pragma unroll
#if MASTER
        for (int j = 0; j < piece; ++j) rounded[j] = round_nearest(w[j]);
#else
        for (int j = 0; j < piece; ++j) rounded[j] = round_stored(w[j], CHANCE(j) & 0xffff);
#endif
        store(static_cast<half_word *>(e.weight) + i, rounded, n, whole);
#else
        store(static_cast<float *>(e.weight) + i, w, n, whole);
#endif
#if MOMENTS == 2
        float a_max = 0, b_max = 0;
#pragma unroll
        for (int j = 0; j < piece; ++j)
            if (j < n) {
                a_max = fmaxf(a_max, fabsf(m[j]));
                b_max = fmaxf(b_max, v[j]);
            }
        a_max = warp_max(a_max);
        b_max = warp_max(b_max);
        const float by_a = a_max > TINY_MOMENT ? 1 / a_max : 0, by_b = b_max > TINY_MOMENT ? 1 / b_max : 0;
#pragma unroll
        for (int j = 0; j < piece; ++j) {
            a[j] = encode_first(m[j] * by_a, decades);
            b[j] = encode_second(v[j] * by_b, decades);
        }
        // Every lane has read the old scales by now: the shuffles above saw to that.
        if (lane == 0) {
            e.first_scale[block] = a_max;
            e.second_scale[block] = b_max;
        }
        store_codes(static_cast<unsigned char *>(e.first) + i, a, n, whole);
        store_codes(static_cast<unsigned char *>(e.second) + i, b, n, whole);
#elif MOMENTS == 1
        half_word a[piece], b[piece];
#pragma unroll
        for (int j = 0; j < piece; ++j) {
            a[j] = round_stored(m[j], CHANCE(j) >> 16);
            b[j] = round_stored(v[j], random_bits(CHANCE(j), 1) >> 16);
        }
        store(static_cast<half_word *>(e.first) + i, a, n, whole);
        store(static_cast<half_word *>(e.second) + i, b, n, whole);
#else
        store(static_cast<float *>(e.first) + i, m, n, whole);
        store(static_cast<float *>(e.second) + i, v, n, whole);
#endif
    }
}
