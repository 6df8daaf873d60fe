#include "fused.hpp"

#include "cuda_driver.hpp"
#include "rows.hpp"

#include <c10/core/GradMode.h>

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
namespace {

constexpr char forward_text[] = {
#embed "cuda/rows.cu"
    ,
#embed "cuda/layers.cu"
};
constexpr char backward_text[] = {
#embed "cuda/rows.cu"
    ,
#embed "cuda/layers_backward.cu"
};

thread_local bool is_unfused = false;

constexpr int64_t piece = 8, threads = 256, widest_row = 16384;
constexpr int float_weight = 1, offset_weight = 2;

CudaKernel &forward_kernel(const at::Tensor &x, const std::string &name) {
    return CudaKernel::get(x.device(), "layers.cu", forward_text, sizeof forward_text, {}, name.c_str());
}
CudaKernel &backward_kernel(const at::Tensor &x, const std::string &name) {
    return CudaKernel::get(x.device(), "layers_backward.cu", backward_text, sizeof backward_text, {}, name.c_str());
}
// What kernels of x's type end with.
const char *suffix(const at::Tensor &x) { return x.scalar_type() == at::kFloat ? "_float" : "_bf16"; }

// Kernels read 16 bytes at a time.
bool is_aligned(const at::Tensor &x) { return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0; }

// `x` as rows of its last dimension, evenly spaced; undefined where that takes a copy.
at::Tensor as_rows(const at::Tensor &x) {
    if (x.dim() == 2 && x.stride(1) == 1) return x;
    return x.dim() > 0 && x.is_contiguous() ? x.view({-1, x.size(-1)}) : at::Tensor();
}

bool takes_rows(const at::Tensor &x) {
    const auto rows = as_rows(x);
    return rows.defined() && rows.size(1) % piece == 0 && rows.size(1) <= widest_row && rows.stride(0) % piece == 0 &&
           is_aligned(rows) && rows.size(0) < (1 << 30);
}

bool takes_norm(const at::Tensor &x, const Norm &norm, int64_t columns) {
    const auto &weight = norm.weight;
    return !weight.defined() ||
           (weight.is_cuda() && weight.dim() == 1 && weight.size(0) == columns && weight.is_contiguous() && is_aligned(weight) &&
            (weight.scalar_type() == x.scalar_type() || weight.scalar_type() == at::kFloat));
}

int flags(const Norm &norm) {
    if (!norm.weight.defined()) return 0;
    return (norm.weight.scalar_type() == at::kFloat ? float_weight : 0) | (norm.unit_offset ? offset_weight : 0);
}

const void *address(const at::Tensor &x) { return x.defined() ? x.const_data_ptr() : nullptr; }
void *place(const at::Tensor &x) { return x.defined() ? x.mutable_data_ptr() : nullptr; }
bool takes_heads(const at::Tensor &heads, int64_t head, int64_t rotated) {
    return has_fused_layers(heads) && heads.dim() == 2 && heads.stride(1) == 1 && heads.stride(0) % piece == 0 && is_aligned(heads) &&
           head % 16 == 0 && head <= 512 && rotated % 16 == 0 && rotated <= head;
}
// Two to this power of lanes work on a head.
int lane_bits_of(int64_t head) {
    int bits = 0;
    while ((16 << bits) < head) ++bits;
    return bits;
}
const char *name_of(Gate gate) {
    const char *names[] = {"silu", "gelu", "gelu_tanh"};
    return names[static_cast<int>(gate)];
}
// Threads that hold `each` of a row's pieces, in whole warps.
unsigned block_of(int64_t pieces, int64_t each) { return static_cast<unsigned>(((pieces + each - 1) / each + 31) / 32 * 32); }
unsigned blocks(int64_t work) { return static_cast<unsigned>((work + threads - 1) / threads); }

} // namespace

bool has_fused_layers(const at::Tensor &x) { return x.is_cuda() && is_fused_type(x) && !is_unfused; }

bool has_residual_norm(const at::Tensor &x, const Norm &norm) {
    return has_fused_layers(x) && takes_rows(x) && takes_norm(x, norm, x.size(-1));
}

