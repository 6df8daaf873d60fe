// Part two of sample.cu: filtered rows.

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
