// Attention: dense (libtorch's), over packed segments that share ancestors, and of new tokens over a cache.
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

AttentionTerms read_terms(const ct_attention &raw, const Segments *segments) {
    TORCH_CHECK(std::isfinite(raw.scale) && raw.window >= 0 && raw.soft_cap >= 0 && std::isfinite(raw.soft_cap),
                "attention: scale ", raw.scale, ", window ", raw.window, " and soft cap ", raw.soft_cap,
                " must be finite, the last two 0 or more");
    AttentionTerms terms{static_cast<float>(raw.scale), raw.window, static_cast<float>(raw.soft_cap)};
    if (terms.window == 0 || !segments) return terms;
    // A window that no sequence outgrows is none: the faster paths take it.
    std::vector<int64_t> ends(segments->size());
    int64_t longest = 0;
    for (size_t i = 0; i < ends.size(); ++i) {
        const auto &s = (*segments)[i];
        ends[i] = s.length + (s.parent >= 0 ? ends[s.parent] : 0);
        longest = std::max(longest, ends[i]);
    }
    if (longest <= terms.window) terms.window = 0;
    return terms;
}

Segments read_segments(const int32_t *raw, int count, int64_t tokens) {
    Segments segments(count);
    for (int i = 0; i < count; ++i) {
        segments[i] = {raw[4 * i], raw[4 * i + 1], raw[4 * i + 2], 0};
        const auto &s = segments[i];
        TORCH_CHECK(s.start >= 0 && s.length > 0 && s.start + int64_t(s.length) <= tokens && s.parent >= -1 && s.parent < i,
                    "packed attention: segment ", i, " {start ", s.start, ", length ", s.length, ", parent ", s.parent,
                    "} does not fit ", tokens, " tokens or names a later parent");
    }
    return segments;
}