ResidualNorm residual_norm(const at::Tensor &x, const at::Tensor &delta, const Norm &delta_norm, double multiplier,
                           const Norm &norm, bool want_sum) {
    const auto rows = as_rows(x), added = delta.defined() ? as_rows(delta) : delta;
    ResidualNorm result;
    if (delta.defined() && want_sum) result.sum = at::empty(x.sizes(), x.options());
    if (norm.weight.defined()) result.normed = at::empty(x.sizes(), x.options());
    const int64_t count = rows.size(0), pieces = rows.size(1) / piece;
    if (count == 0 || pieces == 0) return result;
    const void *x_at = address(rows), *delta_at = address(added), *delta_weight_at = address(delta_norm.weight),
               *weight_at = address(norm.weight);
    void *sum_at = place(result.sum), *normed_at = place(result.normed);
    long long x_stride = rows.stride(0), delta_stride = added.defined() ? added.stride(0) : 0;
    float delta_eps = static_cast<float>(delta_norm.eps), eps = static_cast<float>(norm.eps),
          factor = static_cast<float>(multiplier);
    int delta_flags = flags(delta_norm), own_flags = flags(norm), columns = static_cast<int>(rows.size(1));
    void *arguments[] = {&x_at,   &x_stride,  &delta_at, &delta_stride, &delta_weight_at, &delta_eps, &delta_flags,
                         &factor, &weight_at, &eps,      &own_flags,    &sum_at,          &normed_at, &columns};
    // How many pieces a thread holds depends on the width alone, and with it the order of the sums.
    const int64_t each = pieces <= 256 ? 1 : pieces <= 1024 ? 2 : 4;
    const auto name = (delta.defined() ? "residual_norm_" : "norm_") + std::to_string(each) + suffix(x);
    forward_kernel(x, name).launch(x.device(), static_cast<unsigned>(count), 1, 1, block_of(pieces, each), 0, arguments);
    return result;
}

NormGradients norm_backward(const at::Tensor &x, const Norm &norm, const at::Tensor &d_normed, const at::Tensor &d_sum) {
    const auto rows = as_rows(x);
    const auto dense = [&](const at::Tensor &d) {
        if (!d.defined()) return d;
        return takes_rows(d) ? as_rows(d) : d.contiguous().view(rows.sizes());
    };
    const auto d = dense(d_normed), sum = dense(d_sum);
    NormGradients result{at::empty(x.sizes(), x.options()), {}};
    const int64_t count = rows.size(0), pieces = rows.size(1) / piece;
    if (count == 0 || pieces == 0) {
        result.weight = at::zeros({rows.size(1)}, x.options().dtype(at::kFloat));
        return result;
    }
    const int64_t each = pieces <= 256 ? 1 : pieces <= 512 ? 2 : 4;
    const unsigned block = block_of(pieces, each);
    // As many blocks as there is room for at once.
    const int64_t resident = std::max<int64_t>(1, (each == 4 || x.scalar_type() == at::kFloat ? 512 : 768) / block);
    const int64_t grid = std::min(count, resident * multiprocessors(x.device()));
    const auto partial = at::empty({grid, rows.size(1)}, x.options().dtype(at::kFloat));
    const void *x_at = address(rows), *d_at = address(d), *sum_at = address(sum), *weight_at = address(norm.weight);
    void *dx_at = place(result.x), *partial_at = place(partial);
    long long x_stride = rows.stride(0), d_stride = d.stride(0), sum_stride = sum.defined() ? sum.stride(0) : 0;
    float eps = static_cast<float>(norm.eps);
    int own_flags = flags(norm), row_count = static_cast<int>(count), columns = static_cast<int>(rows.size(1));
    void *arguments[] = {&x_at, &x_stride, &d_at,  &d_stride,   &sum_at,    &sum_stride, &weight_at,
                         &eps,  &own_flags, &dx_at, &partial_at, &row_count, &columns};
    backward_kernel(x, "norm_backward_" + std::to_string(each) + suffix(x))
        .launch(x.device(), static_cast<unsigned>(grid), 1, 1, block, 0, arguments);
    result.weight = partial.sum(0);
    return result;
}

bool has_gated_activation(const at::Tensor &gate_up) {
    return has_fused_layers(gate_up) && gate_up.dim() > 0 && gate_up.is_contiguous() && gate_up.size(-1) % (2 * piece) == 0 &&
           is_aligned(gate_up) && gate_up.numel() / (2 * piece) < (int64_t(1) << 31);
}

