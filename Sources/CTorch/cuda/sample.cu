// One token a row by one uniform number, and its log-probability. What a row gives depends on nothing but the row: sums are in a
// fixed order, or of integers.
//
// A plain row takes a single pass over its logits, in pieces, then the one piece again where the number falls (in vocabulary
// order). A filtered row never sorts the vocabulary: tokens are counted and weighed in bins of equal width in log-probability,
// likeliest first; whichever bin holds the end of the top k, the end of the nucleus, or the draw is then looked into, by sorting
// the few tokens in it. There the number falls along the tokens from the likeliest down, as on the CPU.
//
// Compiled for ELEMENT, bf16 or float, and without FILTERS or with, as that part takes seconds to compile.
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

// ---- filters

// Tokens in order of weight, equal ones in order of the vocabulary: the smaller, the earlier.
template <class T> __device__ __forceinline__ u64 place(float logit, int index) {
    const unsigned bits = __float_as_uint(logit + 0.f); // no -0
    const unsigned ascending = bits ^ (bits & 0x80000000u ? ~0u : 0x80000000u);
    return ((u64)(~ascending >> (32 - 8 * sizeof(T))) << INDEX_BITS) | (unsigned)index;
}
template <class T> __device__ __forceinline__ float logit_at(u64 place) {
    const unsigned ascending = ~((unsigned)(place >> INDEX_BITS) << (32 - 8 * sizeof(T)));
    const unsigned bits = ascending & 0x80000000u ? ascending ^ 0x80000000u : ~ascending;
    return __uint_as_float(sizeof(T) == 2 ? bits & 0xffff0000u : bits);
}
__device__ __forceinline__ int index_at(u64 place) { return (int)(place & ((1u << INDEX_BITS) - 1)); }

// How far below the likeliest, in bins.
__device__ __forceinline__ float gap(float x, float top) { return (top - x) * BINS_PER_NAT; }
__device__ __forceinline__ int bin_of(float gap) { return gap < (float)BINS ? (int)gap : BINS; }
// What a weight lacks to that of its bin's upper edge, in parts of that: 1 - exp(-t), t below 1/64.
__device__ __forceinline__ unsigned lacking(float gap, int bin) {
    const float t = (gap - (float)bin) * (1.f / BINS_PER_NAT);
    return __float2uint_rn(t * (1.f - t * (0.5f - t * (1.f / 6))) * PARTS);
}
__device__ __forceinline__ float mass(int bin, unsigned count, unsigned lacking) {
    return expf(-(float)bin / BINS_PER_NAT) * (float)((double)count - (double)lacking * (1. / PARTS));
}

// Replaces four values a thread, in the threads' order, by the sums up to and with each.
template <class V> __device__ void running_sums(V (&x)[4], Shared &shared) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    V own = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) own = x[i] += own;
    const V through = warp_running(own, lane);
    if (lane == 31) shared.partial[warp] = (double)through;
    __syncthreads();
    double before = 0;
    for (int i = 0; i < warp; ++i) before += shared.partial[i];
    const V base = (V)before + through - own;
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] += base;
    __syncthreads();
}

// Turns the bins' counts and lacks into running counts and masses. `edge`: the bin whose upper edge all of them are counted by,
// or -1: each by its own.
__device__ void total_up(unsigned *counts, float *masses, int edge, Shared &shared) {
    unsigned count[4];
    double weighed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int bin = threadIdx.x * 4 + i;
        count[i] = counts[bin];
        weighed[i] = count[i] ? mass(edge < 0 ? bin : edge, count[i], __float_as_uint(masses[bin])) : 0;
    }
    running_sums(count, shared);
    running_sums(weighed, shared);
#pragma unroll
    for (int i = 0; i < 4; ++i) counts[threadIdx.x * 4 + i] = count[i], masses[threadIdx.x * 4 + i] = (float)weighed[i];
    __syncthreads();
}

// What a cut is after: so many tokens, or so much weight.
struct Goal {
    unsigned count;
    float mass;
    __device__ __forceinline__ bool reached(unsigned c, float m) const { return c >= count || m >= mass; }
};
__device__ __forceinline__ Goal goal(unsigned count) { return {count, INFINITE}; }
__device__ __forceinline__ Goal goal(float mass) { return {~0u, mass}; }

// The tokens up to `at` in order of weight: how many they are, and what they weigh.
struct Cut {
    u64 at;
    unsigned count;
    float mass;
};

// Bins first...last, as the sorted list holds them from `begin` to before `end`; `before` is what lies before them in the row.
struct Segment {
    int first = 1, last = 0, begin = 0, end = 0;
    Cut before = {};
    __device__ bool holds(int bin) const { return bin >= first && bin <= last; }
};

