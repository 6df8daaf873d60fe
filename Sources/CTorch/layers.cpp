// What stands between a layer's matrix products, with gradients: our kernels on CUDA (fused.cpp) and on the CPU, elsewhere
// compositions of libtorch's. Each keeps its inputs at most, and what it makes of them cheaply is made again when backward wants it.
#include "fused.hpp"
#include "graph.hpp"

using namespace ct;
using torch::autograd::variable_list;

namespace {

// ---- RMSNorm and the residual stream

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

// The gradients of x and, float32, of the weight.
NormGradients rms_backward(const at::Tensor &x, const at::Tensor &weight, double eps, const at::Tensor &d_normed) {
    at::Tensor inverse;
    rms_forward(x, weight, eps, &inverse);
    const int64_t n = x.size(-1), count = x.numel() / n;
    const auto flat = x.reshape({count, n}), dy = d_normed.reshape({count, n});
    auto dx = at::empty({count, n}, x.options());
    // One partial sum a chunk, added in chunk order: the same bits whichever thread finishes first.
    const int64_t chunks = std::min<int64_t>(count, at::get_num_threads()), size = (count + chunks - 1) / std::max<int64_t>(1, chunks);
    auto partial = at::zeros({chunks, n}, x.options().dtype(at::kFloat));
    float *partial_data = partial.mutable_data_ptr<float>();
    ct::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
        for (int64_t c = first; c < last; ++c)
            kernels().rms_norm_backward(rows(flat), rows(weight), data<float>(inverse), rows(dy), rows(dx), partial_data + c * n, n,
                                        c * size, std::min(count, (c + 1) * size));
    });
    return {dx.view(x.sizes()), partial.sum(0)};
}

// The weight that x is multiplied with: one that is stored less one in float32.
at::Tensor whole_weight(const Norm &norm) { return norm.unit_offset ? norm.weight.to(at::kFloat) + 1 : norm.weight; }

void check_norm(const at::Tensor &x, const Norm &norm) {
    TORCH_CHECK(norm.weight.dim() == 1 && norm.weight.size(0) == x.size(-1), "RMSNorm: weight ", norm.weight.sizes(),
                " does not fit x ", x.sizes());
}

// Whether kernels of ours norm rows like x.
bool has_kernel(const at::Tensor &x, const Norm &norm) {
    if (!norm.weight.defined()) return on_cpu(x) ? is_fused_type(x) : has_residual_norm(x, norm);
    if (!on_cpu(x)) return has_residual_norm(x, norm);
    return is_fused_type(x) && (norm.unit_offset || norm.weight.scalar_type() == x.scalar_type() ||
                                norm.weight.scalar_type() == at::kFloat);
}

// norm(x) without a graph, or through libtorch's where no kernel of ours is.
at::Tensor norm_forward(const at::Tensor &x, const Norm &norm) {
    check_norm(x, norm);
    if (!on_cpu(x) && has_residual_norm(x, norm)) return residual_norm(x, {}, {}, 1, norm, false).normed;
    const auto weight = whole_weight(norm);
    const bool same = x.scalar_type() == weight.scalar_type();
    TORCH_CHECK(same || weight.scalar_type() == at::kFloat, "RMSNorm: a weight of ", weight.scalar_type(),
                " must be float32 or like x, which is ", x.scalar_type());
    if (on_cpu(x) && is_fused_type(x)) return rms_forward(x, weight, norm.eps, nullptr);
    return same ? at::rms_norm(x, weight.sizes(), weight, norm.eps)
                : at::rms_norm(x.to(at::kFloat), weight.sizes(), weight, norm.eps).to(x.scalar_type());
}

ResidualNorm compose(const at::Tensor &x, const at::Tensor &delta, const Norm &delta_norm, double multiplier, const Norm &norm) {
    ResidualNorm result{x, {}};
    if (delta.defined()) {
        auto added = delta_norm.weight.defined() ? norm_forward(delta, delta_norm) : delta;
        if (multiplier != 1) added = at::mul(added, multiplier);
        result.sum = at::add(x, added);
    }
    if (norm.weight.defined()) result.normed = norm_forward(result.sum, norm);
    return result;
}

