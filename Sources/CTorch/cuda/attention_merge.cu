// Joins two softmax attentions of the same queries over different keys, by their log-sum-exps (Milakov & Gimelshein 2018).
// Needs no header.
typedef unsigned short bf16;
typedef long long int64;
#define INFINITE __int_as_float(0x7f800000)

__device__ __forceinline__ unsigned pack(float low, float high) {
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ unsigned blend(unsigned a, unsigned b, float of_a, float of_b) {
    return pack(of_a * __uint_as_float(a << 16) + of_b * __uint_as_float(b << 16),
                of_a * __uint_as_float(a & 0xffff0000u) + of_b * __uint_as_float(b & 0xffff0000u));
}

// out [T,H,D] with its log-sum-exps takes in part [T,H,D] with its own, in place; all of `out` and `part` contiguous, log-sum-exps
// float32 at token * token stride + head * head stride. A query that saw no key has +inf (flash attention's sign for it) or -inf.
// A thread has a piece of 8; those of a head are `pieces`, at most 32 and a power of two rounded up in `lanes`.
extern "C" __global__ void merge_attention(bf16 *out, float *lse, int64 lse_token, int64 lse_head, const bf16 *part,
                                           const float *part_lse, int64 part_token, int64 part_head, int heads, int pieces,
                                           int lanes, int64 rows) {
    const int64 place = (int64)blockIdx.x * blockDim.x + threadIdx.x, row = place / lanes;
    const int lane = (int)(place % lanes);
    if (row >= rows) return;
    const int64 token = row / heads, head = row % heads;
    float *mine = lse + token * lse_token + head * lse_head;
    float a = *mine, b = part_lse[token * part_token + head * part_head];
    if (a == INFINITE) a = -INFINITE;
    if (b == INFINITE) b = -INFINITE;
    // All of a head's lanes are in one warp: none writes before the others have read.
    __syncwarp(__activemask());
    const float most = fmaxf(a, b);
    if (b == -INFINITE) {
        if (lane == 0) *mine = a;
        return;
    }
    const float x = __expf(a - most), y = __expf(b - most), sum = x + y;
    if (lane == 0) *mine = most + logf(sum);
    if (lane >= pieces) return;
    uint4 *to = (uint4 *)out + row * pieces + lane;
    const uint4 p = *to, q = ((const uint4 *)part)[row * pieces + lane];
    const float u = x / sum, v = y / sum;
    *to = make_uint4(blend(p.x, q.x, u, v), blend(p.y, q.y, u, v), blend(p.z, q.z, u, v), blend(p.w, q.w, u, v));
}
