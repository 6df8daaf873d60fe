// One kernel call for each generation of ancestors, the parts merged by log-sum-exp: cuDNN's attention where a pass is a few
// batches of equally long runs, else flash attention over offsets, or the memory-efficient kind for float32.
#include "attention_cuda.hpp"

#include "cuda_driver.hpp"

#include <set>

#pragma clang diagnostic ignored "-Wc23-extensions"

namespace ct {
namespace {

constexpr char merge_text[] = {
#embed "cuda/attention_merge.cu"
};

// ---- cuDNN

using Shape = std::tuple<at::DeviceIndex, int64_t, int64_t, int64_t, at::ScalarType>;

// Shapes of heads that cuDNN has refused, so that it is asked once.
struct Refusals {
    std::mutex mutex;
    std::set<Shape> shapes;
    static Refusals &shared() {
        static Refusals refusals;
        return refusals;
    }
};

Shape shape_of(const at::Tensor &q, const at::Tensor &k) {
    return {q.device().index(), q.size(1), k.size(1), q.size(2), q.scalar_type()};
}

bool takes_cudnn(const at::Tensor &q, const at::Tensor &k, const AttentionPass &pass, const AttentionTerms &terms) {
    if (pass.runs.empty() || terms.window > 0 || q.size(2) > 128 || q.stride(2) != 1 || k.stride(2) != 1) return false;
    if (!takes_flash(q, terms)) return false;
    // Before Hopper it has nothing over flash attention. Its backward adds in any order; flash attention's has a fixed one.
    if (compute_capability(q.device()) < 90 || at::globalContext().deterministicAlgorithms()) return false;
    auto &refusals = Refusals::shared();
    const std::lock_guard lock(refusals.mutex);
    return !refusals.shapes.count(shape_of(q, k));
}

void note_refusal(const at::Tensor &q, const at::Tensor &k, const c10::Error &error) {
    auto &refusals = Refusals::shared();
    const std::lock_guard lock(refusals.mutex);
    if (refusals.shapes.insert(shape_of(q, k)).second)
        TORCH_WARN("cuDNN does not take attention heads of ", q.size(2), " (", q.size(1), " over ", k.size(1),
                   "); flash attention takes over: ", error.what_without_backtrace());
}

// [B,H,L,D], a view.
at::Tensor batched(const at::Tensor &x, int64_t start, int64_t batch, int64_t length) {
    return x.narrow(0, start, batch * length).unflatten(0, {batch, length}).transpose(1, 2);
}
at::Tensor unbatched(const at::Tensor &x_BHLD) { return x_BHLD.transpose(1, 2).flatten(0, 1); }

Attended cudnn_forward(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPass &pass,
                       const AttentionTerms &terms) {
    const int64_t first = pass.queries.start, count = pass.queries.count;
    Attended whole;
    for (const auto &run : pass.runs) {
        const auto result = at::_cudnn_attention_forward(
            batched(q, run.query_start, run.batch, run.query_length), batched(k, run.key_start, run.batch, run.key_length),
            batched(v, run.key_start, run.batch, run.key_length), {}, {}, {}, run.query_length, run.key_length, true, 0.0,
            pass.causal, false, terms.scale);
        auto out = unbatched(std::get<0>(result));
        // [B,H,L,1] -> [H, B L]
        auto lse = std::get<1>(result).view({run.batch, q.size(1), run.query_length}).transpose(0, 1).flatten(1);
        if (run.batch * run.query_length == count) return {std::move(out), lse.contiguous()};
        if (!whole.out.defined())
            whole = {at::empty({count, q.size(1), v.size(2)}, q.options()), at::empty({q.size(1), count}, lse.options())};
        whole.out.narrow(0, run.query_start - first, out.size(0)).copy_(out);
        whole.log_sum_exps.narrow(1, run.query_start - first, out.size(0)).copy_(lse);
    }
    return whole;
}

// ---- flash attention

Attended flash_forward(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPass &pass,
                       const AttentionTerms &terms) {
    const auto window = flash_window(terms);
    // Told of one query at most, it would take every sequence to have just that.
    const auto result = at::_flash_attention_forward(q, k, v, pass.query_offsets, pass.key_offsets,
                                                     std::max<int64_t>(2, pass.longest_query), pass.longest_key, 0.0, pass.causal,
                                                     false, terms.scale, window.first, window.second);
    return {std::get<0>(result), std::get<1>(result)};
}

AttentionGrads flash_backward(const at::Tensor &dout, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                              const Attended &part, const AttentionPass &pass, const AttentionTerms &terms) {
    const auto window = flash_window(terms);
    const auto seed = at::empty({2}, q.options().dtype(at::kUInt64)), unused = at::empty({0}, seed.options());
    auto [dq, dk, dv] = at::_flash_attention_backward(
        dout, q, k, v, part.out, part.log_sum_exps.contiguous(), pass.query_offsets, pass.key_offsets, pass.longest_query,
        pass.longest_key, 0.0, pass.causal, seed, unused, terms.scale, window.first, window.second);
    return {std::move(dq), std::move(dk), std::move(dv)};
}

// ---- passes

at::Tensor at_rows(const at::Tensor &x, const TokenRange &range, const at::Tensor &index) {
    return index.defined() ? x.index_select(0, index) : range.of(x);
}

Attended forward_of(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPass &pass,
                    const AttentionTerms &terms) {
    if (takes_cudnn(q, k, pass, terms)) {
        try {
            return cudnn_forward(q, k, v, pass, terms);
        } catch (const c10::OutOfMemoryError &) {
            throw;
        } catch (const c10::Error &error) { note_refusal(q, k, error); }
    }
    const auto kernel = takes_flash(q, terms) ? flash_forward : efficient_forward;
    return kernel(at_rows(q, pass.queries, pass.query_index), at_rows(k, pass.keys, pass.key_index),
                  at_rows(v, pass.keys, pass.key_index), pass, terms);
}

// out takes in part: queries alike, keys others. Both contiguous [n,H,D]; log-sum-exps [H,n] with heads any distance apart.
void merge(at::Tensor &out, at::Tensor &lse, const Attended &part) {
    const int64_t tokens = out.size(0), heads = out.size(1), dim = out.size(2);
    if (out.scalar_type() != at::kBFloat16 || !out.is_contiguous()) {
        const double none = -std::numeric_limits<double>::infinity();
        const auto of_part = part.log_sum_exps.masked_fill(part.log_sum_exps.isinf(), none),
                   before = lse.masked_fill(lse.isinf(), none), total = at::logaddexp(before, of_part);
        auto weight = [&](const at::Tensor &x) { return (x - total).exp().t().unsqueeze(-1); };
        out.copy_(out * weight(before) + part.out * weight(of_part));
        lse.copy_(total);
        return;
    }
    const auto other = part.out.contiguous();
    int pieces = static_cast<int>(dim / 8), lanes = 1, head_count = static_cast<int>(heads);
    while (lanes < pieces) lanes *= 2;
    void *out_at = out.mutable_data_ptr(), *lse_at = lse.mutable_data_ptr();
    const void *part_at = other.const_data_ptr(), *part_lse_at = part.log_sum_exps.const_data_ptr();
    long long lse_token = lse.stride(1), lse_head = lse.stride(0), part_token = part.log_sum_exps.stride(1),
              part_head = part.log_sum_exps.stride(0), rows = tokens * heads;
    void *arguments[] = {&out_at,     &lse_at,    &lse_token,  &lse_head, &part_at, &part_lse_at,
                         &part_token, &part_head, &head_count, &pieces,   &lanes,   &rows};
    CudaKernel::get(out.device(), "attention_merge.cu", merge_text, sizeof merge_text, {}, "merge_attention")
        .launch(out.device(), static_cast<unsigned>((rows * lanes + 255) / 256), 1, 1, 256, 0, arguments);
}

bool fits_flash(const at::Tensor &x) { return x.stride(2) == 1 && x.stride(1) % 8 == 0 && x.stride(0) % 8 == 0; }

} // namespace

bool takes_flash(const at::Tensor &q, const AttentionTerms &terms) {
    if (!q.is_cuda() || (q.scalar_type() != at::kBFloat16 && q.scalar_type() != at::kHalf)) return false;
    return q.size(2) % 8 == 0 && q.size(2) <= 256 && terms.soft_cap == 0;
}

bool has_fused_attention(const at::Tensor &q, const at::Tensor &v, const AttentionPlan &plan, const AttentionTerms &terms) {
    if (q.size(2) != v.size(2)) return false;
    return takes_efficient(q, terms) || (takes_flash(q, terms) && (terms.window == 0 || !plan.has_parents));
}

const char *fused_attention_name(const at::Tensor &q, const at::Tensor &k, const AttentionPlan &plan, const AttentionTerms &terms) {
    if (!takes_flash(q, terms)) return "efficient";
    for (const auto &pass : plan.passes(q.device()))
        if (!takes_cudnn(q, k, pass, terms)) return "flash";
    return "cudnn";
}

Attended fused_attention(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, const AttentionPlan &plan,
                         const AttentionTerms &terms) {
    auto fit = [](const at::Tensor &x) { return fits_flash(x) ? x : x.contiguous(); };
    const auto q = fit(query), k = fit(key), v = fit(value);
    Attended all;
    for (const auto &pass : plan.passes(q.device())) {
        auto part = forward_of(q, k, v, pass, terms);
        if (!pass.query_index.defined()) {
            if (!all.out.defined()) {
                all = std::move(part);
                continue;
            }
            auto out = pass.queries.of(all.out);
            auto lse = all.log_sum_exps.narrow(1, pass.queries.start, pass.queries.count);
            merge(out, lse, part);
            continue;
        }
        if (!all.out.defined())
            all = {at::empty({q.size(0), q.size(1), v.size(2)}, q.options()),
                   at::empty({q.size(1), q.size(0)}, part.log_sum_exps.options())};
        else {
            auto out = all.out.index_select(0, pass.query_index), lse = all.log_sum_exps.index_select(1, pass.query_index);
            merge(out, lse, part);
            part = {std::move(out), std::move(lse)};
        }
        all.out.index_copy_(0, pass.query_index, part.out);
        all.log_sum_exps.index_copy_(1, pass.query_index, part.log_sum_exps);
    }
    return all;
}

namespace {

// Runs of one pass into gradients of the whole pack, which the first pass makes and the others add to.
bool cudnn_backward(const at::Tensor &dout, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const Attended &attended,
                    const AttentionPass &pass, const AttentionTerms &terms, AttentionGrads &grads) {
    std::vector<AttentionGrads> parts;
    try {
        const auto none = at::Tensor();
        const auto seed = at::empty({}, q.options().dtype(at::kLong)), offset = at::empty({}, seed.options());
        for (const auto &run : pass.runs) {
            auto of_queries = [&](const at::Tensor &x) { return batched(x, run.query_start, run.batch, run.query_length); };
            auto of_keys = [&](const at::Tensor &x) { return batched(x, run.key_start, run.batch, run.key_length); };
            const auto lse = attended.log_sum_exps.narrow(1, run.query_start, run.batch * run.query_length)
                                 .unflatten(1, {run.batch, run.query_length})
                                 .transpose(0, 1)
                                 .contiguous()
                                 .unsqueeze(-1);
            auto [dq, dk, dv] = at::_cudnn_attention_backward(
                of_queries(dout), of_queries(q), of_keys(k), of_keys(v), of_queries(attended.out), lse, seed, offset, none, none,
                none, run.query_length, run.key_length, 0.0, pass.causal, terms.scale);
            parts.push_back({unbatched(dq), unbatched(dk), unbatched(dv)});
        }
    } catch (const c10::OutOfMemoryError &) {
        throw;
    } catch (const c10::Error &error) {
        note_refusal(q, k, error);
        return false;
    }
    const bool is_first = !grads.query.defined();
    if (is_first && parts.size() == 1) {
        grads = std::move(parts[0]);
        return true;
    }
    if (is_first) grads = {at::empty(q.sizes(), q.options()), at::empty(k.sizes(), k.options()), at::empty(v.sizes(), v.options())};
    for (size_t i = 0; i < parts.size(); ++i) {
        const auto &run = pass.runs[i];
        auto put = [&](at::Tensor &whole, int64_t start, const at::Tensor &part) {
            auto target = whole.narrow(0, start, part.size(0));
            if (is_first) target.copy_(part);
            else target.add_(part);
        };
        put(grads.query, run.query_start, parts[i].query);
        put(grads.key, run.key_start, parts[i].key);
        put(grads.value, run.key_start, parts[i].value);
    }
    return true;
}

} // namespace

// With the merged output and log-sum-exp, an attention's backward gives each pass's share of the gradients exactly.
AttentionGrads fused_attention_backward(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value,
                                        const Attended &attended, const at::Tensor &dout, const AttentionPlan &plan,
                                        const AttentionTerms &terms) {
    auto fit = [](const at::Tensor &x) { return fits_flash(x) ? x : x.contiguous(); };
    const auto q = fit(query), k = fit(key), v = fit(value);
    AttentionGrads grads;
    for (const auto &pass : plan.passes(q.device())) {
        if (takes_cudnn(q, k, pass, terms) && cudnn_backward(dout, q, k, v, attended, pass, terms, grads)) continue;
        const bool gathers = pass.query_index.defined();
        auto of_queries = [&](const at::Tensor &x) { return at_rows(x, pass.queries, pass.query_index); };
        auto of_keys = [&](const at::Tensor &x) { return at_rows(x, pass.keys, pass.key_index); };
        const Attended own{of_queries(attended.out),
                           gathers ? attended.log_sum_exps.index_select(1, pass.query_index)
                                   : attended.log_sum_exps.narrow(1, pass.queries.start, pass.queries.count)};
        const auto kernel = takes_flash(q, terms) ? flash_backward : efficient_backward;
        auto part = kernel(of_queries(dout), of_queries(q), of_keys(k), of_keys(v), own, pass, terms);
        if (gathers) {
            if (!grads.query.defined()) grads = {at::zeros_like(q), at::zeros_like(k), at::zeros_like(v)};
            grads.query.index_add_(0, pass.query_index, part.query);
            grads.key.index_add_(0, pass.key_index, part.key);
            grads.value.index_add_(0, pass.key_index, part.value);
        } else if (!grads.query.defined()) {
            grads = std::move(part);
        } else {
            grads.query.narrow(0, pass.queries.start, pass.queries.count).add_(part.query);
            grads.key.narrow(0, pass.keys.start, pass.keys.count).add_(part.key);
            grads.value.narrow(0, pass.keys.start, pass.keys.count).add_(part.value);
        }
    }
    return grads;
}

// ---- by segment

at::Tensor masked_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask,
                            const AttentionTerms &terms) {
    const int64_t group = q.size(-3) / k.size(-3);
    auto scores = at::matmul(q, k.repeat_interleave(group, -3).transpose(-1, -2)).to(at::kFloat) * terms.scale;
    if (terms.soft_cap > 0) scores = at::tanh(scores / terms.soft_cap) * terms.soft_cap;
    const auto weights = at::softmax(scores.masked_fill(mask.logical_not(), -std::numeric_limits<float>::infinity()), -1);
    return at::matmul(weights.to(v.scalar_type()), v.repeat_interleave(group, -3));
}

