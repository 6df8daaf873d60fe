// Attention: dense (libtorch's), over packed segments that share ancestors, and of new tokens over a cache.
#include "attention_cuda.hpp"
#include "cuda_kernels.hpp"
#include "graph.hpp"

#include <algorithm>
#include <cmath>
#include <torch/csrc/autograd/custom_function.h>

using namespace ct;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

using Segments = std::vector<PackedSegment>;
using Plan = c10::intrusive_ptr<AttentionPlan>;

AttentionTerms read_terms(const ct_attention &raw, const AttentionPlan *plan) {
    TORCH_CHECK(std::isfinite(raw.scale) && raw.window >= 0 && raw.soft_cap >= 0 && std::isfinite(raw.soft_cap),
                "attention: scale ", raw.scale, ", window ", raw.window, " and soft cap ", raw.soft_cap,
                " must be finite, the last two 0 or more");
    AttentionTerms terms{static_cast<float>(raw.scale), raw.window, static_cast<float>(raw.soft_cap)};
    // A window that no sequence outgrows is none: the faster paths take it.
    if (plan && plan->longest <= terms.window) terms.window = 0;
    return terms;
}

// ---- CPU: one head at a time in float32

at::Tensor by_head(const at::Tensor &x) { return x.to(at::kFloat).transpose(0, 1).contiguous(); } // [H, T, D]
// [H, D, T + 64]: the kernels read up to a vector's width past the last token.
at::Tensor transposed(const at::Tensor &x_HTD) {
    auto padded = at::zeros({x_HTD.size(0), x_HTD.size(2), x_HTD.size(1) + 64}, x_HTD.options());
    padded.narrow(2, 0, x_HTD.size(1)).copy_(x_HTD.transpose(1, 2));
    return padded;
}
// Rounds the head size up to the kernels' vector width; zero columns change no product.
at::Tensor widen_heads(const at::Tensor &x) {
    const int64_t pad = (16 - x.size(-1) % 16) % 16;
    return pad ? at::constant_pad_nd(x, {0, pad}) : x;
}

struct Heads {
    at::Tensor q, k, v, kt, vt;
    int64_t group;
    Heads(const at::Tensor &q_THD, const at::Tensor &k_THD, const at::Tensor &v_THD, bool with_vt)
        : q(by_head(widen_heads(q_THD))), k(by_head(widen_heads(k_THD))), v(by_head(widen_heads(v_THD))), kt(transposed(k)),
          group(q_THD.size(1) / k_THD.size(1)) {
        if (with_vt) vt = transposed(v);
    }
    HeadView view(int64_t head) const {
        const int64_t kv = head / group;
        return {data<float>(q[head]), data<float>(k[kv]),  data<float>(v[kv]),
                data<float>(kt[kv]),  vt.defined() ? data<float>(vt[kv]) : nullptr,
                kt.size(2),                      q.size(2)};
    }
};

// Out and lse as [Hq, T, D'] and [Hq, T] float32.
std::pair<at::Tensor, at::Tensor> cpu_forward(const Heads &heads, const Segments &segments, const AttentionTerms &terms) {
    auto out = at::empty_like(heads.q);
    auto lse = at::empty({heads.q.size(0), heads.q.size(1)}, heads.q.options());
    const int64_t count = segments.size(), head_count = heads.q.size(0);
    std::vector<HeadView> views;
    std::vector<float *> outs, lses;
    for (int64_t h = 0; h < head_count; ++h) {
        views.push_back(heads.view(h));
        outs.push_back(out[h].mutable_data_ptr<float>());
        lses.push_back(lse[h].mutable_data_ptr<float>());
    }
    ct::parallel_for(0, head_count * count, std::max<int64_t>(1, count / 4), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end;) {
            const int64_t h = i / count, stop = std::min(end, (h + 1) * count);
            kernels().attention(views[h], segments.data(), i - h * count, stop - h * count, terms, outs[h], lses[h]);
            i = stop;
        }
    });
    return {out, lse};
}

at::Tensor back_to_tokens(const at::Tensor &x_HTD, const at::Tensor &like) {
    return x_HTD.narrow(2, 0, like.size(2)).transpose(0, 1).to(like.scalar_type()).contiguous();
}

