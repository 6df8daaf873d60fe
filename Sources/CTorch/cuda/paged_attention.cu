// Decoding over a paged cache: one query a sequence, grouped heads, keys and values read once through shared memory in 16-byte
// pieces, products on the matrix units, softmax online (Dao et al. 2022), the context split over blocks where there are few
// sequences. Needs no header. Compiled with -DHEAD=64|96|128|256, -DSTAGES=2 or more, -DTILE=16|32 tokens, and -DFLOAT8=1 for a
// cache in e4m3: it is widened on its way into the products, which are in float16 then, exact for e4m3.
typedef unsigned short bf16;
#define WARPS 4
#define KSTEPS (HEAD / 16)
#if FLOAT8
typedef unsigned char cached;
#else
typedef bf16 cached;
#endif
// Values in 16 bytes, and such pieces in a row.
#define PIECE (16 / (int)sizeof(cached))
#define CHUNKS (HEAD / PIECE)
// Rows in shared memory are as wide as the swizzle needs.
#define ROW_BYTES ((HEAD == 96 ? 128 : HEAD) * (int)sizeof(cached))
// Eight rows' pieces of one column lie in eight different banks' quarters.
#define SWIZZLE(row) (ROW_BYTES == 64 ? (row) >> 1 & 3 : (row) & 7)

