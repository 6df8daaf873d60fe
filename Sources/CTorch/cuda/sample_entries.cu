// Part three of sample.cu: the kernels.
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