variable_list cpu_backward(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &out,
                           const at::Tensor &lse, const at::Tensor &dout, const Segments &segments,
                           const AttentionTerms &terms) {
    const Heads heads(q, k, v, true);
    const auto g = by_head(widen_heads(dout));
    auto dq = at::empty_like(heads.q), dk = at::zeros_like(heads.q), dv = at::zeros_like(heads.q);
    ct::parallel_for(0, heads.q.size(0), 1, [&](int64_t begin, int64_t end) {
        at::NoGradGuard no_grad;
        for (int64_t h = begin; h < end; ++h)
            kernels().attention_backward(heads.view(h), segments.data(), segments.size(), terms,
                                         data<float>(out[h]), data<float>(lse[h]),
                                         data<float>(g[h]), dq[h].mutable_data_ptr<float>(),
                                         dk[h].mutable_data_ptr<float>(), dv[h].mutable_data_ptr<float>());
    });
    auto over_group = [&](const at::Tensor &x) {
        return heads.group == 1 ? x : x.view({-1, heads.group, x.size(1), x.size(2)}).sum(1);
    };
    return {back_to_tokens(dq, q), back_to_tokens(over_group(dk), k), back_to_tokens(over_group(dv), v)};
}

bool has_varlen(const at::Tensor &q, const at::Tensor &v, const AttentionTerms &terms) {
    return takes_flash(q, terms) && q.size(2) == v.size(2) && !c10::GradMode::is_enabled();
}

// One query a row over pages of the cache.
at::Tensor attend_rows(const at::Tensor &x, const at::Tensor &keys, const at::Tensor &values, const PagedRows &paged,
                       const AttentionTerms &terms) {
    const int64_t batch = x.size(0), kv_heads = keys.size(1), dim = x.size(2), value_dim = values.size(2);
    const bool is_float8 = keys.scalar_type() == at::kFloat8_e4m3fn;
    if (on_cpu(x)) {
        const auto query = x.contiguous();
        auto result = at::empty({batch, x.size(1), value_dim}, x.options());
        const CachedPages pages{data<int32_t>(paged.table), data<int32_t>(paged.starts), data<int32_t>(paged.lengths),
                                paged.page_shift};
        ct::parallel_for(0, batch * kv_heads, 1, [&](int64_t begin, int64_t end) {
            kernels().cached_attention(rows(query, x.size(1) * dim), keys.const_data_ptr(), values.const_data_ptr(),
                                       is_float8 ? Element::float8 : element(x), pages, x.size(1), kv_heads, dim, value_dim,
                                       terms, rows(result, x.size(1) * value_dim), begin, end);
        });
        return result;
    }
    if (has_paged_attention(x, keys, values)) return paged_attention(x, keys, values, paged, terms);
    // Through a dense copy of what each row sees.
    const auto position = at::arange(paged.longest, paged.lengths.options()).unsqueeze(0), length = paged.lengths.unsqueeze(1);
    const auto page = paged.starts.unsqueeze(1) + position.bitwise_right_shift(paged.page_shift);
    const auto last = paged.table.numel() - 1;
    const auto slot = paged.table.index_select(0, page.clamp_max(last).reshape({-1})).bitwise_left_shift(paged.page_shift) +
                      position.bitwise_and((1 << paged.page_shift) - 1).expand({batch, -1}).reshape({-1});
    auto seen = position < length;
    // What lies past a row's end is another's page or none: any slot will do, its score is masked.
    const auto index = at::where(seen.reshape({-1}), slot, at::zeros_like(slot));
    auto gather = [&](const at::Tensor &pool) {
        // Not every operation knows float8: its bytes do.
        const auto rows = is_float8 ? pool.view(at::kByte).index_select(0, index).view(at::kFloat8_e4m3fn).to(x.scalar_type())
                                    : pool.index_select(0, index);
        return rows.view({batch, paged.longest, kv_heads, pool.size(2)}).transpose(1, 2);
    };
    if (terms.window > 0) seen = seen.logical_and(position >= length - terms.window);
    const auto mask = seen.unsqueeze(1).unsqueeze(1);
    return (terms.soft_cap > 0 ? masked_attention(x.unsqueeze(2), gather(keys), gather(values), mask, terms)
                               : at::scaled_dot_product_attention(x.unsqueeze(2), gather(keys), gather(values), mask, 0.0, false,
                                                                  terms.scale, true))
        .squeeze(2);
}

