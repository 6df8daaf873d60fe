#include "fused.hpp"

#include "cuda_driver.hpp"
#include "shim.hpp"

#include <c10/core/GradMode.h>

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
namespace {

constexpr char layers_text[] = {
#embed "cuda/layers.cu"
};

thread_local bool is_unfused = false;

constexpr int64_t piece = 8, threads = 256, widest_row = 16384;
constexpr int float_weight = 1, offset_weight = 2;

CudaKernel &kernel(const at::Tensor &x, const char *name) {
    return CudaKernel::get(x.device(), "layers.cu", layers_text, sizeof layers_text, {}, name);
}

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

bool takes_norm(const Norm &norm, int64_t columns) {
    const auto &weight = norm.weight;
    return !weight.defined() ||
           (weight.is_cuda() && weight.dim() == 1 && weight.size(0) == columns && weight.is_contiguous() && is_aligned(weight) &&
            (weight.scalar_type() == at::kBFloat16 || weight.scalar_type() == at::kFloat));
}

int flags(const Norm &norm) {
    if (!norm.weight.defined()) return 0;
    return (norm.weight.scalar_type() == at::kFloat ? float_weight : 0) | (norm.unit_offset ? offset_weight : 0);
}

const void *address(const at::Tensor &x) { return x.defined() ? x.const_data_ptr() : nullptr; }
void *place(const at::Tensor &x) { return x.defined() ? x.mutable_data_ptr() : nullptr; }
unsigned blocks(int64_t work) { return static_cast<unsigned>((work + threads - 1) / threads); }

} // namespace

bool has_fused_layers(const at::Tensor &x) {
    return x.is_cuda() && x.scalar_type() == at::kBFloat16 && !c10::GradMode::is_enabled() && !is_unfused;
}

Unfused::Unfused(bool on) : before(is_unfused) { is_unfused = before || on; }
Unfused::~Unfused() { is_unfused = before; }

bool has_residual_norm(const at::Tensor &x, const Norm &norm) {
    return has_fused_layers(x) && takes_rows(x) && takes_norm(norm, x.size(-1));
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
    const char *name = each == 1 ? "residual_norm_1" : each == 2 ? "residual_norm_2" : "residual_norm_4";
    const int64_t block = ((pieces + each - 1) / each + 31) / 32 * 32;
    kernel(x, name).launch(x.device(), static_cast<unsigned>(count), 1, 1, static_cast<unsigned>(block), 0, arguments);
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
    const char *names[] = {"gated_silu", "gated_gelu", "gated_gelu_tanh"};
    kernel(gate_up, names[static_cast<int>(gate)]).launch(gate_up.device(), blocks(total), 1, 1, threads, 0, arguments);
    return out;
}

bool has_rotary_store(const at::Tensor &heads, int64_t head, int64_t rotated, const at::Tensor &key_pool,
                      const at::Tensor &value_pool) {
    auto is_pool = [&](const at::Tensor &pool) {
        return !pool.defined() || (pool.is_cuda() && pool.scalar_type() == key_pool.scalar_type() &&
                                   (pool.scalar_type() == at::kBFloat16 || pool.scalar_type() == at::kFloat8_e4m3fn) &&
                                   pool.dim() == 3 && pool.size(2) == head && pool.is_contiguous() && is_aligned(pool));
    };
    return has_fused_layers(heads) && heads.dim() == 2 && heads.is_contiguous() && is_aligned(heads) && head % 16 == 0 &&
           head <= 512 && rotated % 16 == 0 && rotated <= head && key_pool.defined() == value_pool.defined() &&
           is_pool(key_pool) && is_pool(value_pool);
}