NormGradients gradients(const at::Tensor &x, const Norm &norm, const at::Tensor &d_normed, const at::Tensor &d_sum) {
    if (!on_cpu(x)) return norm_backward(x, norm, d_normed, d_sum);
    auto result = rms_backward(x, whole_weight(norm), norm.eps, d_normed);
    if (d_sum.defined()) result.x = at::add(result.x, d_sum);
    return result;
}

// Keeps the sum, which is the residual stream itself, and what is normed before it is added.
struct ResidualNormNode : LayerNode {
    at::Tensor sum, delta;
    Norm delta_norm, norm;
    double multiplier = 1;
    bool has_delta = false;
    int sum_at = -1, normed_at = -1; // the numbers of the results

    bool makes_again(uint32_t number) const override { return static_cast<int>(number) == normed_at; }
    at::Tensor make_again(uint32_t) override {
        TORCH_CHECK(sum.defined(), "backward goes through a norm a second time; its input is gone");
        at::NoGradGuard no_grad;
        return norm_forward(sum, norm);
    }

    // Inputs: x, delta, the weights of delta's norm and of the norm.
    variable_list apply(variable_list &&grads) override {
        at::NoGradGuard no_grad;
        variable_list results(4);
        const auto d_sum = sum_at >= 0 ? grads[sum_at] : at::Tensor(), d_normed = normed_at >= 0 ? grads[normed_at] : at::Tensor();
        auto d = d_sum;
        if (d_normed.defined()) {
            auto both = gradients(sum, norm, d_normed, d_sum);
            d = both.x;
            if (task_should_compute_output(3)) results[3] = both.weight.to(norm.weight.scalar_type());
        }
        if (!d.defined()) return results;
        if (task_should_compute_output(0)) results[0] = d;
        if (!has_delta || !(task_should_compute_output(1) || task_should_compute_output(2))) return results;
        auto d_delta = multiplier == 1 ? d : at::mul(d, multiplier);
        if (delta_norm.weight.defined()) {
            auto both = gradients(delta, delta_norm, d_delta, {});
            d_delta = both.x;
            if (task_should_compute_output(2)) results[2] = both.weight.to(delta_norm.weight.scalar_type());
        }
        results[1] = d_delta;
        return results;
    }
    void release_variables() override {
        sum.reset();
        delta.reset();
    }
};

// sum = x + multiplier * delta_norm(delta), normed = norm(sum); without delta the sum is x.
ResidualNorm add_and_norm(const at::Tensor &x, const at::Tensor &delta, const Norm &delta_norm, double multiplier, const Norm &norm,
                          bool want_sum, bool is_read) {
    if (norm.weight.defined()) check_norm(x, norm);
    const bool fits = has_kernel(x, norm) && (!delta.defined() || has_kernel(delta, delta_norm));
    auto compute = [&](bool keeps_sum) {
        if (on_cpu(x) || !fits) return compose(x, delta, delta_norm, multiplier, norm);
        auto result = residual_norm(x, delta, delta_norm, multiplier, norm, keeps_sum);
        if (!delta.defined()) result.sum = x;
        return result;
    };
    if (!fits || !needs_graph({x, delta, delta_norm.weight, norm.weight})) return compute(want_sum);
    auto node = make_node<ResidualNormNode>({x, delta, delta_norm.weight, norm.weight});
    ResidualNorm result;
    {
        at::NoGradGuard no_grad;
        // A bare sum that nobody reads is not added up.
        if (!is_read && !norm.weight.defined()) result.sum = unread(x.sizes(), x.options());
        else result = compute(true);
    }
    node->sum = norm.weight.defined() ? result.sum.detach() : at::Tensor();
    node->delta = delta_norm.weight.defined() ? delta.detach() : at::Tensor();
    node->delta_norm = delta_norm;
    node->norm = norm;
    node->multiplier = multiplier;
    node->has_delta = delta.defined();
    int count = 0;
    if (want_sum) {
        result.sum = result_of(node, result.sum);
        node->sum_at = count++;
    }
    if (norm.weight.defined()) {
        result.normed = result_of(node, result.normed);
        node->normed_at = count;
    }
    return result;
}