template <class T> struct Filter {
    const Logits<T> &row;
    FilterShared &shared;
    float factor, floor;
    // The last bin with a token that counts.
    int last;
    // What the list holds: one run of bins, or two bins.
    Segment near = {}, far = {};

    // Every token that counts, with the bin it is in.
    template <class Body> __device__ __forceinline__ void visit(Body body) {
        // Copies that no store to shared memory can change.
        const Logits<T> row = this->row;
        const float factor = this->factor, floor = this->floor, top = shared.top, end = (float)(last + 1);
        const int pieces = row.pieces();
        for (int start = threadIdx.x / 32; start < pieces; start += VISITED * WARPS) {
            Eight<T> raw[VISITED];
            bool wanted[VISITED];
#pragma unroll
            for (int j = 0; j < VISITED; ++j) {
                const int piece = start + j * WARPS;
                wanted[j] = piece < pieces && gap(shared.tops[piece], top) < end;
                if (wanted[j]) raw[j] = row.load(piece);
            }
#pragma unroll
            for (int j = 0; j < VISITED; ++j) {
                if (!wanted[j]) continue;
                const int first = (start + j * WARPS) * PIECE + threadIdx.x % 32 * 8;
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const float scaled = __fmul_rn(raw[j][i], factor), below = gap(scaled, top);
                    if (below < end && scaled >= floor) body(raw[j][i], below, (int)below, first + i);
                }
            }
        }
    }

    __device__ void clear(unsigned *counts, float *masses) {
        for (int i = threadIdx.x; i < BINS; i += THREADS) counts[i] = 0, masses[i] = 0;
        __syncthreads();
    }

    __device__ void fill() {
        clear(shared.counts, shared.masses);
        visit([&](float, float below, int bin, int) {
            atomicAdd(shared.counts + bin, 1u);
            atomicAdd((unsigned *)shared.masses + bin, lacking(below, bin));
        });
        __syncthreads();
        total_up(shared.counts, shared.masses, -1, shared);
    }

    // The first entry that reaches the goal after `before`, or the last that has a token.
    __device__ static int first_of(const unsigned *counts, const float *masses, int entries, Cut before, Goal goal) {
        int low = 0, high = entries - 1;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (counts[middle] == counts[entries - 1] || goal.reached(before.count + counts[middle], before.mass + masses[middle]))
                high = middle;
            else low = middle + 1;
        }
        return low;
    }

    // Divides a bin by digits of its tokens' places until the part that reaches the goal fits the list. Gives the bits left;
    // `prefix` gets those found, `before` what lies before.
    __device__ int narrow(int bin, unsigned count, u64 &prefix, Cut &before, Goal goal) {
        __syncthreads();
        auto *counts = (unsigned *)shared.list;
        auto *masses = (float *)(counts + BINS);
        int bits = 8 * sizeof(T) + INDEX_BITS;
        while (count > BINS) {
            const int shift = max(0, bits - DIGIT_BITS);
            clear(counts, masses);
            visit([&](float x, float below, int its, int index) {
                if (its != bin) return;
                const u64 at = place<T>(x, index);
                if (at >> bits != prefix) return;
                const int digit = (int)(at >> shift) & ((1 << (bits - shift)) - 1);
                atomicAdd(counts + digit, 1u);
                atomicAdd((unsigned *)masses + digit, lacking(below, bin));
            });
            __syncthreads();
            total_up(counts, masses, bin, shared);
            const int digit = first_of(counts, masses, BINS, before, goal);
            count = counts[digit] - (digit ? counts[digit - 1] : 0);
            if (digit) before.count += counts[digit - 1], before.mass += masses[digit - 1];
            prefix = prefix << (bits - shift) | digit;
            bits = shift;
            __syncthreads();
        }
        return bits;
    }

    // Lists the tokens of both segments whose places begin with `prefix`, sorted, their running weights in `sums`; gives how many.
    __device__ int gather(int bits, u64 prefix) {
        if (threadIdx.x == 0) shared.listed = 0;
        __syncthreads();
        const int near_first = near.first, near_last = near.last, far_first = far.first, far_last = far.last;
        visit([=, &shared = shared](float x, float, int bin, int index) {
            if ((bin < near_first || bin > near_last) && (bin < far_first || bin > far_last)) return;
            const u64 at = place<T>(x, index);
            if (at >> bits == prefix) shared.list[atomicAdd(&shared.listed, 1)] = at;
        });
        __syncthreads();
        const int listed = shared.listed;
        int size = 32;
        while (size < listed) size *= 2;
        for (int i = listed + threadIdx.x; i < size; i += THREADS) shared.list[i] = ~0ull;
        __syncthreads();
        // Batcher's bitonic network.
        for (int run = 2; run <= size; run *= 2)
            for (int step = run / 2; step; step /= 2) {
                for (int i = threadIdx.x; i < size / 2; i += THREADS) {
                    const int low = 2 * i - (i & (step - 1)), high = low + step;
                    const u64 a = shared.list[low], b = shared.list[high];
                    if ((a > b) == !(low & run)) shared.list[low] = b, shared.list[high] = a;
                }
                __syncthreads();
            }
        double running[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int entry = threadIdx.x * 4 + i;
            running[i] =
                entry < listed ? __expf(__fmul_rn(logit_at<T>(shared.list[entry]), factor) - shared.top) : 0.f;
        }
        running_sums(running, shared);
#pragma unroll
        for (int i = 0; i < 4; ++i) shared.sums[threadIdx.x * 4 + i] = (float)running[i];
        __syncthreads();
        return listed;
    }

    __device__ Segment segment(int first, int last, int begin) const {
        const Cut before = first ? Cut{0, shared.counts[first - 1], shared.masses[first - 1]} : Cut{};
        return {first, last, begin, begin + (int)(shared.counts[last] - before.count), before};
    }

    // Lists the bin, and with it all before it or the one that will be asked for next, where that fits.
    __device__ void list(int bin, int next, Goal goal) {
        int bits = 8 * sizeof(T) + INDEX_BITS;
        u64 prefix = 0;
        near = segment(bin, bin, 0), far = {};
        const int own = near.end;
        if (shared.counts[bin] <= BINS) near = segment(0, bin, 0);
        else if (own > BINS) bits = narrow(bin, own, prefix, near.before, goal);
        else if (next < bin && own + segment(next, next, 0).end <= BINS) {
            near = segment(next, next, 0);
            far = segment(bin, bin, near.end);
        }
        const int listed = gather(bits, prefix);
        if (own > BINS) near.end = listed;
    }

    // The fewest tokens, likeliest first, that reach the goal; all, where they do not. `next`: what the next cut is likely after.
    __device__ Cut cut(Goal goal, Goal next) {
        const int bin = first_of(shared.counts, shared.masses, last + 1, {}, goal);
        if (!near.holds(bin) && !far.holds(bin)) list(bin, first_of(shared.counts, shared.masses, last + 1, {}, next), goal);
        const Segment &in = near.holds(bin) ? near : far;
        const float mass = in.before.mass - (in.begin ? shared.sums[in.begin - 1] : 0.f);
        int low = in.begin, high = in.end - 1;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (goal.reached(in.before.count + middle - in.begin + 1, mass + shared.sums[middle])) high = middle;
            else low = middle + 1;
        }
        const Cut found = {shared.list[low], in.before.count + low - in.begin + 1, mass + shared.sums[low]};
        // Only a part of the bin is there: good for this cut alone.
        if (near.end - near.begin < (int)(shared.counts[near.last] - (near.first ? shared.counts[near.first - 1] : 0)))
            near = {}, far = {};
        return found;
    }

    // The first bin such that the k-th likeliest token lies in it or before it: as many pieces have a top so high.
    __device__ int bin_of_top(unsigned k, int pieces) {
        clear(shared.counts, shared.masses);
        for (int piece = threadIdx.x; piece < pieces; piece += THREADS) {
            const int bin = bin_of(gap(shared.tops[piece], shared.top));
            if (bin < BINS) atomicAdd(shared.counts + bin, 1u);
        }
        __syncthreads();
        total_up(shared.counts, shared.masses, -1, shared);
        const int bin = shared.counts[BINS - 1] < k
                            ? BINS - 1
                            : first_of(shared.counts, shared.masses, BINS, {}, goal(k));
        __syncthreads();
        return bin;
    }
};

