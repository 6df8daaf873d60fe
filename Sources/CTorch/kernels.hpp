#pragma once
#include <cstdint>

// Our CPU kernels: plain functions over a range of work, compiled once per instruction set (kernels_*.cpp) and chosen at
// run time. All arithmetic is float32; `Element` says how inputs and outputs are stored.
namespace ct {

enum class Element : int { float32, bfloat16, float8 }; // float8 is e4m3, of cached keys and values alone

// A matrix whose last dimension is contiguous; `stride` counts elements between rows.
struct Rows {
    void *data;
    int64_t stride;
    Element element;
};

struct HeadStrides {
    int64_t token, head;
};

struct PackedSegment {
    int32_t start, length, parent, reserved;
};

// What a layer's attention is, beyond its queries, keys and values.
struct AttentionTerms {
    float scale;
    int64_t window; // a query sees itself and the window - 1 tokens before it; 0: all
    float soft_cap; // scores become cap * tanh(score / cap); 0: they stay
};

// One head's float32 workspace for packed attention; rows are tokens of the pack.
struct HeadView {
    const float *q, *k, *v;  // [T, D]
    const float *kt, *vt;    // [D, ld]: transposed, padded so that reading 16 past the end is safe
    int64_t ld, head_dim;
};

// Row b's token t lies in page table[starts[b] + (t >> shift)], as its token t % 2^shift.
struct CachedPages {
    const int32_t *table, *starts, *lengths;
    int shift;
};

// A weight [N, K] in codes, laid out by panels of 32 outputs (kernels_quantized.inc); value = (code - zero) * scale, each group of
// inputs with its own. Scales and zeros are [groups, padded]; without zeros they are 128.
struct QuantizedPanels {
    const uint8_t *codes;
    const float *scales;
    const uint8_t *zeros;
    int64_t inputs, group, padded;
    int bits;
};

struct KernelTable {
    const char *name;
    // y = x / rms(x) * w over rows [begin, end), the weight stored as x is or as float32; inverse[row] = 1 / rms
    void (*rms_norm)(Rows x, const Rows &weight, Rows y, float *inverse, int64_t columns, float eps, int64_t begin,
                     int64_t end);
    // dx, and dw added into `dweight` (float32, one a thread)
    void (*rms_norm_backward)(Rows x, const Rows &weight, const float *inverse, Rows dy, Rows dx, float *dweight,
                              int64_t columns, int64_t begin, int64_t end);
    // The first `rotated` dimensions of each head, by the strides of tokens and heads; cos and sin [tokens, rotated/2]; sign +1 turns
    // forward, -1 back. y may be x.
    void (*rotary)(const void *x, HeadStrides x_strides, void *y, HeadStrides y_strides, Element element, const float *cos,
                   const float *sin, int64_t heads, int64_t rotated, float sign, int64_t begin, int64_t end);
    void (*silu_mul)(Rows gate_up, Rows y, int64_t columns, int64_t begin, int64_t end);
    void (*silu_mul_backward)(Rows gate_up, Rows dy, Rows dgate_up, int64_t columns, int64_t begin, int64_t end);
    // Over one row of logits scaled by `scale`: max, log-sum-exp and entropy
    void (*row_statistics)(const void *row, Element element, int64_t columns, float scale, float *log_sum_exp,
                           float *entropy);
    // In place: row <- scale * (g_logp * (onehot(target) - p) - g_ent * p * (log p + entropy))
    void (*row_backward)(void *row, Element element, int64_t columns, float scale, float log_sum_exp, float entropy,
                         int64_t target, float grad_log_prob, float grad_entropy);
    // One head, segments [begin, end): writes out [T, D] rows and lse[T]
    void (*attention)(const HeadView &head, const PackedSegment *segments, int64_t begin, int64_t end,
                      const AttentionTerms &terms, float *out, float *lse);
    // One head, all segments: dq written, dk and dv added
    void (*attention_backward)(const HeadView &head, const PackedSegment *segments, int64_t count,
                               const AttentionTerms &terms, const float *out, const float *lse, const float *dout,
                               float *dq, float *dk, float *dv);
    // (row, key-value head) pairs [begin, end); keys are head_dim wide, values and out value_dim; keys and values are stored as
    // the queries are, or in float8
    void (*cached_attention)(Rows q, const void *keys, const void *values, Element cached, const CachedPages &pages,
                             int64_t query_heads, int64_t kv_heads,
                             int64_t head_dim, int64_t value_dim, const AttentionTerms &terms, Rows out, int64_t begin,
                             int64_t end);
    // target[i] += source[i]
    void (*accumulate)(float *target, const float *source, int64_t count);
    // rows to and from contiguous float32
    void (*load_rows)(Rows source, float *target, int64_t columns, int64_t begin, int64_t end);
    void (*store_rows)(const float *source, Rows target, int64_t columns, int64_t begin, int64_t end);
    // exp(scale * x - shift) into `weights`, returning the sum
    double (*exponentials)(const float *logits, int64_t columns, float scale, float shift, float *weights);
    // y += x · wᵀ in panels [begin, end): x [rows, K] contiguous, y [rows, y_stride], every panel whole
    void (*quantized_linear)(const float *x, int64_t rows, const QuantizedPanels &w, float *y, int64_t y_stride, int64_t begin,
                             int64_t end);
};

const KernelTable &kernels();
extern const KernelTable kernels_avx512, kernels_avx2, kernels_baseline;

} // namespace ct