at::Tensor attend_by_segment(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPlan &plan,
                             const AttentionTerms &terms) {
    const auto &segments = plan.segments;
    const int64_t group = q.size(1) / k.size(1);
    // [B,H,L,D] from tokens that follow one another.
    auto heads = [](const at::Tensor &x, int64_t batch) { return x.unflatten(0, {batch, -1}).transpose(1, 2); };
    auto flat = [](const at::Tensor &x) { return x.transpose(1, 2).flatten(0, 1); };
    auto repeated = [&](const at::Tensor &x) { return group == 1 ? x : x.repeat_interleave(group, 1); };
    std::vector<at::Tensor> results;
    std::vector<int64_t> order;
    for (size_t i = 0; i < segments.size();) {
        const auto &s = segments[i];
        // Equally long segments of no ancestors that follow one another are a batch.
        size_t end = i + 1;
        const bool is_plain = s.parent < 0 && terms.soft_cap == 0 && (terms.window == 0 || terms.window >= s.length);
        while (is_plain && end < segments.size() && segments[end].parent < 0 && segments[end].length == s.length &&
               segments[end].start == segments[end - 1].start + s.length)
            ++end;
        const auto batch = static_cast<int64_t>(end - i), tokens = batch * s.length;
        for (int64_t t = 0; t < tokens; ++t) order.push_back(s.start + t);
        const auto own = heads(q.narrow(0, s.start, tokens), batch);
        i = end;
        if (is_plain) {
            results.push_back(flat(at::scaled_dot_product_attention(own, repeated(heads(k.narrow(0, s.start, tokens), batch)),
                                                                    repeated(heads(v.narrow(0, s.start, tokens), batch)), {}, 0.0,
                                                                    true, terms.scale)));
            continue;
        }
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
        const auto all_keys = heads(at::cat(keys), 1), all_values = heads(at::cat(values), 1);
        results.push_back(flat(terms.soft_cap > 0
                                   ? masked_attention(own, all_keys, all_values, mask, terms)
                                   : at::scaled_dot_product_attention(own, repeated(all_keys), repeated(all_values), mask, 0.0,
                                                                      false, terms.scale)));
    }
    auto all = results.size() == 1 ? results[0] : at::cat(results);
    bool in_order = true;
    for (size_t i = 0; i < order.size(); ++i) in_order = in_order && order[i] == static_cast<int64_t>(i);
    if (in_order) return all;
    // Back from the segments' order to the tokens'.
    std::vector<int64_t> place(order.size());
    for (size_t i = 0; i < order.size(); ++i) place[order[i]] = static_cast<int64_t>(i);
    return all.index_select(0, at::tensor(place, at::kLong).to(q.device()));
}

void compile_attention(const std::string &architecture) {
    compile_cuda("attention_merge.cu", merge_text, sizeof merge_text, {}, architecture);
}

} // namespace ct