// The token of a filtered row, after `measure`: min-p against the likeliest, then the top k, then the nucleus of what is left.
template <class T>
__device__ void draw_filtered(const Logits<T> &row, float factor, float uniform, unsigned top_k, float top_p, float min_p,
                              FilterShared &shared, int *token_out, float *log_prob_out) {
    const float top = shared.top, total = shared.total;
    const int pieces = row.pieces();
    Filter<T> filter{row, shared, factor, -INFINITE, BINS - 1, {}, {}};
    // Tokens past the last bin weigh less together than the steps of a uniform number. What surely is cut off is not even counted:
    // tokens below as many pieces' tops as k, and those so light that all like them could not fill what lies outside the nucleus.
    if (min_p > 0) {
        filter.floor = top + logf(min_p);
        filter.last = min(filter.last, bin_of(gap(filter.floor, top)));
    }
    if (top_k && top_k <= pieces) filter.last = min(filter.last, filter.bin_of_top(top_k, pieces));
    else if (top_p < 1 && !top_k && !(min_p > 0))
        filter.last = min(filter.last, max(0, bin_of(-logf(0.99f * (1 - top_p) * total / row.vocabulary) * BINS_PER_NAT)));
    filter.fill();
    const unsigned count = shared.counts[filter.last];
    float kept = top_k || min_p > 0 ? shared.masses[filter.last] : total;
    u64 limit = ~0ull;
    if (top_k && top_k < count) {
        const Cut cut = filter.cut(goal(top_k), goal(~0u));
        limit = cut.at, kept = cut.mass;
    }
    if (top_p < 1) {
        const Cut cut = filter.cut(goal(top_p * kept), goal(uniform * top_p * kept));
        if (cut.at < limit) limit = cut.at, kept = cut.mass;
    }
    // More than the target: at least the next number.
    const float target = uniform * kept, more = __int_as_float(__float_as_int(target) + 1);
    const u64 drawn = min(filter.cut(goal(more), goal(~0u)).at, limit);
    if (threadIdx.x == 0) {
        *token_out = index_at(drawn);
        *log_prob_out = __fmul_rn(logit_at<T>(drawn), factor) - top - __logf(total);
    }
}