__device__ __forceinline__ unsigned smem_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }
// Zeros where `bytes` is 0: what lies past a sequence's end may be anything, NaN too.
__device__ __forceinline__ void copy16(unsigned to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;"); }
template <int n> __device__ __forceinline__ void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(n)); }
__device__ __forceinline__ void load4(unsigned (&r)[4], unsigned at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
__device__ __forceinline__ void load4_transposed(unsigned (&r)[4], unsigned at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
#if FLOAT8
#define FACTOR "f16"
#else
#define FACTOR "bf16"
#endif
__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." FACTOR "." FACTOR ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ unsigned pack(float low, float high) {
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
// As the products' factors.
__device__ __forceinline__ unsigned pack_factor(float low, float high) {
    unsigned r;
    asm("cvt.rn." FACTOR "x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
#if FLOAT8
// Two e4m3 values in the low bytes of `x` as float16.
__device__ __forceinline__ unsigned widen(unsigned x) {
    unsigned r;
#if __CUDA_ARCH__ >= 890
    asm("{.reg .b16 pair, rest; mov.b32 {pair, rest}, %1; cvt.rn.f16x2.e4m3x2 %0, pair;}" : "=r"(r) : "r"(x));
#else
    // Exponent and fraction in place and the bias put right by a product, subnormal values too; not NaN, which becomes 480.
    const unsigned apart = __byte_perm(x, 0, 0x1404);
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"((apart & 0x80008000u) | (apart & 0x7f007f00u) >> 1), "r"(0x5c005c00u));
#endif
    return r;
}
// bfloat16 queries as float16: finite, whatever they are.
__device__ __forceinline__ unsigned query_factor(unsigned x) {
    const float low = __uint_as_float(x << 16), high = __uint_as_float(x & 0xffff0000u), most = 65504.f;
    return pack_factor(fminf(fmaxf(low, -most), most), fminf(fmaxf(high, -most), most));
}
#endif
__device__ __forceinline__ float exp2_fast(float x) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }

// grid (Hk * ceil(G / 16), splits, B). Output: of one split, bf16 [B, Hq, HEAD]; of several, float partial [B, Hq, splits, HEAD]
// with (max, sum) beside it.
extern "C" __global__ void __launch_bounds__(WARPS * 32)
paged_decode(const bf16 *__restrict__ query, const cached *__restrict__ key_pool, const cached *__restrict__ value_pool,
             const int *__restrict__ table, const int *__restrict__ starts, const int *__restrict__ lengths, bf16 *__restrict__ out, float *__restrict__ partial,
             float2 *__restrict__ partial_terms, int query_heads, int kv_heads, int page_shift, int splits,
             long long query_stride, float scale, float soft_cap, int window) {
    extern __shared__ __align__(128) unsigned char shared[];
    const int group = query_heads / kv_heads, parts = (group + 15) / 16;
    const int kv_head = blockIdx.x / parts, first_head = kv_head * group + blockIdx.x % parts * 16;
    const int rows = min(16, group - blockIdx.x % parts * 16);
    const int split = blockIdx.y, sequence = blockIdx.z;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int length = lengths[sequence];
    const int start = window > 0 ? max(0, length - window) : 0;
    // Tiles of tokens, shared out evenly.
    const int first_tile = start / TILE, tiles = (length + TILE - 1) / TILE - first_tile;
    const int each = (tiles + splits - 1) / splits;
    const int begin = first_tile + split * each, end = first_tile + min(tiles, (split + 1) * each);

    const unsigned base = smem_address(shared) + warp * (STAGES * 2 * TILE * ROW_BYTES);
    const long long row_stride = (long long)kv_heads * HEAD;
    const int *my_table = table + starts[sequence];
    const int page_mask = (1 << page_shift) - 1;

    // Queries as the first operand's fragments; rows past the group are zero.
    unsigned q[KSTEPS][4];
    {
        const bf16 *mine = query + sequence * query_stride + (long long)first_head * HEAD;
        const int r = lane / 4;
#pragma unroll
        for (int k = 0; k < KSTEPS; ++k) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int row = r + (i & 1) * 8;
#if FLOAT8
                // In the order in which a lane finds the keys: four neighbours.
                const int column = k * 16 + lane % 4 * 4 + (i >> 1) * 2;
                q[k][i] = row < rows ? query_factor(*(const unsigned *)(mine + row * HEAD + column)) : 0;
#else
                const int column = k * 16 + lane % 4 * 2 + (i >> 1) * 8;
                q[k][i] = row < rows ? *(const unsigned *)(mine + row * HEAD + column) : 0;
#endif
            }
        }
    }
    float o[HEAD / 8][4];
#pragma unroll
    for (int i = 0; i < HEAD / 8; ++i) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0;
    float top[2] = {-1e30f, -1e30f}, sum[2] = {0, 0};

    // Where a tile's tokens lie: each lane looks one up, a tile ahead, so that nobody waits for it.
    auto look_up = [&](int tile) {
        const int token = tile * TILE + lane % TILE;
        if (tile >= end || token >= length) return 0;
        return (my_table[token >> page_shift] << page_shift) + (token & page_mask);
    };
    auto load = [&](int tile, int stage, int slots) {
        const int token = tile * TILE;
        const cached *keys = key_pool + kv_head * HEAD, *values = value_pool + kv_head * HEAD;
        const unsigned k_at = base + stage * (2 * TILE * ROW_BYTES), v_at = k_at + TILE * ROW_BYTES;
#pragma unroll
        for (int i = 0; i < TILE * CHUNKS / 32; ++i) {
            const int piece = i * 32 + lane, row = piece / CHUNKS, chunk = piece % CHUNKS;
            const int bytes = token + row < length ? 16 : 0;
            const unsigned to = row * ROW_BYTES + ((chunk ^ SWIZZLE(row)) << 4);
            const long long from = __shfl_sync(~0u, slots, row) * row_stride;
            copy16(k_at + to, keys + from + chunk * PIECE, bytes);
            copy16(v_at + to, values + from + chunk * PIECE, bytes);
        }
    };

    int next = begin + warp, slots = look_up(next);
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
        if (next < end) load(next, s, slots);
        commit();
        next += WARPS;
        slots = look_up(next);
    }
    const float log2e = 1.4426950408889634f;
    int stage = 0;
    for (int tile = begin + warp; tile < end; tile += WARPS) {
        wait<STAGES - 2>();
        __syncwarp();
        {
            int into = stage + STAGES - 1;
            if (into >= STAGES) into -= STAGES;
            if (next < end) load(next, into, slots);
            commit();
            next += WARPS;
            slots = look_up(next);
        }
        const unsigned k_at = base + stage * (2 * TILE * ROW_BYTES), v_at = k_at + TILE * ROW_BYTES;
        float s[TILE / 8][4];
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
        for (int n = 0; n < TILE / 8; n += 2) {
            const int m = lane / 8, token = n * 8 + (m >> 1) * 8 + lane % 8;
            const unsigned row_at = k_at + token * ROW_BYTES;
#pragma unroll
            for (int k = 0; k < CHUNKS / 2; ++k) {
                unsigned b[4];
                load4(b, row_at + (((k * 2 + (m & 1)) ^ SWIZZLE(token)) << 4));
#if FLOAT8
                multiply(s[n], q[k * 2], widen(b[0]), widen(b[0] >> 16));
                multiply(s[n + 1], q[k * 2], widen(b[2]), widen(b[2] >> 16));
                multiply(s[n], q[k * 2 + 1], widen(b[1]), widen(b[1] >> 16));
                multiply(s[n + 1], q[k * 2 + 1], widen(b[3]), widen(b[3] >> 16));
#else
                multiply(s[n], q[k], b[0], b[1]);
                multiply(s[n + 1], q[k], b[2], b[3]);
#endif
            }
        }
        const int token = tile * TILE + lane % 4 * 2;
        float best[2] = {-1e30f, -1e30f};
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float x = s[n][e] * scale;
                if (soft_cap > 0) x = soft_cap * tanhf(x / soft_cap);
                const int at = token + n * 8 + (e & 1);
                x = at < length && at >= start ? x * log2e : -1e30f;
                s[n][e] = x;
                best[e >> 1] = fmaxf(best[e >> 1], x);
            }
        float shrink[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            best[r] = fmaxf(best[r], __shfl_xor_sync(~0u, best[r], 1));
            best[r] = fmaxf(best[r], __shfl_xor_sync(~0u, best[r], 2));
            const float now = fmaxf(top[r], best[r]);
            shrink[r] = exp2_fast(top[r] - now);
            top[r] = now;
            sum[r] *= shrink[r];
        }
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float p = s[n][e] <= -1e29f ? 0.f : exp2_fast(s[n][e] - top[e >> 1]);
                s[n][e] = p;
                sum[e >> 1] += p;
            }
        if (shrink[0] != 1.f || shrink[1] != 1.f) {
#pragma unroll
            for (int i = 0; i < HEAD / 8; ++i) {
                o[i][0] *= shrink[0];
                o[i][1] *= shrink[0];
                o[i][2] *= shrink[1];
                o[i][3] *= shrink[1];
            }
        }
