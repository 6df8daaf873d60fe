// One token a row by one uniform number, and its log-probability. What a row gives depends on nothing but the row: sums are in a
// fixed order, or of integers.
//
// A plain row takes a single pass over its logits, in pieces, then the one piece again where the number falls (in vocabulary
// order). A filtered row never sorts the vocabulary: tokens are counted and weighed in bins of equal width in log-probability,
// likeliest first; whichever bin holds the end of the top k, the end of the nucleus, or the draw is then looked into, by sorting
// the few tokens in it. There the number falls along the tokens from the likeliest down, as on the CPU.
//
// Compiled for ELEMENT, bf16 or float, and without FILTERS or with, as that part takes seconds to compile. The text is this file,
// sample_filters.cu and sample_entries.cu, one after another.
typedef unsigned short bf16;
typedef unsigned long long u64;
#define THREADS 512
#define WARPS (THREADS / 32)
#define PIECE 256
// Pieces that a warp has under way at once: in the first pass, and in those that filter. More costs registers than it gains.
#define MEASURED 2
#define VISITED (4 / (int)sizeof(T))
#define MAX_PIECES 2048
#define BINS 2048
#define BINS_PER_NAT 64.f
#define INDEX_BITS 19
#define DIGIT_BITS 11
// What bins weigh is counted in whole parts of the weight at the bin's upper edge: the sum over the largest vocabulary stays
// below 2^32.
#define PARTS 524288.f
#define NOTHING -1e30f
#define INFINITE __int_as_float(0x7f800000)

struct Terms {
    const float *temperatures, *uniforms;
    // All or none
    const int *top_k;
    const float *top_p, *min_p;
};

__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(bf16 x) { return __uint_as_float((unsigned)x << 16); }

// Eight logits in a row, as they lie in memory.
template <class T> struct Eight {
    unsigned words[2 * sizeof(T)];
    __device__ __forceinline__ float operator[](int i) const {
        if constexpr (sizeof(T) == 2) return __uint_as_float(i & 1 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
        else return __uint_as_float(words[i]);
    }
};

template <class T> struct Logits {
    const T *at;
    int vocabulary;
    // Whether eight logits may be read at once.
    int aligned;

    __device__ __forceinline__ int pieces() const { return (vocabulary + PIECE - 1) / PIECE; }

    // This thread's eight of a piece; minus infinity past the last.
    __device__ __forceinline__ Eight<T> load(int piece) const {
        const int first = piece * PIECE + threadIdx.x % 32 * 8;
        Eight<T> out;
        if (aligned && first + 8 <= vocabulary) {
            const uint4 *from = (const uint4 *)(at + first);
#pragma unroll
            for (int i = 0; i < (int)sizeof(T) / 2; ++i) {
                const uint4 four = from[i];
                out.words[4 * i] = four.x, out.words[4 * i + 1] = four.y;
                out.words[4 * i + 2] = four.z, out.words[4 * i + 3] = four.w;
            }
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const unsigned bits = __float_as_uint(first + i < vocabulary ? widened(at[first + i]) : -INFINITE);
                if constexpr (sizeof(T) == 4) out.words[i] = bits;
                else out.words[i / 2] = i & 1 ? out.words[i / 2] | bits : bits >> 16;
            }
        }
        return out;
    }
};

// The whole block's shared memory, from which each kernel takes what it needs.
struct Shared {
    float tops[MAX_PIECES], sums[MAX_PIECES];
    double partial[WARPS];
    float top, total;
    int listed;
};
struct FilterShared : Shared {
    // Of each bin, then of all up to it: how many tokens, and what they weigh.
    unsigned counts[BINS];
    float masses[BINS];
    u64 list[BINS];
};
static_assert(sizeof(FilterShared) <= FILTER_SHARED, "what the launch asks for");

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int s = 16; s; s >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, s));
    return x;
}
template <class V> __device__ __forceinline__ V warp_running(V x, int lane) {
#pragma unroll
    for (int s = 1; s < 32; s <<= 1) {
        const V other = __shfl_up_sync(~0u, x, s);
        if (lane >= s) x += other;
    }
    return x;
}
__device__ __forceinline__ float weight(float x, float top) { return x <= -1e29f ? 0.f : __expf(x - top); }