// Outputs and log-sum-exps, as a checkpoint has kept them, or keeps them now.
Attended attend_once(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPlan &plan,
                     const AttentionTerms &terms) {
    if (auto kept = Memo::take(ct_kept_attention, 2); !kept.empty()) return {kept[0], kept[1]};
    Attended attended;
    if (on_cpu(q)) std::tie(attended.out, attended.log_sum_exps) = cpu_forward(Heads(q, k, v, false), plan.segments, terms);
    else attended = fused_attention(q, k, v, plan, terms);
    Memo::keep(ct_kept_attention, {attended.out, attended.log_sum_exps});
    return attended;
}

struct PackedAttention : Function<PackedAttention> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                              const Plan &plan, AttentionTerms terms) {
        const auto attended = attend_once(q, k, v, *plan, terms);
        context->save_for_backward({q, k, v, attended.out, attended.log_sum_exps});
        context->saved_data["plan"] = c10::IValue::make_capsule(plan);
        context->saved_data["scale"] = static_cast<double>(terms.scale);
        context->saved_data["window"] = terms.window;
        context->saved_data["soft_cap"] = static_cast<double>(terms.soft_cap);
        return on_cpu(q) ? back_to_tokens(attended.out, q) : attended.out;
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto s = context->get_saved_variables();
        const AttentionTerms terms{static_cast<float>(context->saved_data["scale"].toDouble()),
                                   context->saved_data["window"].toInt(),
                                   static_cast<float>(context->saved_data["soft_cap"].toDouble())};
        const auto plan = c10::static_intrusive_pointer_cast<AttentionPlan>(context->saved_data["plan"].toCapsule());
        if (on_cpu(s[0])) {
            auto result = cpu_backward(s[0], s[1], s[2], s[3], s[4], grads[0], plan->segments, terms);
            result.resize(5);
            return result;
        }
        auto result = fused_attention_backward(s[0], s[1], s[2], {s[3], s[4]}, grads[0].contiguous(), *plan, terms);
        return {result.query, result.key, result.value, at::Tensor(), at::Tensor()};
    }
};

// Values of another size than keys: zero columns up to the larger, cut off again afterwards.
struct Widened {
    at::Tensor q, k, v;
    Widened(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, const AttentionPlan &plan) {
        TORCH_CHECK(query.dim() == 3 && key.dim() == 3 && value.dim() == 3 && value.size(0) == key.size(0) &&
                        value.size(1) == key.size(1) && query.size(0) == key.size(0) && query.size(2) == key.size(2) &&
                        query.size(1) % key.size(1) == 0,
                    "packed attention: q ", query.sizes(), ", k ", key.sizes(), ", v ", value.sizes(),
                    " must be [T,Hq,D], [T,Hk,D], [T,Hk,Dv] with Hq a multiple of Hk");
        TORCH_CHECK(plan.tokens == query.size(0), "packed attention: segments cover ", plan.tokens, " of ", query.size(0),
                    " tokens");
        for (const auto &s : plan.segments)
            TORCH_CHECK(int64_t(s.start) + s.length <= query.size(0), "packed attention: segment {start ", s.start, ", length ",
                        s.length, ", parent ", s.parent, "} does not fit ", query.size(0), " tokens");
        const int64_t width = std::max(value.size(2), query.size(2));
        auto widened = [&](const at::Tensor &x) {
            return x.size(2) == width ? x : at::constant_pad_nd(x, {0, width - x.size(2)});
        };
        q = widened(query);
        k = widened(key);
        v = widened(value);
    }
};

const Plan &read_plan(ct_attention_plan plan) { return *reinterpret_cast<Plan *>(plan); }

} // namespace