Norm read_norm(ct_norm norm) { return {norm.weight ? T(norm.weight) : at::Tensor(), norm.eps, norm.unit_offset}; }

// ---- rotary position embedding

HeadStrides strides(const at::Tensor &x) { return {x.stride(0), x.stride(1)}; }

// Turns the first dimensions of each head of x [T, H, D] into y, which may be x; the others are left alone. CPU.
void rotate_into(const at::Tensor &x, const at::Tensor &y, const at::Tensor &cos, const at::Tensor &sin, float sign) {
    const int64_t heads = x.size(1), rotated = 2 * cos.numel() / std::max<int64_t>(1, x.size(0));
    ct::parallel_for(0, x.size(0), grain(heads * rotated), [&](int64_t begin, int64_t end) {
        kernels().rotary(x.const_data_ptr(), strides(x), y.mutable_data_ptr(), strides(y), element(x), data<float>(cos),
                         data<float>(sin), heads, rotated, sign, begin, end);
    });
}

at::Tensor rotate(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, float sign) {
    const int64_t heads = x.size(-2), dim = x.size(-1), tokens = x.numel() / (heads * dim);
    if (!on_cpu(x)) {
        const auto by_row = [&](const at::Tensor &angles) { return angles.view({tokens, dim / 2}); };
        const bool is_row = x.dim() == 3 && x.stride(2) == 1 && x.stride(1) == dim;
        const auto flat = is_row ? x.as_strided({tokens, heads * dim}, {x.stride(0), 1}) : x.reshape({tokens, heads * dim});
        const HeadTerms terms{heads, 0, by_row(cos), by_row(sign > 0 ? sin : sin.neg()), {}, {}, {}, {}, {}};
        if (has_head_kernel(flat, dim, terms)) {
            auto y = at::empty(x.sizes(), x.options());
            prepare_heads(flat, y.view({tokens, heads * dim}), dim, terms);
            return y;
        }
        const auto c = cos.unsqueeze(-2), s = sin.unsqueeze(-2) * sign;
        const auto wide = x.to(at::kFloat);
        const auto first = wide.narrow(-1, 0, dim / 2), second = wide.narrow(-1, dim / 2, dim / 2);
        return at::cat({first * c - second * s, second * c + first * s}, -1).to(x.scalar_type());
    }
    const auto input = x.dim() == 3 && x.stride(-1) == 1 ? x : x.reshape({tokens, heads, dim}).contiguous();
    auto y = at::empty(x.sizes(), x.options());
    rotate_into(input, y.view({tokens, heads, dim}), cos, sin, sign);
    return y;
}

struct RotaryNode : LayerNode {
    at::Tensor cos, sin;
    variable_list apply(variable_list &&grads) override {
        at::NoGradGuard no_grad;
        return {grads[0].defined() ? rotate(grads[0], cos, sin, -1) : at::Tensor()};
    }
};

// ---- queries, keys and values of one projection

// One of queries, keys: [T, H, D], normed by head and turned, into `target` of the same shape, which may be x. CPU.
void prepare_part(const at::Tensor &x, const at::Tensor &target, const HeadTerms &terms, const Norm &norm) {
    const auto normed = norm.weight.defined() ? norm_forward(x.contiguous(), norm) : x;
    if (!normed.is_same(target) && (!terms.cos.defined() || terms.rotated() < x.size(2))) target.copy_(normed);
    if (terms.cos.defined()) rotate_into(normed, target, terms.cos, terms.sin, 1);
}

