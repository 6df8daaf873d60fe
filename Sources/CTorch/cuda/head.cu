// The head's softmax over rows of logits: statistics in one pass, gradients in place. A block has a row; its sums are in an order
// that depends on the row's width alone. Rows may begin anywhere; whole 16-byte pieces are read as such. Needs no header.
typedef unsigned short bf16;
typedef long long int64;
#define NOT_A_NUMBER __int_as_float(0x7fc00000)

// What lies between a product and the softmax: x = factor * product, or, where cap > 0, factor * cap * tanh(product * into_cap).
struct Transform {
    float factor, cap, into_cap;
    __device__ __forceinline__ float operator()(float product) const {
        return cap > 0 ? factor * cap * tanhf(product * into_cap) : factor * product;
    }
    // dx / d product
    __device__ __forceinline__ float slope(float product) const {
        if (!(cap > 0)) return factor;
        const float t = tanhf(product * into_cap);
        return factor * cap * into_cap * (1 - t * t);
    }
};

__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((unsigned)x << 16); }
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ void from_float(bf16 &to, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to) : "f"(x)); }
__device__ __forceinline__ void from_float(float &to, float x) { to = x; }

template <class T> struct alignas(16) Piece {
    static constexpr int count = 16 / sizeof(T);
    T at[count];
};

// Calls pieces(first column, up to 4 pieces a block's width apart, how many) for the whole pieces of a row, and single(column) for
// what is left before and after them. All 4 are on their way before the first is used.
template <class T, class Pieces, class Single>
__device__ __forceinline__ void over_row(const T *row, int columns, Pieces &&pieces, Single &&single) {
    constexpr int count = Piece<T>::count;
    const int skew = (int)(((16 - (unsigned long long)row % 16) % 16) / sizeof(T)), before = min(skew, columns),
              whole = (columns - before) / count, after = before + whole * count, step = blockDim.x;
    const Piece<T> *from = (const Piece<T> *)(row + before);
    Piece<T> loaded[4];
    int i = threadIdx.x;
    for (; i + 3 * step < whole; i += 4 * step) {
#pragma unroll
        for (int j = 0; j < 4; ++j) loaded[j] = from[i + j * step];
        pieces(before + i * count, loaded, 4);
    }
    for (; i < whole; i += step) {
        loaded[0] = from[i];
        pieces(before + i * count, loaded, 1);
    }
    if (threadIdx.x < before) single(threadIdx.x);
    for (int i = after + threadIdx.x; i < columns; i += step) single(i);
}

// Of the x seen so far: the largest, the sum of exp(x - largest), and that of exp(x - largest) * x.
struct Sums {
    float largest = -3e38f, mass = 0, weighted = 0;
    __device__ __forceinline__ void rescale(float to) {
        const float factor = largest == to ? 1.f : __expf(largest - to);
        mass *= factor;
        weighted *= factor;
        largest = to;
    }
    __device__ __forceinline__ void add(float x) {
        const float p = __expf(x - largest);
        mass += p;
        weighted = fmaf(p, p > 0 ? x : 0.f, weighted);
    }
    __device__ __forceinline__ void join(float other_largest, float other_mass, float other_weighted) {
        const float to = fmaxf(largest, other_largest);
        rescale(to);
        const float factor = __expf(other_largest - to);
        mass = fmaf(other_mass, factor, mass);
        weighted = fmaf(other_weighted, factor, weighted);
    }
};

template <class T> __device__ __forceinline__ Sums row_sums(const T *row, int columns, Transform transform) {
    Sums sums;
    over_row(
        row, columns,
        [&](int, const Piece<T> (&loaded)[4], int count) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (j >= count) break;
                float x[Piece<T>::count], most = sums.largest;
#pragma unroll
                for (int i = 0; i < Piece<T>::count; ++i) most = fmaxf(most, x[i] = transform(to_float(loaded[j].at[i])));
                if (most > sums.largest) sums.rescale(most);
#pragma unroll
                for (int i = 0; i < Piece<T>::count; ++i) sums.add(x[i]);
            }
        },
        [&](int column) {
            const float x = transform(to_float(row[column]));
            if (x > sums.largest) sums.rescale(x);
            sums.add(x);
        });
    __shared__ Sums parts[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int s = 16; s; s >>= 1)
        sums.join(__shfl_xor_sync(~0u, sums.largest, s), __shfl_xor_sync(~0u, sums.mass, s), __shfl_xor_sync(~0u, sums.weighted, s));
    if (lane == 0) parts[warp] = sums;
    __syncthreads();
    sums = lane < blockDim.x / 32 ? parts[lane] : Sums();