at::Tensor pack(const Segments &segments) {
    auto tensor = at::empty({int64_t(segments.size()), 4}, at::kInt);
    memcpy(tensor.mutable_data_ptr(), segments.data(), segments.size() * sizeof(PackedSegment));
    return tensor;
}
Segments unpack(const at::Tensor &tensor) {
    Segments segments(tensor.size(0));
    memcpy(segments.data(), tensor.const_data_ptr(), segments.size() * sizeof(PackedSegment));
    return segments;
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

// ---- CUDA: one flash-attention pass for each generation of ancestors, merged by log-sum-exp

struct Pass {
    bool causal;
    at::Tensor q_index, k_index; // int64 on the device; undefined: the whole pack in order
    at::Tensor q_offsets, k_offsets; // int32 cumulative
    int64_t max_q, max_k;
};

std::vector<Pass> passes(const Segments &segments, at::Device device) {
    std::vector<Pass> result;
    auto to_device = [&](const std::vector<int32_t> &values) {
        return at::tensor(values, at::kInt).to(device, /*non_blocking=*/false);
    };
    for (int generation = 0;; ++generation) {
        // Runs of queries that see the same keys whole; generation 0 is each segment over itself, causally.
        std::vector<int64_t> q_index, k_index;
        std::vector<int32_t> q_offsets{0}, k_offsets{0};
        int64_t max_q = 0, max_k = 0;
        int32_t last = -1;
        for (size_t i = 0; i < segments.size(); ++i) {
            int32_t ancestor = static_cast<int32_t>(i);
            for (int step = 0; step < generation && ancestor >= 0; ++step) ancestor = segments[ancestor].parent;
            if (ancestor < 0) continue;
            const auto &s = segments[i];
            for (int32_t t = 0; t < s.length; ++t) q_index.push_back(s.start + t);
            if (ancestor == last) q_offsets.back() += s.length;
            else {
                q_offsets.push_back(q_offsets.back() + s.length);
                const auto &keys = segments[ancestor];
                for (int32_t t = 0; t < keys.length; ++t) k_index.push_back(keys.start + t);
                k_offsets.push_back(k_offsets.back() + keys.length);
                max_k = std::max<int64_t>(max_k, keys.length);
                last = ancestor;
            }
            max_q = std::max<int64_t>(max_q, q_offsets.back() - q_offsets[q_offsets.size() - 2]);
        }
        if (q_index.empty()) return result;
        result.push_back({generation == 0, at::tensor(q_index, at::kLong).to(device), at::tensor(k_index, at::kLong).to(device),
                          to_device(q_offsets), to_device(k_offsets), max_q, max_k});
    }
}

// Flash attention's window: how many keys to the left and right of its own a query sees besides it.
std::pair<std::optional<int64_t>, std::optional<int64_t>> flash_window(const AttentionTerms &terms) {
    if (terms.window == 0) return {};
    return {terms.window - 1, 0};
}

std::pair<at::Tensor, at::Tensor> cuda_forward(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                                               const Segments &segments, const AttentionTerms &terms) {
    const auto window = flash_window(terms);
    at::Tensor out, lse; // out float32 [T, H, D], lse [T, H]
    for (const auto &pass : passes(segments, q.device())) {
        const auto result = at::_flash_attention_forward(
            q.index_select(0, pass.q_index), k.index_select(0, pass.k_index), v.index_select(0, pass.k_index), pass.q_offsets,
            pass.k_offsets, pass.max_q, pass.max_k, 0.0, pass.causal, false, terms.scale, window.first, window.second);
        const auto part = std::get<0>(result).to(at::kFloat);
        const auto part_lse = std::get<1>(result).transpose(0, 1); // [t, H]
        if (!out.defined()) {
            out = at::zeros({q.size(0), q.size(1), q.size(2)}, part.options());
            lse = at::full({q.size(0), q.size(1)}, -std::numeric_limits<double>::infinity(), part.options());
        }
        const auto old_lse = lse.index_select(0, pass.q_index), old = out.index_select(0, pass.q_index);
        const auto total = at::logaddexp(old_lse, part_lse);
        out.index_copy_(0, pass.q_index,
                        old * (old_lse - total).exp().unsqueeze(-1) + part * (part_lse - total).exp().unsqueeze(-1));
        lse.index_copy_(0, pass.q_index, total);
    }
    return {out.to(q.scalar_type()), lse};
}

// With the merged output and log-sum-exp, flash attention's backward gives each pass's share of the gradients exactly.
variable_list cuda_backward(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &out,
                            const at::Tensor &lse, const at::Tensor &dout, const Segments &segments,
                            const AttentionTerms &terms) {
    const auto window = flash_window(terms);
    auto dq = at::zeros_like(q, q.options().dtype(at::kFloat)), dk = at::zeros_like(k, k.options().dtype(at::kFloat)),
         dv = at::zeros_like(v, v.options().dtype(at::kFloat));
    const auto seed = at::zeros({2}, q.options().dtype(at::kUInt64)), unused = at::empty({0}, q.options().dtype(at::kUInt64));
    for (const auto &pass : passes(segments, q.device())) {
        const auto [gq, gk, gv] = at::_flash_attention_backward(
            dout.index_select(0, pass.q_index), q.index_select(0, pass.q_index), k.index_select(0, pass.k_index),
            v.index_select(0, pass.k_index), out.index_select(0, pass.q_index),
            lse.index_select(0, pass.q_index).transpose(0, 1).contiguous(), pass.q_offsets, pass.k_offsets, pass.max_q,
            pass.max_k, 0.0, pass.causal, seed, unused, terms.scale, window.first, window.second);
        dq.index_add_(0, pass.q_index, gq.to(at::kFloat));
        dk.index_add_(0, pass.k_index, gk.to(at::kFloat));
        dv.index_add_(0, pass.k_index, gv.to(at::kFloat));
    }
    return {dq.to(q.scalar_type()), dk.to(k.scalar_type()), dv.to(v.scalar_type())};
}

// Softmax attention of x [Hq, Tq, D] over keys and values [Hk, Tk, D] where `mask` [.., Tq, Tk] is true, by plain operations.
at::Tensor masked_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask,
                            const AttentionTerms &terms) {
    const int64_t group = q.size(-3) / k.size(-3);
    auto scores = at::matmul(q, k.repeat_interleave(group, -3).transpose(-1, -2)).to(at::kFloat) * terms.scale;
    if (terms.soft_cap > 0) scores = at::tanh(scores / terms.soft_cap) * terms.soft_cap;
    const auto weights = at::softmax(scores.masked_fill(mask.logical_not(), -std::numeric_limits<float>::infinity()), -1);
    return at::matmul(weights.to(v.scalar_type()), v.repeat_interleave(group, -3));
}