// The largest scaled logit and the sum of weights relative to it: of each piece, then of the row. `sums` become running sums.
template <class T> __device__ void measure(const Logits<T> &row, float factor, Shared &shared) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, pieces = row.pieces();
    for (int first = warp; first < pieces; first += MEASURED * WARPS) {
        Eight<T> raw[MEASURED];
#pragma unroll
        for (int j = 0; j < MEASURED; ++j)
            if (first + j * WARPS < pieces) raw[j] = row.load(first + j * WARPS);
#pragma unroll
        for (int j = 0; j < MEASURED; ++j) {
            const int piece = first + j * WARPS;
            if (piece >= pieces) break;
            float x[8], top = NOTHING, sum = 0;
#pragma unroll
            for (int i = 0; i < 8; ++i) top = fmaxf(top, x[i] = __fmul_rn(raw[j][i], factor));
            top = warp_max(top);
#pragma unroll
            for (int i = 0; i < 8; ++i) sum += weight(x[i], top);
#pragma unroll
            for (int s = 16; s; s >>= 1) sum += __shfl_xor_sync(~0u, sum, s);
            if (lane == 0) shared.tops[piece] = top, shared.sums[piece] = sum;
        }
    }
    __syncthreads();
    float top = NOTHING;
    for (int i = threadIdx.x; i < pieces; i += THREADS) top = fmaxf(top, shared.tops[i]);
    top = warp_max(top);
    if (lane == 0) shared.partial[warp] = top;
    __syncthreads();
    if (warp == 0) {
        top = warp_max(lane < WARPS ? (float)shared.partial[lane] : NOTHING);
        // The warp takes the pieces 32 at a time, in order.
        float total = 0;
        for (int i = lane; i < (pieces + 31) / 32 * 32; i += 32) {
            const float own = i < pieces ? shared.sums[i] * __expf(shared.tops[i] - top) : 0.f;
            const float running = warp_running(own, lane) + total;
            if (i < pieces) shared.sums[i] = running;
            total = __shfl_sync(~0u, running, 31);
        }
        if (lane == 0) shared.top = top, shared.total = total;
    }
}

// The token of a plain row, by the first warp after `measure`.
template <class T>
__device__ void draw_plain(const Logits<T> &row, float factor, bool greedy, float uniform, const Shared &shared, int *token_out,
                           float *log_prob_out) {
    const int lane = threadIdx.x % 32, pieces = row.pieces();
    const float top = shared.top, total = shared.total, target = uniform * total;
    // Greedy: the first piece that has the largest.
    int found = pieces - 1;
    for (int i = lane; i < pieces; i += 32)
        if (greedy ? shared.tops[i] == top : shared.sums[i] > target) { found = i; break; }
#pragma unroll
    for (int s = 16; s; s >>= 1) found = min(found, __shfl_xor_sync(~0u, found, s));
    const int first = found * PIECE + lane * 8;
    const Eight<T> raw = row.load(found);
    float x[8], own = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) own += weight(x[i] = __fmul_rn(raw[i], factor), top);
    float running = warp_running(own, lane) - own + (found && !greedy ? shared.sums[found - 1] : 0.f);
    int token = 1 << 30, last = -1;
    float chosen = NOTHING, last_x = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (x[i] <= -1e29f) continue;
        running += weight(x[i], top);
        last = first + i;
        last_x = x[i];
        if (token == 1 << 30 && (greedy ? x[i] == top : running > target)) token = first + i, chosen = x[i];
    }
    int winner = token;
#pragma unroll
    for (int s = 16; s; s >>= 1) winner = min(winner, __shfl_xor_sync(~0u, winner, s));
    if (winner == 1 << 30) {
        // Rounding left the number past the last: the last token it is.
        winner = last;
#pragma unroll
        for (int s = 16; s; s >>= 1) winner = max(winner, __shfl_xor_sync(~0u, winner, s));
        if (last == winner) token = last, chosen = last_x;
    }
    if (token == winner && winner >= 0) *token_out = winner, *log_prob_out = chosen - top - __logf(total);
}
