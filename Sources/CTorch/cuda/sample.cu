// One token a row by one uniform number, in vocabulary order, and its log-probability: a single pass over the logits, then the
// one piece again where the number falls. Sums are in a fixed order, so that a row's draw depends on nothing but the row.
typedef unsigned short bf16;
#define THREADS 512
#define PIECE 256
#define MAX_PIECES 2048
__device__ __forceinline__ float value(unsigned x, int high) { return __uint_as_float(high ? x & 0xffff0000u : x << 16); }

extern "C" __global__ void __launch_bounds__(THREADS)
sample_rows(const bf16 *__restrict__ logits, long long stride, int vocabulary, const float *__restrict__ temperatures,
            const float *__restrict__ uniforms, int *__restrict__ tokens, float *__restrict__ log_probs) {
    __shared__ float tops[MAX_PIECES], sums[MAX_PIECES];
    __shared__ float scratch[THREADS / 32];
    const int row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const bf16 *mine = logits + row * stride;
    const float temperature = temperatures[row];
    const bool greedy = temperature <= 0;
    const float factor = greedy ? 1.f : 1.f / temperature;
    const int pieces = (vocabulary + PIECE - 1) / PIECE;
    for (int piece = warp; piece < pieces; piece += THREADS / 32) {
        const int first = piece * PIECE + lane * 8;
        float x[8];
        uint4 raw = first + 8 <= vocabulary ? *(const uint4 *)(mine + first) : make_uint4(0, 0, 0, 0);
        const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
        float top = -1e30f;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            x[i] = first + 8 <= vocabulary ? value(words[i / 2], i & 1) * factor : -1e30f;
            if (first + 8 > vocabulary && first + i < vocabulary) x[i] = value((unsigned)mine[first + i], 0) * factor;
            top = fmaxf(top, x[i]);
        }
#pragma unroll
        for (int s = 16; s; s >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, s));
        float sum = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += x[i] <= -1e29f ? 0.f : __expf(x[i] - top);
#pragma unroll
        for (int s = 16; s; s >>= 1) sum += __shfl_xor_sync(~0u, sum, s);
        if (lane == 0) { tops[piece] = top; sums[piece] = sum; }
    }
    __syncthreads();
    float top = -1e30f;
    for (int i = threadIdx.x; i < pieces; i += THREADS) top = fmaxf(top, tops[i]);
#pragma unroll
    for (int s = 16; s; s >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, s));
    if (lane == 0) scratch[warp] = top;
    __syncthreads();
    top = scratch[0];
    for (int i = 1; i < THREADS / 32; ++i) top = fmaxf(top, scratch[i]);
    if (warp) return;
    // One warp scans the pieces, 32 at a time, in order.
    float total = 0;
    for (int i = lane; i < (pieces + 31) / 32 * 32; i += 32) {
        const float w = i < pieces ? sums[i] * __expf(tops[i] - top) : 0.f;
        float running = w;
#pragma unroll
        for (int s = 1; s < 32; s <<= 1) { const float other = __shfl_up_sync(~0u, running, s); if (lane >= s) running += other; }
        running += total;
        if (i < pieces) sums[i] = running;
        total = __shfl_sync(~0u, running, 31);
    }
    __syncwarp();
    int piece = 0;
    float target = uniforms[row] * total, before = 0;
    if (greedy) {
        // The first of the largest.
        int found = pieces;
        for (int i = lane; i < pieces; i += 32) if (tops[i] == top) { found = i; break; }
#pragma unroll
        for (int s = 16; s; s >>= 1) found = min(found, __shfl_xor_sync(~0u, found, s));
        piece = found;
    } else {
        int found = pieces - 1;
        for (int i = lane; i < pieces; i += 32) if (sums[i] > target) { found = i; break; }
#pragma unroll
        for (int s = 16; s; s >>= 1) found = min(found, __shfl_xor_sync(~0u, found, s));
        piece = found;
        before = piece ? sums[piece - 1] : 0.f;
    }
    const int first = piece * PIECE + lane * 8;
    float x[8], own = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        x[i] = first + i < vocabulary ? value((unsigned)mine[first + i], 0) * factor : -1e30f;
        own += x[i] <= -1e29f ? 0.f : __expf(x[i] - top);
    }
    float running = own;
#pragma unroll
    for (int s = 1; s < 32; s <<= 1) { const float other = __shfl_up_sync(~0u, running, s); if (lane >= s) running += other; }
    running += before - own;
    int token = 1 << 30;
    float chosen = -1e30f;
    int last = -1;
    float last_x = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (x[i] <= -1e29f) continue;
        running += __expf(x[i] - top);
        last = first + i;
        last_x = x[i];
        if (token == 1 << 30 && (greedy ? x[i] == top : running > target)) { token = first + i; chosen = x[i]; }
    }
    int winner = token;
#pragma unroll
    for (int s = 16; s; s >>= 1) winner = min(winner, __shfl_xor_sync(~0u, winner, s));
    if (winner == 1 << 30) {
        // Rounding left the number past the last: the last token it is.
        winner = last;
#pragma unroll
        for (int s = 16; s; s >>= 1) winner = max(winner, __shfl_xor_sync(~0u, winner, s));
        if (last == winner) { token = last; chosen = last_x; }
    }
    if (token == winner && winner < vocabulary) { tokens[row] = winner; log_probs[row] = chosen - top - __logf(total); }
}