at::Tensor gated_activation(const at::Tensor &gate_up, Gate gate) {
    auto sizes = gate_up.sizes().vec();
    sizes.back() /= 2;
    auto out = at::empty(sizes, gate_up.options());
    if (out.numel() == 0) return out;
    const void *from = address(gate_up);
    void *to = place(out);
    unsigned pieces = static_cast<unsigned>(sizes.back() / piece), total = static_cast<unsigned>(out.numel() / piece);
    void *arguments[] = {&from, &to, &pieces, &total};
    forward_kernel(gate_up, std::string("gated_") + name_of(gate) + suffix(gate_up))
        .launch(gate_up.device(), blocks(total), 1, 1, threads, 0, arguments);
    return out;
}

at::Tensor gated_activation_backward(const at::Tensor &gate_up, const at::Tensor &d_out, Gate gate) {
    auto d = at::empty(gate_up.sizes(), gate_up.options());
    if (d.numel() == 0) return d;
    const auto dense = d_out.is_contiguous() && is_aligned(d_out) ? d_out : d_out.clone(at::MemoryFormat::Contiguous);
    const void *from = address(gate_up), *d_out_at = address(dense);
    void *to = place(d);
    unsigned pieces = static_cast<unsigned>(gate_up.size(-1) / (2 * piece)), total = static_cast<unsigned>(d.numel() / (2 * piece));
    void *arguments[] = {&from, &d_out_at, &to, &pieces, &total};
    backward_kernel(gate_up, std::string("gated_backward_") + name_of(gate) + suffix(gate_up))
        .launch(gate_up.device(), blocks(total), 1, 1, threads, 0, arguments);
    return d;
}

bool has_head_kernel(const at::Tensor &heads, int64_t head, const HeadTerms &terms) {
    const auto is_angle = [&](const at::Tensor &x) {
        return !x.defined() || (x.dim() == 2 && x.size(0) == heads.size(0) && x.is_contiguous() && x.scalar_type() == at::kFloat &&
                                x.device() == heads.device() && is_aligned(x));
    };
    return takes_heads(heads, head, terms.rotated()) && is_angle(terms.cos) && is_angle(terms.sin) &&
           takes_norm(heads, terms.query_norm, head) && takes_norm(heads, terms.key_norm, head) &&
           terms.query_norm.weight.defined() == terms.key_norm.weight.defined() && flags(terms.query_norm) == flags(terms.key_norm) &&
           terms.query_norm.eps == terms.key_norm.eps;
}

bool has_rotary_store(const at::Tensor &heads, int64_t head, int64_t rotated, const at::Tensor &key_pool,
                      const at::Tensor &value_pool) {
    auto is_pool = [&](const at::Tensor &pool) {
        return !pool.defined() || (pool.is_cuda() && pool.scalar_type() == key_pool.scalar_type() &&
                                   (pool.scalar_type() == heads.scalar_type() || pool.scalar_type() == at::kFloat8_e4m3fn) &&
                                   pool.dim() == 3 && pool.size(2) == head && pool.is_contiguous() && is_aligned(pool));
    };
    return !c10::GradMode::is_enabled() && takes_heads(heads, head, rotated) && heads.is_contiguous() &&
           key_pool.defined() == value_pool.defined() && is_pool(key_pool) && is_pool(value_pool);
}

