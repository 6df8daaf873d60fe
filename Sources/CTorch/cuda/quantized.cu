// Products of bfloat16 rows with weights in codes of 8 or 4 bits: y [M, N] = x [M, K] · wᵀ. The weight is the left operand of the
// matrix instruction, rows of x the columns of the right one, so that few rows waste little. Codes become exact bfloat16 integers
// in registers; products are scaled in float32.
//
// Codes lie as the instruction's fragments want them: by tile of 16 outputs and block of 64 inputs, 16 bytes a lane (8 bits:
// twice). Lane (g, t) holds outputs g and g + 8, and of the block's halves h its inputs 32 h + 8 t ... + 7: 16-byte pieces of x.
typedef unsigned u32;
typedef unsigned char u8;
typedef unsigned short bf16;

#ifndef BITS
#define BITS 4
#endif

__device__ __forceinline__ uint4 streamed(const uint4 *at) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
    return v;
}
__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// a - b in both halves, for b with its signs turned; exact for small integers.
__device__ __forceinline__ u32 minus(u32 a, u32 negative) {
    u32 difference;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(difference) : "r"(a), "r"(0x3F803F80u), "r"(negative));
    return difference;
}
// Two floats to bfloat16, the first in the lower half.
__device__ __forceinline__ u32 rounded(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
__device__ __forceinline__ float widened(bf16 x) { return __uint_as_float((u32)x << 16); }
// 128 + code (4 bits) is a bfloat16 of these bits, and so in both halves of a word.
__device__ __forceinline__ u32 negative_zero(u8 zero) { return zero * 0x10001u | 0xC300C300u; }
// Bytes `first` and first + 1 of a word, less 128: 2^23 + byte is a float, whose upper half is exact once 2^23 + 128 is gone.
__device__ __forceinline__ u32 two_bytes(u32 word, int first) {
    const float low = __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7650 + first)) - 8388736.f;
    const float high = __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7651 + first)) - 8388736.f;
    return __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
}

// The codes of one tile and block that a lane holds, and the terms of its two outputs.
struct Block {
#if BITS == 8
    uint4 codes[2];
#else
    uint4 codes;
    float scale[2];
    u32 zero[2];
#endif
    // Fragment j of four, each for 16 of the block's inputs.
    __device__ __forceinline__ void fragment(int j, u32 (&a)[4]) const {
#if BITS == 8
        const uint4 &half = codes[j / 2];
        const u32 first = j % 2 ? half.z : half.x, second = j % 2 ? half.w : half.y;
        a[0] = two_bytes(first, 0);
        a[1] = two_bytes(first, 2);
        a[2] = two_bytes(second, 0);
        a[3] = two_bytes(second, 2);
#else
        const u32 word = j == 0 ? codes.x : j == 1 ? codes.y : j == 2 ? codes.z : codes.w;
#pragma unroll
        for (int r = 0; r < 4; ++r) a[r] = minus(((word >> (4 * r)) & 0x000f000fu) | 0x43004300u, zero[r & 1]);
#endif
    }
};

// What does not change from launch to launch but with the weight and x.
struct Shape {
    int rows, outputs, inputs, padded, group;
    long long x_stride;
};

