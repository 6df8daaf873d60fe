// Fused layers with gradients: our kernels on the CPU; on CUDA our kernels where no gradients are recorded (fused.cpp), else
// compositions of libtorch's.
#include "fused.hpp"
#include "rows.hpp"

#include <torch/csrc/autograd/custom_function.h>

using namespace ct;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

// ---- RMSNorm

at::Tensor rms_forward(const at::Tensor &x, const at::Tensor &weight, double eps, at::Tensor *inverse) {
    auto y = at::empty_like(x, at::MemoryFormat::Contiguous);
    const int64_t n = x.size(-1), count = x.numel() / n;
    const auto flat = x.reshape({count, n});
    if (inverse) *inverse = at::empty({count}, x.options().dtype(at::kFloat));
    float *inverse_data = inverse ? inverse->mutable_data_ptr<float>() : nullptr;
    ct::parallel_for(0, count, grain(n), [&](int64_t begin, int64_t end) {
        kernels().rms_norm(rows(flat), rows(weight), rows(y, n), inverse_data, n, static_cast<float>(eps), begin, end);
    });
    return y;
}

struct RMSNorm : Function<RMSNorm> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &weight, double eps) {
        at::Tensor inverse;
        auto y = rms_forward(x, weight, eps, &inverse);
        context->save_for_backward({x, weight, inverse});
        return y;
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const auto &x = saved[0], &weight = saved[1], &inverse = saved[2];
        const int64_t n = x.size(-1), count = x.numel() / n;
        const auto flat = x.reshape({count, n}), dy = grads[0].contiguous().reshape({count, n});
        auto dx = at::empty({count, n}, x.options());
        // One partial sum a chunk, added in chunk order: the same bits whichever thread finishes first.
        const int64_t chunks = std::min<int64_t>(count, at::get_num_threads()), size = (count + chunks - 1) / chunks;
        auto partial = at::zeros({chunks, n}, x.options().dtype(at::kFloat));
        float *partial_data = partial.mutable_data_ptr<float>();
        ct::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
            for (int64_t c = first; c < last; ++c)
                kernels().rms_norm_backward(rows(flat), rows(weight), data<float>(inverse), rows(dy), rows(dx),
                                            partial_data + c * n, n, c * size, std::min(count, (c + 1) * size));
        });
        return {dx.view(x.sizes()), partial.sum(0).to(weight.scalar_type()), at::Tensor()};
    }
};

at::Tensor rms_norm(const at::Tensor &x, const Norm &norm) {
    TORCH_CHECK(norm.weight.dim() == 1 && norm.weight.size(0) == x.size(-1), "RMSNorm: weight ", norm.weight.sizes(),
                " does not fit x ", x.sizes());
    if (has_residual_norm(x, norm)) return residual_norm(x, {}, {}, 1, norm, false).normed;
    // A weight that is stored less one is multiplied with in float32.
    const auto weight = norm.unit_offset ? norm.weight.to(at::kFloat) + 1 : norm.weight;
    const bool same = x.scalar_type() == weight.scalar_type();
    TORCH_CHECK(same || weight.scalar_type() == at::kFloat, "RMSNorm: a weight of ", weight.scalar_type(),
                " must be float32 or like x, which is ", x.scalar_type());
    if (!on_cpu(x) || !is_fused_type(x))
        return same ? at::rms_norm(x, weight.sizes(), weight, norm.eps)
                    : at::rms_norm(x.to(at::kFloat), weight.sizes(), weight, norm.eps).to(x.scalar_type());
    return needs_graph({x, weight}) ? RMSNorm::apply(x, weight, norm.eps) : rms_forward(x, weight, norm.eps, nullptr);
}

Norm read_norm(ct_norm norm) { return {norm.weight ? T(norm.weight) : at::Tensor(), norm.eps, norm.unit_offset}; }

// ---- rotary position embedding