// The way back, into `target`; gives the gradient of the norm's weight. x is looked at only where there is a norm.
at::Tensor return_part(const at::Tensor &x, const at::Tensor &d, const at::Tensor &target, const HeadTerms &terms, const Norm &norm) {
    if (!d.defined()) {
        target.zero_();
        return {};
    }
    const auto even = d.stride(2) == 1 ? d : d.contiguous();
    if (!norm.weight.defined()) {
        if (!terms.cos.defined() || terms.rotated() < target.size(2)) target.copy_(even);
        if (terms.cos.defined()) rotate_into(even, target, terms.cos, terms.sin, -1);
        return {};
    }
    auto turned = even;
    if (terms.cos.defined()) {
        turned = even.clone(at::MemoryFormat::Contiguous);
        rotate_into(even, turned, terms.cos, terms.sin, -1);
    }
    auto both = rms_backward(x.contiguous(), whole_weight(norm), norm.eps, turned);
    target.copy_(both.x);
    return both.weight.to(norm.weight.scalar_type());
}

struct Parts {
    at::Tensor query, key, value;
};
Parts parts_of(const at::Tensor &heads, const HeadTerms &terms, int64_t head) {
    const auto all = heads.as_strided({heads.size(0), terms.query_heads + 2 * terms.kv_heads, head}, {heads.stride(0), head, 1});
    return {all.narrow(1, 0, terms.query_heads), all.narrow(1, terms.query_heads, terms.kv_heads),
            all.narrow(1, terms.query_heads + terms.kv_heads, terms.kv_heads)};
}

// Keeps the projection's rows where there are norms, else nothing.
struct HeadsNode : LayerNode {
    KeptInput heads;
    int64_t rows = 0;
    at::TensorOptions options;
    HeadTerms terms;
    int64_t head = 0;

    // Inputs: heads, the weights of the norms.
    variable_list apply(variable_list &&grads) override {
        at::NoGradGuard no_grad;
        const bool has_norms = terms.query_norm.weight.defined();
        const auto kept = has_norms ? heads.get() : at::Tensor();
        if (!options.device().is_cpu()) {
            auto all = prepare_heads_backward(kept, rows, options, head, terms, grads[0], grads[1], grads[2]);
            if (!has_norms) return {all.heads, at::Tensor(), at::Tensor()};
            return {all.heads, all.query_weight.to(terms.query_norm.weight.scalar_type()),
                    all.key_weight.to(terms.key_norm.weight.scalar_type())};
        }
        auto d = at::empty({rows, (terms.query_heads + 2 * terms.kv_heads) * head}, options);
        const auto to = parts_of(d, terms, head), from = has_norms ? parts_of(kept, terms, head) : Parts();
        const auto query_weight = return_part(from.query, grads[0], to.query, terms, terms.query_norm);
        const auto key_weight = return_part(from.key, grads[1], to.key, terms, terms.key_norm);
        if (grads[2].defined()) to.value.copy_(grads[2]);
        else to.value.zero_();
        return {d, query_weight, key_weight};
    }
    void release_variables() override { heads.release(); }
};

// Undefined where no kernel of ours takes the rows.
Parts prepare(const at::Tensor &heads, int64_t head, const HeadTerms &terms) {
    const bool has_norms = terms.query_norm.weight.defined();
    const bool fits = on_cpu(heads) ? heads.dim() == 2 && heads.stride(1) == 1 && is_fused_type(heads) &&
                                          (!has_norms || (has_kernel(heads, {terms.query_norm.weight}) && has_kernel(heads, {terms.key_norm.weight})))
                                    : has_head_kernel(heads, head, terms);
    if (!fits) return {};
    const bool has_graph = needs_graph({heads, terms.query_norm.weight, terms.key_norm.weight});
    // In a layer of its own a projection's rows are nobody else's.
    const bool overwrites = !Memo::keeps(ct_kept_query_key_value) && (has_graph ? !has_norms && !heads.is_leaf() : Memo::current() != nullptr);
    auto node = has_graph ? make_node<HeadsNode>({heads, terms.query_norm.weight, terms.key_norm.weight}) : nullptr;
    at::NoGradGuard no_grad;
    const auto source = heads.detach();
    auto result = parts_of(source, terms, head);
    const auto own = overwrites ? source : at::empty({heads.size(0), (terms.query_heads + terms.kv_heads) * head}, heads.options());
    if (!overwrites) {
        const auto all = own.view({heads.size(0), terms.query_heads + terms.kv_heads, head});
        result.query = all.narrow(1, 0, terms.query_heads);
        result.key = all.narrow(1, terms.query_heads, terms.kv_heads);
    }
    if (on_cpu(heads)) {
        const auto from = parts_of(source, terms, head);
        prepare_part(from.query, overwrites ? from.query : result.query, terms, terms.query_norm);
        prepare_part(from.key, overwrites ? from.key : result.key, terms, terms.key_norm);
    } else {
        prepare_heads(source, own, head, terms);
    }
    if (overwrites) heads.unsafeGetTensorImpl()->bump_version();
    if (!node) return result;
    if (has_norms) node->heads = KeptInput(heads);
    node->rows = heads.size(0);
    node->options = heads.options();
    node->terms = terms;
    node->head = head;
    return {result_of(node, result.query), result_of(node, result.key), result_of(node, result.value)};
}