// Sums what the warps along the inputs have, through shared memory [WK][outputs of the block][rows + 1], and writes it.
template <int NT, int R, int WN, int WK>
__device__ __forceinline__ void finish(const float (&total)[R][NT][4], float *sums, int side, int along, int g, int t,
                                       const float *__restrict__ scales, const bf16 *__restrict__ bias, bf16 *__restrict__ y,
                                       float *__restrict__ partial, const Shape &s) {
    constexpr int columns = NT * 8, outputs_here = WN * R * 16;
    const int first_row = blockIdx.z * columns;
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int output = (side * R + r) * 16 + g + 8 * (i / 2), column = n * 8 + 2 * t + i % 2;
                sums[(along * outputs_here + output) * (columns + 1) + column] = total[r][n][i];
            }
    __syncthreads();
    for (int i = threadIdx.x; i < outputs_here * columns; i += WN * WK * 32) {
        const int output = i % outputs_here, column = i / outputs_here;
        const int n = blockIdx.x * outputs_here + output, row = first_row + column;
        if (n >= s.outputs || row >= s.rows) continue;
        float sum = 0;
#pragma unroll
        for (int k = 0; k < WK; ++k) sum += sums[(k * outputs_here + output) * (columns + 1) + column];
#if BITS == 8
        sum *= scales[n];
#endif
        const long long place = (long long)row * s.outputs + n;
        if (gridDim.y > 1) partial[blockIdx.y * (long long)s.rows * s.outputs + place] = sum;
        else y[place] = (bf16)rounded(bias ? sum + widened(bias[n]) : sum, 0.f);
    }
}

// NT eights of rows of x; each warp R tiles of outputs, WN warps side by side, WK along the inputs; D blocks on their way at a time.
// Grid: outputs, pieces of the inputs, rows. With more than one piece the sums go to `partial` [pieces, M, N].
template <int NT, int R, int WN, int WK, int D>
__device__ __forceinline__ void product(const uint4 *__restrict__ codes, const float *__restrict__ scales,
                                        const u8 *__restrict__ zeros, const bf16 *__restrict__ x,
                                        const bf16 *__restrict__ bias, bf16 *__restrict__ y,
                                        float *__restrict__ partial, const Shape s) {
    constexpr int columns = NT * 8;
    extern __shared__ float sums[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int side = warp % WN, along = warp / WN;
    const int tiles = s.outputs / 16, blocks = s.inputs / 64;
    const int first_row = blockIdx.z * columns;
    const int begin = (int)((long long)blocks * blockIdx.y / gridDim.y), end = (int)((long long)blocks * (blockIdx.y + 1) / gridDim.y);

    float total[R][NT][4];
    int tile[R];
#pragma unroll
    for (int r = 0; r < R; ++r) {
        tile[r] = min((int)(blockIdx.x * WN + side) * R + r, tiles - 1);
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) total[r][n][i] = 0;
    }
    const bf16 *mine = x + (first_row + g) * s.x_stride + t * 8;

    for (int at = begin + along; at < end; at += WK * D) {
        Block block[D][R];
#pragma unroll
        for (int d = 0; d < D; ++d) {
            const int b = at + d * WK;
            if (b >= end) break;
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const long long place = (long long)tile[r] * blocks + b;
#if BITS == 8
                block[d][r].codes[0] = streamed(codes + place * 64 + lane);
                block[d][r].codes[1] = streamed(codes + place * 64 + 32 + lane);
#else
                block[d][r].codes = streamed(codes + place * 32 + lane);
                const int terms = b * 64 / s.group * s.padded + tile[r] * 16 + g;
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    block[d][r].scale[i] = __ldg(scales + terms + 8 * i);
                    block[d][r].zero[i] = negative_zero(__ldg(zeros + terms + 8 * i));
                }
#endif
            }
        }
#pragma unroll
        for (int d = 0; d < D; ++d) {
            const int b = at + d * WK;
            if (b >= end) break;
            u32 a[R][4][4];
#pragma unroll
            for (int r = 0; r < R; ++r)
#pragma unroll
                for (int j = 0; j < 4; ++j) block[d][r].fragment(j, a[r][j]);
#pragma unroll
            for (int n = 0; n < NT; ++n) {
                uint4 low = make_uint4(0, 0, 0, 0), high = low;
                if (first_row + n * 8 + g < s.rows) {
                    const uint4 *from = reinterpret_cast<const uint4 *>(mine + n * 8 * s.x_stride + b * 64);
                    low = __ldg(from);
                    high = __ldg(from + 4);
                }
#pragma unroll
                for (int r = 0; r < R; ++r) {
#if BITS == 8
                    float (&sum)[4] = total[r][n];
#else
                    float sum[4] = {0, 0, 0, 0};
#endif
                    multiply(sum, a[r][0], low.x, low.y);
                    multiply(sum, a[r][1], low.z, low.w);
                    multiply(sum, a[r][2], high.x, high.y);
                    multiply(sum, a[r][3], high.z, high.w);
#if BITS == 4
#pragma unroll
                    for (int i = 0; i < 4; ++i) total[r][n][i] = fmaf(block[d][r].scale[i / 2], sum[i], total[r][n][i]);
#endif
                }
            }
        }
    }

    finish<NT, R, WN, WK>(total, sums, side, along, g, t, scales, bias, y, partial, s);
}