#pragma unroll
    for (int s = 16; s; s >>= 1)
        sums.join(__shfl_xor_sync(~0u, sums.largest, s), __shfl_xor_sync(~0u, sums.mass, s), __shfl_xor_sync(~0u, sums.weighted, s));
    return sums;
}

// d = slope * (p * -(g + ge * (log p + entropy)) + [column is the target] * g), in place.
template <class T>
__device__ __forceinline__ void row_gradient(T *row, int columns, Transform transform, int64 target, float lse, float entropy,
                                             float g, float ge) {
    auto one = [&](float product, int column) {
        const float log_p = transform(product) - lse, p = __expf(log_p);
        // What has no mass has no gradient, -inf itself included.
        float d = p > 0 ? -p * fmaf(ge, log_p + entropy, g) : 0.f;
        if (column == target) d += g;
        return d * transform.slope(product);
    };
    over_row(
        row, columns,
        [&](int first, Piece<T> (&loaded)[4], int count) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (j >= count) break;
                const int column = first + j * (int)blockDim.x * Piece<T>::count;
#pragma unroll
                for (int i = 0; i < Piece<T>::count; ++i)
                    from_float(loaded[j].at[i], one(to_float(loaded[j].at[i]), column + i));
                *(Piece<T> *)(row + column) = loaded[j];
            }
        },
        [&](int column) { from_float(row[column], one(to_float(row[column]), column)); });
}

template <class T>
__device__ __forceinline__ void statistics(T *products, int64 stride, int columns, Transform transform, const int64 *targets,
                                           float *log_probs, float *lses, float *entropies) {
    const T *row = products + blockIdx.x * stride;
    const Sums sums = row_sums(row, columns, transform);
    if (threadIdx.x) return;
    const float lse = sums.largest + logf(sums.mass);
    const int64 target = targets[blockIdx.x];
    lses[blockIdx.x] = lse;
    entropies[blockIdx.x] = lse - sums.weighted / sums.mass;
    log_probs[blockIdx.x] = target >= 0 && target < columns ? transform(to_float(row[target])) - lse : NOT_A_NUMBER;
}

template <class T>
__device__ __forceinline__ void gradient(T *products, int64 stride, int columns, Transform transform, const int64 *targets,
                                         const float *lses, const float *entropies, const float *g, const float *ge) {
    const int64 i = blockIdx.x;
    row_gradient(products + i * stride, columns, transform, targets[i], lses[i], entropies[i], g ? g[i] : 0.f, ge ? ge[i] : 0.f);
}

// Both, where what the loss asks of each row is known beforehand: the second pass over a row finds most of it in the cache.
template <class T>
__device__ __forceinline__ void both(T *products, int64 stride, int columns, Transform transform, const int64 *targets,
                                     float *log_probs, float *lses, float *entropies, const float *g, const float *ge) {
    const int64 i = blockIdx.x, target = targets[i];
    T *row = products + i * stride;
    const Sums sums = row_sums((const T *)row, columns, transform);
    const float lse = sums.largest + logf(sums.mass), entropy = lse - sums.weighted / sums.mass;
    if (threadIdx.x == 0) {
        lses[i] = lse;
        entropies[i] = entropy;
        log_probs[i] = target >= 0 && target < columns ? transform(to_float(row[target])) - lse : NOT_A_NUMBER;
    }
    // The target's product is read before it is written.
    __syncthreads();
    row_gradient(row, columns, transform, target, lse, entropy, g[i], ge ? ge[i] : 0.f);
}

#define ENTRY(name, suffix, T, ...)                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024)                                                                         \
        head_##name##_##suffix(T *products, int64 stride, int columns, float factor, float cap, float into_cap,               \
                               const int64 *targets, __VA_ARGS__)
#define ENTRIES(suffix, T)                                                                                                     \
    ENTRY(statistics, suffix, T, float *log_probs, float *lses, float *entropies) {                                            \
        statistics(products, stride, columns, {factor, cap, into_cap}, targets, log_probs, lses, entropies);                  \
    }                                                                                                                          \
    ENTRY(gradient, suffix, T, const float *lses, const float *entropies, const float *g, const float *ge) {                   \
        gradient(products, stride, columns, {factor, cap, into_cap}, targets, lses, entropies, g, ge);                        \
    }                                                                                                                          \
    ENTRY(both, suffix, T, float *log_probs, float *lses, float *entropies, const float *g, const float *ge) {                 \
        both(products, stride, columns, {factor, cap, into_cap}, targets, log_probs, lses, entropies, g, ge);                 \
    }
ENTRIES(bfloat16, bf16)
ENTRIES(float32, float)