// ---- activation(gate) * up

at::Tensor activated(const at::Tensor &gate, ct_gate kind) {
    if (kind == ct_gate_silu) return at::silu(gate);
    return at::gelu(gate, kind == ct_gate_gelu_tanh ? "tanh" : "none");
}

at::Tensor gated_forward(const at::Tensor &gate_up, ct_gate kind) {
    if (has_gated_activation(gate_up)) return gated_activation(gate_up, static_cast<Gate>(kind));
    if (kind != ct_gate_silu || !on_cpu(gate_up) || !is_fused_type(gate_up)) {
        const auto halves = gate_up.chunk(2, -1);
        return at::mul(activated(halves[0], kind), halves[1]);
    }
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

at::Tensor gated_backward(const at::Tensor &gate_up, const at::Tensor &d_out, ct_gate kind) {
    if (has_gated_activation(gate_up)) return gated_activation_backward(gate_up, d_out, static_cast<Gate>(kind));
    const int64_t n = gate_up.size(-1) / 2, count = gate_up.numel() / (2 * n);
    auto d = at::empty(gate_up.sizes(), gate_up.options());
    if (kind == ct_gate_silu && on_cpu(gate_up) && is_fused_type(gate_up)) {
        const auto flat = gate_up.reshape({count, 2 * n}), dy = d_out.reshape({count, n}), to = d.view({count, 2 * n});
        ct::parallel_for(0, count, grain(4 * n), [&](int64_t begin, int64_t end) {
            kernels().silu_mul_backward(rows(flat), rows(dy), rows(to), n, begin, end);
        });
        return d;
    }
    const auto halves = gate_up.chunk(2, -1), to = d.chunk(2, -1);
    to[1].copy_(at::mul(d_out, activated(halves[0], kind)));
    const auto d_gate = at::mul(d_out, halves[1]);
    to[0].copy_(kind == ct_gate_silu ? at::silu_backward(d_gate, halves[0])
                                     : at::gelu_backward(d_gate, halves[0], kind == ct_gate_gelu_tanh ? "tanh" : "none"));
    return d;
}

struct GatedNode : LayerNode {
    KeptInput gate_up;
    ct_gate kind = ct_gate_silu;

    bool makes_again(uint32_t) const override { return true; }
    at::Tensor make_again(uint32_t) override {
        at::NoGradGuard no_grad;
        return gated_forward(gate_up.get(), kind);
    }
    variable_list apply(variable_list &&grads) override {
        at::NoGradGuard no_grad;
        if (!grads[0].defined()) return {at::Tensor()};
        return {gated_backward(gate_up.get(), grads[0], kind)};
    }
    void release_variables() override { gate_up.release(); }
};

at::Tensor gated(const at::Tensor &gate_up, ct_gate kind, bool is_read) {
    if (!needs_graph({gate_up})) return gated_forward(gate_up, kind);
    auto node = make_node<GatedNode>({gate_up});
    at::NoGradGuard no_grad;
    node->gate_up = KeptInput(gate_up);
    node->kind = kind;
    if (is_read) return result_of(node, gated_forward(gate_up, kind));
    auto sizes = gate_up.sizes().vec();
    sizes.back() /= 2;
    return result_of(node, unread(sizes, gate_up.options()));
}

at::Tensor given(ct_tensor x) { return x ? T(x) : at::Tensor(); }

} // namespace