at::Tensor rotate(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, float sign) {
    const int64_t heads = x.size(-2), dim = x.size(-1), tokens = x.numel() / (heads * dim);
    if (!on_cpu(x)) {
        if (sign > 0 && has_fused_layers(x) && dim % 16 == 0 && dim <= 512) {
            auto y = x.clone(at::MemoryFormat::Contiguous);
            const auto by_row = [&](const at::Tensor &angles) { return angles.view({tokens, dim / 2}); };
            rotary_store_(y.view({tokens, heads * dim}), dim, {heads, 0, by_row(cos), by_row(sin), {}, {}, {}, {}, {}});
            return y;
        }
        const auto c = cos.unsqueeze(-2), s = sin.unsqueeze(-2) * sign;
        const auto wide = x.to(at::kFloat);
        const auto first = wide.narrow(-1, 0, dim / 2), second = wide.narrow(-1, dim / 2, dim / 2);
        return at::cat({first * c - second * s, second * c + first * s}, -1).to(x.scalar_type());
    }
    const auto input = x.dim() == 3 && x.stride(-1) == 1 ? x : x.reshape({tokens, heads, dim}).contiguous();
    auto y = at::empty(x.sizes(), x.options());
    ct::parallel_for(0, tokens, grain(heads * dim), [&](int64_t begin, int64_t end) {
        kernels().rotary(input.const_data_ptr(), input.stride(0), input.stride(1), y.mutable_data_ptr(), element(x),
                         data<float>(cos), data<float>(sin), heads, dim, sign, begin, end);
    });
    return y;
}

struct Rotary : Function<Rotary> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin) {
        context->save_for_backward({cos, sin});
        return rotate(x, cos, sin, 1);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        return {rotate(grads[0], saved[0], saved[1], -1), at::Tensor(), at::Tensor()};
    }
};

// ---- SiLU(gate) * up

at::Tensor silu_mul_forward(const at::Tensor &gate_up) {
    const int64_t n = gate_up.size(-1) / 2, count = gate_up.numel() / (2 * n);
    const auto flat = gate_up.reshape({count, 2 * n});
    auto sizes = gate_up.sizes().vec();
    sizes.back() = n;
    auto y = at::empty(sizes, gate_up.options());
    ct::parallel_for(0, count, grain(4 * n), [&](int64_t begin, int64_t end) {
        kernels().silu_mul(rows(flat), rows(y, n), n, begin, end);
    });
    return y;
}

struct SiluMul : Function<SiluMul> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &gate_up) {
        context->save_for_backward({gate_up});
        return silu_mul_forward(gate_up);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto gate_up = context->get_saved_variables()[0];
        const int64_t n = gate_up.size(-1) / 2, count = gate_up.numel() / (2 * n);
        const auto flat = gate_up.reshape({count, 2 * n}), dy = grads[0].contiguous().reshape({count, n});
        auto d = at::empty({count, 2 * n}, gate_up.options());
        ct::parallel_for(0, count, grain(4 * n), [&](int64_t begin, int64_t end) {
            kernels().silu_mul_backward(rows(flat), rows(dy), rows(d), n, begin, end);
        });
        return {d.view(gate_up.sizes())};
    }
};

} // namespace