template <class T, bool filters>
__device__ void sample(const T *logits, long long stride, int vocabulary, int aligned, const Terms &terms, int *tokens,
                       float *log_probs, Shared &shared) {
    const int row = blockIdx.x;
    const Logits<T> mine{logits + row * stride, vocabulary, aligned};
    const float temperature = terms.temperatures[row], uniform = terms.uniforms[row];
    const bool greedy = temperature <= 0;
    const float factor = greedy ? 1.f : 1.f / temperature;
    measure(mine, factor, shared);
    if constexpr (filters) {
        __syncthreads();
        const int asked = terms.top_k[row];
        const unsigned top_k = asked > 0 && asked < vocabulary ? asked : 0;
        const float top_p = terms.top_p[row], min_p = terms.min_p[row];
        if (!greedy && (top_k || top_p < 1 || min_p > 0) && shared.total > 0 && shared.total < INFINITE) {
            draw_filtered(mine, factor, uniform, top_k, top_p, min_p, static_cast<FilterShared &>(shared), tokens + row,
                          log_probs + row);
            return;
        }
    }
    if (threadIdx.x >= 32) return;
    __syncwarp();
    if (shared.total > 0 && shared.total < INFINITE)
        draw_plain(mine, factor, greedy, uniform, shared, tokens + row, log_probs + row);
    else if (threadIdx.x == 0) tokens[row] = 0, log_probs[row] = __int_as_float(0x7fffffff); // not finite
}

extern "C" __global__ void __launch_bounds__(THREADS)
sample_rows(const ELEMENT *__restrict__ logits, long long stride, int vocabulary, int aligned, Terms terms, int *tokens,
            float *log_probs) {
#if FILTERS
    extern __shared__ __align__(16) unsigned char memory[];
    sample<ELEMENT, true>(logits, stride, vocabulary, aligned, terms, tokens, log_probs, *(FilterShared *)memory);
#else
    __shared__ Shared shared;
    sample<ELEMENT, false>(logits, stride, vocabulary, aligned, terms, tokens, log_probs, shared);
#endif
}

// ---- adjustments

struct Adjustments {
    // Of each: a row below 0 is none.
    const int *rows, *tokens;
    const float *factors, *offsets;
};

__device__ __forceinline__ void store(float *at, float x) { *at = x; }
__device__ __forceinline__ void store(bf16 *at, float x) {
    const unsigned bits = __float_as_uint(x);
    *at = (bf16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

template <class T>
__device__ void adjust(T *logits, long long stride, int batch, int vocabulary, const Adjustments &entries, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int row = entries.rows[i], token = entries.tokens[i];
    if (row < 0 || row >= batch || token < 0 || token >= vocabulary) return;
    T *at = logits + row * stride + token;
    const float x = widened(*at), factor = entries.factors[i];
    store(at, (x > 0 ? x / factor : x * factor) + entries.offsets[i]);
}

extern "C" __global__ void adjust_rows(ELEMENT *logits, long long stride, int batch, int vocabulary, Adjustments entries,
                                       int count) {
    adjust(logits, stride, batch, vocabulary, entries, count);
}