void prepare_heads(const at::Tensor &heads, const at::Tensor &out, int64_t head, const HeadTerms &terms) {
    const int64_t rotated = terms.rotated(), rows = heads.size(0);
    TORCH_CHECK(has_head_kernel(heads, head, terms) && takes_heads(out, head, rotated), "heads of ", head, " in ", heads.sizes(), " ",
                heads.scalar_type(), " on ", heads.device(), ", ", rotated,
                " dimensions of them rotated, are not what the kernel takes; cos and sin must be contiguous float32 [T, R/2], and "
                "the norms of queries and keys of one kind, with weights [", head, "]");
    const bool stores = terms.key_pool.defined();
    TORCH_CHECK(heads.size(1) >= (terms.query_heads + (stores ? 2 : 1) * terms.kv_heads) * head &&
                    out.size(1) >= (terms.query_heads + terms.kv_heads) * head,
                "heads: ", terms.query_heads, " query heads and ", terms.kv_heads, " of keys of size ", head,
                " do not fit rows of ", heads.size(1), " and ", out.size(1));
    TORCH_CHECK(!stores || (terms.key_pool.size(1) == terms.kv_heads && terms.value_pool.size(1) == terms.kv_heads &&
                            terms.slots.defined() && terms.slots.scalar_type() == at::kInt && terms.slots.dim() == 1 &&
                            terms.slots.size(0) == rows && terms.slots.is_contiguous() &&
                            terms.slots.device() == heads.device()),
                "heads: pools ", terms.key_pool.sizes(), " must hold ", terms.kv_heads, " heads, and slots be int32 [", rows, "]");
    const auto &q_norm = terms.query_norm, &k_norm = terms.key_norm;
    const bool is_in_place = out.const_data_ptr() == heads.const_data_ptr();
    if (is_in_place && !stores && rotated == 0 && !q_norm.weight.defined()) return;
    const int lane_bits = lane_bits_of(head);
    const int64_t worked = terms.query_heads + (stores ? 2 : 1) * terms.kv_heads, lanes = (rows * worked) << lane_bits;
    TORCH_CHECK(lanes < (int64_t(1) << 31), "heads: ", rows, " rows are too many for one call");
    if (lanes == 0) return;
    const void *heads_at = address(heads);
    void *out_at = place(out), *key_at = place(terms.key_pool), *value_at = place(terms.value_pool);
    const void *cos_at = address(terms.cos), *sin_at = address(terms.sin), *q_weight = address(q_norm.weight),
               *k_weight = address(k_norm.weight), *slots_at = stores ? address(terms.slots) : nullptr;
    long long stride = heads.stride(0), out_stride = out.stride(0);
    int count = static_cast<int>(rows), query_heads = static_cast<int>(terms.query_heads),
        kv_heads = static_cast<int>(terms.kv_heads), size = static_cast<int>(head), turned = static_cast<int>(rotated),
        bits = lane_bits, touched = static_cast<int>(worked), own_flags = flags(q_norm),
        is_float8 = stores && terms.key_pool.scalar_type() == at::kFloat8_e4m3fn;
    float eps = static_cast<float>(q_norm.eps);
    void *arguments[] = {&heads_at, &stride, &out_at,   &out_stride, &count, &query_heads, &kv_heads, &size,     &turned,   &bits,
                         &touched,  &cos_at, &sin_at,   &q_weight,   &k_weight, &eps,      &own_flags, &key_at,  &value_at, &slots_at,
                         &is_float8};
    forward_kernel(heads, std::string("prepare_heads") + suffix(heads))
        .launch(heads.device(), blocks(lanes), 1, 1, threads, 0, arguments);
}