#pragma unroll
        for (int n = 0; n < TILE / 8; n += 2) {
            const unsigned a[4] = {pack_factor(s[n][0], s[n][1]), pack_factor(s[n][2], s[n][3]),
                                   pack_factor(s[n + 1][0], s[n + 1][1]), pack_factor(s[n + 1][2], s[n + 1][3])};
            const int m = lane / 8, row = n * 8 + (m & 1) * 8 + lane % 8;
            const unsigned row_at = v_at + row * ROW_BYTES;
#pragma unroll
            for (int j = 0; j < CHUNKS / 2; ++j) {
                unsigned b[4];
                load4_transposed(b, row_at + (((j * 2 + (m >> 1)) ^ SWIZZLE(row)) << 4));
#if FLOAT8
                // A lane has two neighbours of two tokens, which go together by column: even columns, then odd ones.
#pragma unroll
                for (int i = 0; i < 4; ++i) b[i] = __byte_perm(b[i], 0, 0x3120);
                multiply(o[j * 4], a, widen(b[0]), widen(b[1]));
                multiply(o[j * 4 + 1], a, widen(b[0] >> 16), widen(b[1] >> 16));
                multiply(o[j * 4 + 2], a, widen(b[2]), widen(b[3]));
                multiply(o[j * 4 + 3], a, widen(b[2] >> 16), widen(b[3] >> 16));
#else
                multiply(o[j * 2], a, b[0], b[1]);
                multiply(o[j * 2 + 1], a, b[2], b[3]);
#endif
            }
        }
        if (++stage == STAGES) stage = 0;
        __syncwarp();
    }
    wait<0>();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
        sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
    __syncthreads();
    // The warps' shares come together in shared memory.
    float *merged = (float *)shared;                 // [WARPS][16][HEAD]
    float2 *terms = (float2 *)(merged + WARPS * 16 * HEAD); // [WARPS][16]
    const int r = lane / 4;
#if FLOAT8
#pragma unroll
    for (int i = 0; i < HEAD / 8; i += 2)
#pragma unroll
        for (int half = 0; half < 4; half += 2)
            *(float4 *)&merged[(warp * 16 + r + half * 4) * HEAD + i * 8 + lane % 4 * 4] =
                make_float4(o[i][half], o[i + 1][half], o[i][half + 1], o[i + 1][half + 1]);
#else
#pragma unroll
    for (int i = 0; i < HEAD / 8; ++i)
#pragma unroll
        for (int half = 0; half < 4; half += 2)
            *(float2 *)&merged[(warp * 16 + r + half * 4) * HEAD + i * 8 + lane % 4 * 2] = make_float2(o[i][half], o[i][half + 1]);
#endif
    if (lane % 4 == 0) {
        terms[warp * 16 + r] = make_float2(top[0], sum[0]);
        terms[warp * 16 + r + 8] = make_float2(top[1], sum[1]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows * HEAD / 2; i += WARPS * 32) {
        const int row = i / (HEAD / 2), column = i % (HEAD / 2) * 2;
        float best = -1e30f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) best = fmaxf(best, terms[w * 16 + row].x);
        float total = 0, x = 0, y = 0;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            const float2 t = terms[w * 16 + row];
            const float f = exp2_fast(t.x - best);
            const float2 v = *(const float2 *)&merged[(w * 16 + row) * HEAD + column];
            total += t.y * f;
            x += v.x * f;
            y += v.y * f;
        }
        const long long head = (long long)sequence * query_heads + first_head + row;
        if (splits == 1) {
            const float inverse = total > 0 ? 1.f / total : 0.f;
            *(unsigned *)(out + head * HEAD + column) = pack(x * inverse, y * inverse);
        } else {
            *(float2 *)(partial + (head * splits + split) * HEAD + column) = make_float2(x, y);
            if (column == 0) partial_terms[head * splits + split] = make_float2(best, total);
        }
    }
}

// grid (B * Hq), block HEAD / 2.
extern "C" __global__ void merge_splits(const float *__restrict__ partial, const float2 *__restrict__ terms, bf16 *__restrict__ out, int splits) {
    const long long head = blockIdx.x;
    const int column = threadIdx.x * 2;
    float best = -1e30f;
    for (int s = 0; s < splits; ++s) best = fmaxf(best, terms[head * splits + s].x);
    float total = 0, x = 0, y = 0;
    for (int s = 0; s < splits; ++s) {
        const float2 t = terms[head * splits + s];
        const float f = exp2_fast(t.x - best);
        const float2 v = *(const float2 *)(partial + (head * splits + s) * HEAD + column);
        total += t.y * f;
        x += v.x * f;
        y += v.y * f;
    }
    const float inverse = total > 0 ? 1.f / total : 0.f;
    *(unsigned *)(out + head * HEAD + column) = pack(x * inverse, y * inverse);
}
