// What the kernels between a layer's matrix products share: rows in pieces of 8 values, bfloat16 or float, that are read and written
// 16 bytes at a time and computed with in float. Needs no header.
typedef unsigned short bf16;
typedef long long int64;

// How a norm's weight is stored.
#define WEIGHT_FLOAT 1
#define WEIGHT_OFFSET 2

// 8 values as they lie in memory.
struct Wide {
    float4 low, high;
};
template <class T> struct PieceOf { typedef uint4 type; };
template <> struct PieceOf<float> { typedef Wide type; };
template <class T> using Piece = typename PieceOf<T>::type;

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
__device__ __forceinline__ void unpack(float (&x)[8], const Wide &raw) {
    x[0] = raw.low.x; x[1] = raw.low.y; x[2] = raw.low.z; x[3] = raw.low.w;
    x[4] = raw.high.x; x[5] = raw.high.y; x[6] = raw.high.z; x[7] = raw.high.w;
}
__device__ __forceinline__ uint4 pack(const float (&x)[8], bf16) {
    return make_uint4(pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7]));
}
__device__ __forceinline__ Wide pack(const float (&x)[8], float) {
    return {make_float4(x[0], x[1], x[2], x[3]), make_float4(x[4], x[5], x[6], x[7])};
}
template <class T> __device__ __forceinline__ Piece<T> zero_piece() {
    const float zeros[8] = {};
    return pack(zeros, T());
}
template <class T> __device__ __forceinline__ void round_all(float (&x)[8]) { unpack(x, pack(x, T())); }
template <class T> __device__ __forceinline__ Piece<T> load(const T *at) { return *(const Piece<T> *)at; }
__device__ __forceinline__ void store(bf16 *at, uint4 x) { *(uint4 *)at = x; }
__device__ __forceinline__ void store(float *at, const Wide &x) { *(Wide *)at = x; }
__device__ __forceinline__ void load_floats(float (&x)[8], const float *at) { unpack(x, load(at)); }
__device__ __forceinline__ float squares(const float (&x)[8]) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(x[i], x[i], sum);
    return sum;
}
// A norm's weights [first, first + 8). `raw` holds those of the rows' own type, fetched ahead.
template <class Raw>
__device__ __forceinline__ void weights(float (&w)[8], const void *weight, int first, const Raw &raw, int flags) {
    if (flags & WEIGHT_FLOAT) load_floats(w, (const float *)weight + first);
    else unpack(w, raw);
    if (flags & WEIGHT_OFFSET) {
#pragma unroll
        for (int i = 0; i < 8; ++i) w[i] += 1.f;
    }
}
// x <- x * scale * weight, rounded by who packs it.
template <class Raw>
__device__ __forceinline__ void weigh(float (&x)[8], float scale, const void *weight, int first, const Raw &raw, int flags) {
    float w[8];
    weights(w, weight, first, raw, flags);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = w[i] * (scale * x[i]);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int s = 16; s; s >>= 1) x += __shfl_xor_sync(~0u, x, s);
    return x;
}
__device__ __forceinline__ float block_sum(float x, float *scratch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    x = warp_sum(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_sum(lane < (blockDim.x + 31) / 32 ? scratch[lane] : 0.f);
}

// Where the two pieces of a lane lie within its head: the two that are rotated together, or two that stay.
struct HeadLane {
    int first, second;
    __device__ __forceinline__ HeadLane(int lane, int rotated)
        : first(lane * 16 < rotated ? lane * 8 : lane * 16),
          second(lane * 16 < rotated ? lane * 8 + rotated / 2 : lane * 16 + 8) {}
};

enum Activation { silu, gelu, gelu_tanh };
// The logistic function: of 2 u it is (1 + tanh u) / 2. Fast where the result is rounded to bfloat16.
template <class T> __device__ __forceinline__ float logistic(float x) { return __fdividef(1.f, 1.f + __expf(-x)); }
template <> __device__ __forceinline__ float logistic<float>(float x) { return 1.f / (1.f + expf(-x)); }
__device__ __forceinline__ float doubled_tanh_argument(float x) { return 1.5957691216057308f * (x + 0.044715f * x * x * x); }
template <class T, Activation kind> __device__ __forceinline__ float activated(float x) {
    if (kind == gelu) return x * 0.5f * (1.f + erff(x * 0.70710678118654752f));
    return x * logistic<T>(kind == silu ? x : doubled_tanh_argument(x));
}
// The activation's derivative.
template <class T, Activation kind> __device__ __forceinline__ float slope(float x) {
    if (kind == gelu)
        return 0.5f * (1.f + erff(x * 0.70710678118654752f)) + x * 0.3989422804014327f * expf(-0.5f * x * x);
    const float p = logistic<T>(kind == silu ? x : doubled_tanh_argument(x));
    const float inner = kind == silu ? 1.f : 1.5957691216057308f * (1.f + 0.134145f * x * x);
    return p + x * p * (1.f - p) * inner;
}