HeadGradients prepare_heads_backward(const at::Tensor &heads, int64_t rows, const at::TensorOptions &options, int64_t head,
                                     const HeadTerms &terms, const at::Tensor &d_query, const at::Tensor &d_key,
                                     const at::Tensor &d_value) {
    const int64_t hq = terms.query_heads, hk = terms.kv_heads;
    const bool has_norms = terms.query_norm.weight.defined();
    HeadGradients result;
    result.heads = at::empty({rows, (hq + 2 * hk) * head}, options);
    const int lane_bits = lane_bits_of(head);
    // Where weights learn, queries are one half of the grid, and keys and values the other.
    const int64_t lanes = (rows * (has_norms ? std::max(hq, 2 * hk) : hq + 2 * hk)) << lane_bits;
    TORCH_CHECK(lanes < (int64_t(1) << 31), "heads: ", rows, " rows are too many for one call");
    const auto readable = [&](const at::Tensor &d) {
        if (!d.defined()) return d;
        const bool is_even = d.stride(2) == 1 && d.stride(0) % piece == 0 && d.stride(1) % piece == 0 && is_aligned(d);
        return is_even ? d : d.clone(at::MemoryFormat::Contiguous);
    };
    const auto dq = readable(d_query), dk = readable(d_key), dv = readable(d_value);
    // A block then goes through many heads before it writes its share.
    int64_t grid = blocks(lanes);
    if (has_norms) grid = std::min<int64_t>(grid, 8 * multiprocessors(result.heads.device()));
    at::Tensor partial;
    if (has_norms) partial = at::zeros({std::max<int64_t>(grid, 1), 2, head}, options.dtype(at::kFloat));
    if (lanes > 0) {
        const auto stride = [](const at::Tensor &d, int dim) -> long long { return d.defined() ? d.stride(dim) : 0; };
        const void *dq_at = address(dq), *dk_at = address(dk), *dv_at = address(dv), *heads_at = has_norms ? address(heads) : nullptr,
                   *cos_at = address(terms.cos), *sin_at = address(terms.sin), *q_weight = address(terms.query_norm.weight),
                   *k_weight = address(terms.key_norm.weight);
        long long q_row = stride(dq, 0), q_head = stride(dq, 1), k_row = stride(dk, 0), k_head = stride(dk, 1),
                  v_row = stride(dv, 0), v_head = stride(dv, 1), own_stride = has_norms ? heads.stride(0) : 0;
        void *to = place(result.heads), *partial_at = place(partial);
        int count = static_cast<int>(rows), query_heads = static_cast<int>(hq), kv_heads = static_cast<int>(hk),
            size = static_cast<int>(head), turned = static_cast<int>(terms.rotated()), bits = lane_bits,
            own_flags = flags(terms.query_norm);
        float eps = static_cast<float>(terms.query_norm.eps);
        void *arguments[] = {&dq_at,  &q_row,    &q_head, &dk_at, &k_row,  &k_head,   &dv_at,    &v_row, &v_head,    &heads_at, &own_stride, &to,
                             &count,  &query_heads, &kv_heads, &size, &turned, &bits, &cos_at, &sin_at, &q_weight, &k_weight, &eps,
                             &own_flags, &partial_at};
        const auto &own = result.heads;
        backward_kernel(own, std::string(has_norms ? "prepare_normed_heads_backward" : "prepare_heads_backward") + suffix(own))
            .launch(own.device(), static_cast<unsigned>(grid), has_norms ? 2 : 1, 1, threads, 0, arguments);
    }
    if (has_norms) {
        const auto total = partial.sum(0);
        result.query_weight = total[0];
        result.key_weight = total[1];
    }
    return result;
}

bool has_rotary_angles(const at::Tensor &positions, const at::Tensor &frequencies) {
    return positions.is_cuda() && positions.dim() == 1 &&
           (positions.scalar_type() == at::kLong || positions.scalar_type() == at::kInt) && positions.is_contiguous() &&
           frequencies.device() == positions.device() && frequencies.dim() == 2 && frequencies.size(0) == 1 &&
           frequencies.scalar_type() == at::kFloat && frequencies.is_contiguous() &&
           positions.numel() * frequencies.numel() < (int64_t(1) << 31);
}

std::pair<at::Tensor, at::Tensor> rotary_angles(const at::Tensor &positions, const at::Tensor &frequencies, double factor) {
    auto cos = at::empty({positions.size(0), frequencies.size(1)}, frequencies.options()), sin = at::empty_like(cos);
    if (cos.numel() == 0) return {cos, sin};
    const void *positions_at = address(positions), *frequencies_at = address(frequencies);
    void *cos_at = place(cos), *sin_at = place(sin);
    int count = static_cast<int>(frequencies.size(1)), is_wide = positions.scalar_type() == at::kLong;
    unsigned total = static_cast<unsigned>(cos.numel());
    float scale = static_cast<float>(factor);
    void *arguments[] = {&positions_at, &is_wide, &frequencies_at, &count, &total, &scale, &cos_at, &sin_at};
    forward_kernel(positions, "rotary_angles").launch(positions.device(), blocks(total), 1, 1, threads, 0, arguments);
    return {cos, sin};
}

int compile_layers(const std::string &architecture) {
    compile_cuda("layers.cu", forward_text, sizeof forward_text, {}, architecture);
    compile_cuda("layers_backward.cu", backward_text, sizeof backward_text, {}, architecture);
    return 2;
}

} // namespace ct

extern "C" void ct_set_unfused(bool on) { ct::is_unfused = on; }