extern "C" {

int ct_rms_norm(ct_tensor x, ct_norm norm, CT_RESULT) {
    return guarded(error, [&] { *out = wrap(add_and_norm(T(x), {}, {}, 1, read_norm(norm), false, true).normed); });
}

int ct_residual_norm(ct_tensor x, ct_tensor delta, ct_norm delta_norm, double multiplier, ct_norm norm, bool want_sum, bool is_read,
                     ct_tensor *sum, ct_tensor *normed, ct_message *error) {
    return guarded(error, [&] {
        TORCH_CHECK(!delta || T(delta).sizes() == T(x).sizes(), "residual norm: ", delta ? T(delta).sizes() : at::IntArrayRef(),
                    " cannot be added to ", T(x).sizes());
        const auto result =
            add_and_norm(T(x), given(delta), read_norm(delta_norm), multiplier, read_norm(norm), want_sum, is_read);
        if (want_sum) *sum = wrap(result.sum);
        if (norm.weight) *normed = wrap(result.normed);
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
        const bool has_graph = needs_graph({T(x)});
        auto node = has_graph ? make_node<RotaryNode>({T(x)}) : nullptr;
        at::NoGradGuard no_grad;
        auto y = rotate(T(x), T(cos), T(sin), 1);
        if (node) {
            node->cos = T(cos);
            node->sin = T(sin);
            y = result_of(node, y);
        }
        *out = wrap(y);
    });
}

int ct_prepare_heads(ct_tensor heads, int query_heads, int kv_heads, int head, ct_tensor cos, ct_tensor sin, ct_norm query_norm,
                     ct_norm key_norm, ct_tensor *query, ct_tensor *key, ct_tensor *value, ct_message *error) {
    return guarded(error, [&] {
        const HeadTerms terms{query_heads, kv_heads, given(cos), given(sin), read_norm(query_norm), read_norm(key_norm), {}, {}, {}};
        TORCH_CHECK(T(heads).dim() == 2 && T(heads).size(1) == int64_t(query_heads + 2 * kv_heads) * head &&
                        terms.rotated() <= head && (!cos || (T(cos).dim() == 2 && T(cos).size(0) == T(heads).size(0))),
                    "heads: ", query_heads, " query heads and twice ", kv_heads, " of size ", head, ", ", terms.rotated(),
                    " dimensions rotated, do not fit rows ", T(heads).sizes());
        const auto parts = prepare(T(heads), head, terms);
        *query = *key = *value = nullptr;
        if (!parts.query.defined()) return;
        *query = wrap(parts.query);
        *key = wrap(parts.key);
        *value = wrap(parts.value);
    });
}

int ct_gated_activation(ct_tensor gate_up, enum ct_gate gate, bool is_read, CT_RESULT) {
    return guarded(error, [&] {
        const auto &x = T(gate_up);
        TORCH_CHECK(x.dim() > 0 && x.size(-1) % 2 == 0, "gated activation: the last dimension of ", x.sizes(), " must be even");
        *out = wrap(gated(x, gate, is_read));
    });
}

bool ct_has_rotary_store(ct_tensor heads, int head, int rotated, ct_tensor key_pool, ct_tensor value_pool) {
    return has_rotary_store(T(heads), head, rotated, given(key_pool), given(value_pool));
}

int ct_rotary_store_(ct_tensor heads, int query_heads, int kv_heads, int head, ct_tensor cos, ct_tensor sin, ct_norm query_norm,
                     ct_norm key_norm, ct_tensor key_pool, ct_tensor value_pool, ct_tensor slots, ct_message *error) {
    return guarded(error, [&] {
        prepare_heads(T(heads), T(heads), head,
                      {query_heads, kv_heads, given(cos), given(sin), read_norm(query_norm), read_norm(key_norm), given(key_pool),
                       given(value_pool), given(slots)});
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