// Which keys each of a pack's tokens sees, bool [T, T].
at::Tensor dense_mask(const Segments &segments, int64_t tokens, int64_t window) {
    auto mask = at::zeros({tokens, tokens}, at::kBool);
    auto position = at::zeros({tokens}, at::kLong);
    for (const auto &s : segments) {
        mask.narrow(0, s.start, s.length).narrow(1, s.start, s.length).copy_(at::ones({s.length, s.length}, at::kBool).tril());
        int64_t depth = 0;
        for (int32_t a = s.parent; a >= 0; a = segments[a].parent) {
            mask.narrow(0, s.start, s.length).narrow(1, segments[a].start, segments[a].length).fill_(true);
            depth += segments[a].length;
        }
        position.narrow(0, s.start, s.length).copy_(at::arange(depth, depth + s.length, at::kLong));
    }
    if (window > 0) mask.logical_and_(position.unsqueeze(1) - position.unsqueeze(0) < window);
    return mask;
}

// Any device and type, through a dense mask: float32 on CUDA, and what flash attention here does not do (a window over shared
// ancestors). Correct first: the mask is T x T.
at::Tensor dense(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const Segments &segments,
                 const AttentionTerms &terms) {
    const auto mask = dense_mask(segments, q.size(0), terms.window).to(q.device());
    auto heads = [](const at::Tensor &x) { return x.transpose(0, 1).unsqueeze(0); };
    return at::scaled_dot_product_attention(heads(q), heads(k), heads(v), mask, 0.0, false, terms.scale, true)
        .squeeze(0)
        .transpose(0, 1);
}

// Soft-capped scores on CUDA, which no fused kernel of libtorch's gives: segment by segment over the keys that it sees, so that
// no more than one segment's scores exist at once.
at::Tensor dense_soft_capped(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const Segments &segments,
                             const AttentionTerms &terms) {
    std::vector<at::Tensor> results(segments.size());
    std::vector<int64_t> order;
    for (size_t i = 0; i < segments.size(); ++i) {
        const auto &s = segments[i];
        std::vector<at::Tensor> keys{k.narrow(0, s.start, s.length)}, values{v.narrow(0, s.start, s.length)};
        int64_t depth = 0;
        for (int32_t a = s.parent; a >= 0; a = segments[a].parent) {
            keys.insert(keys.begin(), k.narrow(0, segments[a].start, segments[a].length));
            values.insert(values.begin(), v.narrow(0, segments[a].start, segments[a].length));
            depth += segments[a].length;
        }
        const auto options = q.options().dtype(at::kLong);
        const auto distance =
            at::arange(depth, depth + s.length, options).unsqueeze(1) - at::arange(depth + s.length, options).unsqueeze(0);
        auto mask = distance >= 0;
        if (terms.window > 0) mask = mask.logical_and(distance < terms.window);
        auto heads = [](const std::vector<at::Tensor> &x) { return at::cat(x).transpose(0, 1); };
        const auto own = q.narrow(0, s.start, s.length).transpose(0, 1);
        results[i] = masked_attention(own, heads(keys), heads(values), mask, terms).transpose(0, 1);
        for (int32_t t = 0; t < s.length; ++t) order.push_back(s.start + t);
    }
    // Back from the segments' order to the tokens'.
    std::vector<int64_t> place(order.size());
    for (size_t i = 0; i < order.size(); ++i) place[order[i]] = static_cast<int64_t>(i);
    return at::cat(results).index_select(0, at::tensor(place, at::kLong).to(q.device()));
}

bool has_flash(const at::Tensor &q, const Segments &segments, const AttentionTerms &terms) {
    if (!q.is_cuda() || (q.scalar_type() != at::kBFloat16 && q.scalar_type() != at::kHalf)) return false;
    if (q.size(2) % 8 != 0 || q.size(2) > 256 || terms.soft_cap > 0) return false;
    return terms.window == 0 || std::all_of(segments.begin(), segments.end(), [](const auto &s) { return s.parent < 0; });
}