#define PRODUCT(NAME, NT, R, WN, WK, D)                                                                               \
    extern "C" __global__ void __launch_bounds__(WN * WK * 32)                                                        \
    NAME(const uint4 *codes, const float *scales, const u8 *zeros, const bf16 *x, const bf16 *bias, bf16 *y,          \
         float *partial, int rows, int outputs, int inputs, int padded, int group, long long x_stride) {              \
        product<NT, R, WN, WK, D>(codes, scales, zeros, x, bias, y, partial,                                          \
                                  Shape{rows, outputs, inputs, padded, group, x_stride});                             \
    }
// Measured on an H200 over the projections of a 7B model.
PRODUCT(product_8, 1, BITS == 8 ? 1 : 2, 1, 8, 2)
PRODUCT(product_16, 2, 2, 1, 8, 2)
PRODUCT(product_32, 4, 2, 2, 4, 1)
PRODUCT(product_64, 8, 4, 2, 2, 1)

// Sums the pieces.
extern "C" __global__ void __launch_bounds__(256)
join_pieces(const float *partial, const bf16 *bias, bf16 *y, int pieces, int outputs, long long count) {
    const long long i = blockIdx.x * 256ll + threadIdx.x;
    if (i >= count) return;
    float sum = 0;
    for (int p = 0; p < pieces; ++p) sum += partial[p * count + i];
    y[i] = (bf16)rounded(bias ? sum + widened(bias[i % outputs]) : sum, 0.f);
}

// The weight as bfloat16 [N, K]: a warp a tile and block.
extern "C" __global__ void __launch_bounds__(256)
dequantize(const uint4 *codes, const float *scales, const u8 *zeros, bf16 *weight, int inputs, int padded, int group,
           long long places) {
    const long long place = blockIdx.x * 8ll + threadIdx.x / 32;
    if (place >= places) return;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, blocks = inputs / 64;
    const int tile = (int)(place / blocks), b = (int)(place % blocks);
    const int terms = b * 64 / group * padded + tile * 16 + g;
    Block block;
    float scale[2] = {scales[terms], scales[terms + 8]};
#if BITS == 8
    block.codes[0] = streamed(codes + place * 64 + lane);
    block.codes[1] = streamed(codes + place * 64 + 32 + lane);
#else
    block.codes = streamed(codes + place * 32 + lane);
    for (int i = 0; i < 2; ++i) block.zero[i] = negative_zero(zeros[terms + 8 * i]);
#endif
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        u32 a[2][4];
        block.fragment(2 * half, a[0]);
        block.fragment(2 * half + 1, a[1]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            u32 pairs[4];
#pragma unroll
            for (int p = 0; p < 4; ++p) {
                const u32 values = a[p / 2][p % 2 * 2 + i];
                pairs[p] = rounded(__uint_as_float(values << 16) * scale[i], __uint_as_float(values & 0xffff0000u) * scale[i]);
            }
            const long long at = (long long)(tile * 16 + g + 8 * i) * inputs + b * 64 + half * 32 + t * 8;
            *reinterpret_cast<uint4 *>(weight + at) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        }
    }
}