void rotary_store_(const at::Tensor &heads, int64_t head, const RotaryStore &terms) {
    const int64_t rotated = terms.cos.defined() ? 2 * terms.cos.size(1) : 0, rows = heads.size(0);
    TORCH_CHECK(has_rotary_store(heads, head, rotated, terms.key_pool, terms.value_pool), "rotary store: heads of ", head,
                " in ", heads.sizes(), " ", heads.scalar_type(), " on ", heads.device(), ", ", rotated,
                " dimensions of them rotated, are not what the kernel takes");
    TORCH_CHECK(heads.size(1) == (terms.query_heads + 2 * terms.kv_heads) * head, "rotary store: ", terms.query_heads,
                " query heads and twice ", terms.kv_heads, " of size ", head, " do not fit rows of ", heads.size(1));
    auto is_angle = [&](const at::Tensor &x) {
        return x.dim() == 2 && x.size(0) == rows && 2 * x.size(1) == rotated && x.is_contiguous() &&
               x.scalar_type() == at::kFloat && x.device() == heads.device() && is_aligned(x);
    };
    TORCH_CHECK(rotated == 0 || (is_angle(terms.cos) && is_angle(terms.sin)), "rotary store: cos ", terms.cos.sizes(),
                " and sin must be contiguous float32 [", rows, ", R/2] on the heads' device");
    const auto &q_norm = terms.query_norm, &k_norm = terms.key_norm;
    TORCH_CHECK(q_norm.weight.defined() == k_norm.weight.defined() && takes_norm(q_norm, head) && takes_norm(k_norm, head) &&
                    flags(q_norm) == flags(k_norm) && q_norm.eps == k_norm.eps,
                "rotary store: the norms of queries and keys must be of one kind, with weights [", head, "]");
    const bool stores = terms.key_pool.defined();
    TORCH_CHECK(!stores || (terms.key_pool.size(1) == terms.kv_heads && terms.value_pool.size(1) == terms.kv_heads &&
                            terms.slots.defined() && terms.slots.scalar_type() == at::kInt && terms.slots.dim() == 1 &&
                            terms.slots.size(0) == rows && terms.slots.is_contiguous() &&
                            terms.slots.device() == heads.device()),
                "rotary store: pools ", terms.key_pool.sizes(), " must hold ", terms.kv_heads,
                " heads, and slots be int32 [", rows, "]");
    if (!stores && rotated == 0 && !q_norm.weight.defined()) return;
    int lane_bits = 0;
    while ((16 << lane_bits) < head) ++lane_bits;
    const int64_t worked = terms.query_heads + (stores ? 2 : 1) * terms.kv_heads, lanes = (rows * worked) << lane_bits;
    TORCH_CHECK(lanes < (int64_t(1) << 31), "rotary store: ", rows, " rows are too many for one call");
    if (lanes == 0) return;
    void *heads_at = heads.mutable_data_ptr(), *key_at = place(terms.key_pool), *value_at = place(terms.value_pool);
    const void *cos_at = address(terms.cos), *sin_at = address(terms.sin), *q_weight = address(q_norm.weight),
               *k_weight = address(k_norm.weight), *slots_at = stores ? address(terms.slots) : nullptr;
    int count = static_cast<int>(rows), query_heads = static_cast<int>(terms.query_heads),
        kv_heads = static_cast<int>(terms.kv_heads), size = static_cast<int>(head), turned = static_cast<int>(rotated),
        touched = static_cast<int>(worked), own_flags = flags(q_norm),
        is_float8 = stores && terms.key_pool.scalar_type() == at::kFloat8_e4m3fn;
    float eps = static_cast<float>(q_norm.eps);
    void *arguments[] = {&heads_at, &count,  &query_heads, &kv_heads, &size, &turned,    &lane_bits, &touched, &cos_at,
                         &sin_at,   &q_weight, &k_weight,  &eps,      &own_flags, &key_at, &value_at, &slots_at,
                         &is_float8};
    kernel(heads, "rotary_store").launch(heads.device(), blocks(lanes), 1, 1, threads, 0, arguments);
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
    kernel(positions, "rotary_angles").launch(positions.device(), blocks(total), 1, 1, threads, 0, arguments);
    return {cos, sin};
}

void compile_layers(const std::string &architecture) {
    compile_cuda("layers.cu", layers_text, sizeof layers_text, {}, architecture);
}

} // namespace ct