bool has_varlen(const at::Tensor &q, const at::Tensor &v, const AttentionTerms &terms) {
    return has_flash(q, {}, terms) && q.size(2) == v.size(2) && !c10::GradMode::is_enabled();
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
std::pair<at::Tensor, at::Tensor> attend_once(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const Segments &segments,
                                              const AttentionTerms &terms) {
    if (auto kept = Memo::take(ct_kept_attention, 2); !kept.empty()) return {kept[0], kept[1]};
    auto both = on_cpu(q) ? cpu_forward(Heads(q, k, v, false), segments, terms) : cuda_forward(q, k, v, segments, terms);
    Memo::keep(ct_kept_attention, {both.first, both.second});
    return both;
}

struct PackedAttention : Function<PackedAttention> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                              const at::Tensor &segments, double scale, int64_t window, double soft_cap) {
        const auto list = unpack(segments);
        const AttentionTerms terms{static_cast<float>(scale), window, static_cast<float>(soft_cap)};
        const auto [out, lse] = attend_once(q, k, v, list, terms);
        context->save_for_backward({q, k, v, out, lse, segments});
        context->saved_data["scale"] = scale;
        context->saved_data["window"] = window;
        context->saved_data["soft_cap"] = soft_cap;
        return on_cpu(q) ? back_to_tokens(out, q) : out;
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto s = context->get_saved_variables();
        const AttentionTerms terms{static_cast<float>(context->saved_data["scale"].toDouble()),
                                   context->saved_data["window"].toInt(),
                                   static_cast<float>(context->saved_data["soft_cap"].toDouble())};
        const auto list = unpack(s[5]);
        auto result = on_cpu(s[0]) ? cpu_backward(s[0], s[1], s[2], s[3], s[4], grads[0], list, terms)
                                   : cuda_backward(s[0], s[1], s[2], s[3], s[4], grads[0].contiguous(), list, terms);
        result.resize(7);
        return result;
    }
};

} // namespace

extern "C" {

CT_OP(ct_sdpa, (ct_tensor q, ct_tensor k, ct_tensor v, ct_tensor mask, bool causal, double scale, bool gqa, CT_RESULT),
      at::scaled_dot_product_attention(T(q), T(k), T(v), maybe(mask), 0.0, causal, scale, gqa))

int ct_packed_attention(ct_tensor query, ct_tensor key, ct_tensor value, const int32_t *raw, int count, ct_attention attention,
                        CT_RESULT) {
    return guarded(error, [&] {
        TORCH_CHECK(T(query).dim() == 3 && T(key).dim() == 3 && T(value).dim() == 3 && T(value).size(0) == T(key).size(0) &&
                        T(value).size(1) == T(key).size(1) && T(query).size(0) == T(key).size(0) &&
                        T(query).size(2) == T(key).size(2) && T(query).size(1) % T(key).size(1) == 0,
                    "packed attention: q ", T(query).sizes(), ", k ", T(key).sizes(), ", v ", T(value).sizes(),
                    " must be [T,Hq,D], [T,Hk,D], [T,Hk,Dv] with Hq a multiple of Hk");
        // Values of another size than keys: zero columns up to the larger, cut off again below.
        const int64_t value_dim = T(value).size(2), width = std::max(value_dim, T(query).size(2));
        auto widened = [&](const at::Tensor &x) {
            return x.size(2) == width ? x : at::constant_pad_nd(x, {0, width - x.size(2)});
        };
        const auto q = widened(T(query)), k = widened(T(key)), v = widened(T(value));
        const auto segments = read_segments(raw, count, q.size(0));
        int64_t covered = 0;
        for (const auto &s : segments) covered += s.length;
        TORCH_CHECK(covered == q.size(0), "packed attention: segments cover ", covered, " of ", q.size(0), " tokens");
        const auto terms = read_terms(attention, &segments);
        const bool graph = needs_graph({q, k, v});
        at::Tensor result;
        if (on_cpu(q) && !graph) result = back_to_tokens(attend_once(q, k, v, segments, terms).first, q);
        else if (on_cpu(q) || has_flash(q, segments, terms))
            result = graph ? PackedAttention::apply(q, k, v, pack(segments), attention.scale, terms.window, attention.soft_cap)
                           : attend_once(q, k, v, segments, terms).first;
        else result = terms.soft_cap > 0 ? dense_soft_capped(q, k, v, segments, terms) : dense(q, k, v, segments, terms);
        *out = wrap(value_dim == width ? result : result.narrow(2, 0, value_dim));
    });
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