extern "C" {

CT_OP(ct_rms_norm, (ct_tensor x, ct_norm norm, CT_RESULT), rms_norm(T(x), read_norm(norm)))

int ct_residual_norm(ct_tensor x, ct_tensor delta, ct_norm raw_delta_norm, double multiplier, ct_norm raw_norm, bool want_sum,
                     ct_tensor *sum, ct_tensor *normed, ct_message *error) {
    return guarded(error, [&] {
        const auto norm = read_norm(raw_norm), delta_norm = read_norm(raw_delta_norm);
        TORCH_CHECK(T(delta).sizes() == T(x).sizes(), "residual norm: ", T(delta).sizes(), " cannot be added to ", T(x).sizes());
        ResidualNorm result;
        if (has_residual_norm(T(x), norm) && has_residual_norm(T(delta), delta_norm)) {
            result = residual_norm(T(x), T(delta), delta_norm, multiplier, norm, want_sum);
        } else {
            auto added = delta_norm.weight.defined() ? rms_norm(T(delta), delta_norm) : T(delta);
            if (multiplier != 1) added = at::mul(added, multiplier);
            result.sum = at::add(T(x), added);
            if (norm.weight.defined()) result.normed = rms_norm(result.sum, norm);
        }
        if (want_sum) *sum = wrap(result.sum);
        if (norm.weight.defined()) *normed = wrap(result.normed);
    });
}

int ct_rotary(ct_tensor x, ct_tensor cos, ct_tensor sin, CT_RESULT) {
    return guarded(error, [&] {
        const int64_t tokens = T(x).numel() / (T(x).size(-1) * T(x).size(-2));
        TORCH_CHECK(T(cos).numel() == tokens * T(x).size(-1) / 2 && T(cos).sizes() == T(sin).sizes() && T(cos).is_contiguous() &&
                        T(sin).is_contiguous() && T(cos).scalar_type() == at::kFloat,
                    "rotary: cos ", T(cos).sizes(), " and sin ", T(sin).sizes(), " must be contiguous float32 [tokens, D/2] for x ",
                    T(x).sizes());
        TORCH_CHECK(!on_cpu(T(x)) || is_fused_type(T(x)), "rotary: x must be float32 or bfloat16, not ", T(x).scalar_type());
        *out = wrap(needs_graph({T(x)}) ? Rotary::apply(T(x), T(cos), T(sin)) : rotate(T(x), T(cos), T(sin), 1));
    });
}

int ct_gated_activation(ct_tensor gate_up, enum ct_gate gate, CT_RESULT) {
    return guarded(error, [&] {
        const auto &x = T(gate_up);
        TORCH_CHECK(x.dim() > 0 && x.size(-1) % 2 == 0, "gated activation: the last dimension of ", x.sizes(), " must be even");
        if (has_gated_activation(x)) {
            *out = wrap(gated_activation(x, static_cast<Gate>(gate)));
        } else if (gate == ct_gate_silu && on_cpu(x) && is_fused_type(x)) {
            *out = wrap(needs_graph({x}) ? SiluMul::apply(x) : silu_mul_forward(x));
        } else {
            const auto halves = x.chunk(2, -1);
            *out = wrap((gate == ct_gate_silu ? at::silu(halves[0])
                                              : at::gelu(halves[0], gate == ct_gate_gelu_tanh ? "tanh" : "none")) *
                        halves[1]);
        }
    });
}

bool ct_has_rotary_store(ct_tensor heads, int head, int rotated, ct_tensor key_pool, ct_tensor value_pool) {
    return has_rotary_store(T(heads), head, rotated, key_pool ? T(key_pool) : at::Tensor(),
                            value_pool ? T(value_pool) : at::Tensor());
}

int ct_rotary_store_(ct_tensor heads, int query_heads, int kv_heads, int head, ct_tensor cos, ct_tensor sin, ct_norm query_norm,
                     ct_norm key_norm, ct_tensor key_pool, ct_tensor value_pool, ct_tensor slots, ct_message *error) {
    return guarded(error, [&] {
        auto given = [](ct_tensor x) { return x ? T(x) : at::Tensor(); };
        rotary_store_(T(heads), head,
                      {query_heads, kv_heads, given(cos), given(sin), read_norm(query_norm), read_norm(key_norm),
                       given(key_pool), given(value_pool), given(slots)});
    });
}

int ct_rotary_angles(ct_tensor positions, ct_tensor frequencies, double factor, ct_tensor *cos, ct_tensor *sin,
                     ct_message *error) {
    return guarded(error, [&] {
        std::pair<at::Tensor, at::Tensor> both;
        if (has_rotary_angles(T(positions), T(frequencies))) {
            both = rotary_angles(T(positions), T(frequencies), factor);
        } else {
            const auto angles = at::mul(T(positions).to(at::kFloat).unsqueeze(1), T(frequencies));
            both = {at::cos(angles), at::sin(angles)};
            if (factor != 1) both = {at::mul(both.first, factor), at::mul(both.second, factor)};
        }
        *cos = wrap(both.first);
        *sin = wrap(both.second);
    });
}

} // extern "C"