extern "C" {

CT_OP(ct_sdpa, (ct_tensor q, ct_tensor k, ct_tensor v, ct_tensor mask, bool causal, double scale, bool gqa, CT_RESULT),
      at::scaled_dot_product_attention(T(q), T(k), T(v), maybe(mask), 0.0, causal, scale, gqa))

int ct_attention_plan_create(const int32_t *segments, int count, bool fixed_backend, ct_attention_plan *out, ct_message *error) {
    return guarded(error, [&] {
        auto plan = c10::make_intrusive<AttentionPlan>(segments, count, fixed_backend);
        *out = reinterpret_cast<ct_attention_plan>(new Plan(std::move(plan)));
    });
}

void ct_attention_plan_free(ct_attention_plan plan) { delete reinterpret_cast<Plan *>(plan); }

int ct_packed_attention(ct_tensor query, ct_tensor key, ct_tensor value, ct_attention_plan raw, ct_attention attention, CT_RESULT) {
    return guarded(error, [&] {
        const auto &plan = read_plan(raw);
        const auto [q, k, v] = Widened(T(query), T(key), T(value), *plan);
        const auto terms = read_terms(attention, plan.get());
        const bool graph = needs_graph({q, k, v});
        at::Tensor result;
        if (on_cpu(q) && !graph) result = back_to_tokens(attend_once(q, k, v, *plan, terms).out, q);
        else if (on_cpu(q) || has_fused_attention(q, v, *plan, terms))
            result = graph ? PackedAttention::apply(q, k, v, plan, terms) : attend_once(q, k, v, *plan, terms).out;
        else result = attend_by_segment(q, k, v, *plan, terms);
        const int64_t value_dim = T(value).size(2);
        *out = wrap(value_dim == result.size(2) ? result : result.narrow(2, 0, value_dim));
    });
}

const char *ct_attention_backend(ct_tensor query, ct_tensor key, ct_tensor value, ct_attention_plan raw, ct_attention attention) {
    const auto &plan = read_plan(raw);
    if (on_cpu(T(query))) return "cpu";
    ct_message ignored = nullptr;
    const char *name = "segments";
    guarded(&ignored, [&] {
        const auto terms = read_terms(attention, plan.get());
        const auto [q, k, v] = Widened(T(query), T(key), T(value), *plan);
        if (has_fused_attention(q, v, *plan, terms)) name = fused_attention_name(q, k, *plan, terms);
    });
    free(ignored);
    return name;
}

int ct_cached_attention(ct_tensor q, ct_tensor key_pool, ct_tensor value_pool, ct_pages pages, ct_attention attention, CT_RESULT) {
    return guarded(error, [&] {
        const auto &x = T(q), &keys = T(key_pool), &values = T(value_pool), &lengths = T(pages.lengths), &starts = T(pages.starts);
        auto is_list = [](const at::Tensor &list) { return list.scalar_type() == at::kInt && list.dim() == 1 && list.is_contiguous(); };
        TORCH_CHECK(is_list(T(pages.table)) && is_list(lengths) && is_list(starts) && starts.size(0) == x.size(0) &&
                        lengths.size(0) == x.size(0) && x.size(1) % keys.size(1) == 0 && keys.size(2) == x.size(2) &&
                        values.size(0) == keys.size(0) && values.size(1) == keys.size(1) && pages.shift >= 0 && pages.shift < 16,
                    "cached attention: q ", x.sizes(), ", pools ", keys.sizes(), " and ", values.sizes(), ", table ",
                    T(pages.table).sizes(), ", starts ", starts.sizes(), ", lengths ", lengths.sizes(), " do not fit");
        TORCH_CHECK(keys.scalar_type() == values.scalar_type() &&
                        (keys.scalar_type() == x.scalar_type() || keys.scalar_type() == at::kFloat8_e4m3fn),
                    "cached attention: pools of ", keys.scalar_type(), " and ", values.scalar_type(), " under queries of ",
                    x.scalar_type(), ": they must be alike, or the pools float8_e4m3fn");
        *out = wrap(attend_rows(x, keys, values, {T(pages.table), starts, lengths, pages.shift, pages.longest},
                                read_terms(attention, nullptr)));
    });
}

int ct_varlen_attention(ct_tensor q, ct_tensor k, ct_tensor v, ct_tensor query_ends, ct_tensor key_ends, int64_t longest_query,
                        int64_t longest_key, ct_attention attention, CT_RESULT) {
    return guarded(error, [&] {
        const auto terms = read_terms(attention, nullptr);
        TORCH_CHECK(has_varlen(T(q), T(v), terms), "variable-length attention takes bfloat16 or float16 on CUDA without a soft cap, not ",
                    T(q).scalar_type(), " ", T(q).sizes());
        const auto window = flash_window(terms);
        *out = wrap(std::get<0>(at::_flash_attention_forward(T(q), T(k), T(v), T(query_ends), T(key_ends), longest_query,
                                                             longest_key, 0.0, /*is_causal=*/true, false, terms.scale,
                                                             window.first, window.second)));
    });
}

bool ct_has_varlen_attention(ct_tensor q, ct_tensor v, ct_attention attention) {
    return has_varlen(T(q), T(v), {static_cast<float>(attention.scale), attention.window, static_cast<float>(attention.soft_cap)});
}

} // extern "C"
