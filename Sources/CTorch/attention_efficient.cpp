// libtorch's memory-efficient attention over offsets, for packs that flash attention does not take: those in float32.
#include "attention_cuda.hpp"

namespace ct {
namespace {

constexpr int64_t aligned_statistics = 32;

// Every query head gets keys and values of its own: the kernel knows no groups.
at::Tensor repeated(const at::Tensor &x, int64_t heads) {
    return x.size(1) == heads ? x : x.repeat_interleave(heads / x.size(1), 1);
}

// Rows of log-sum-exps [runs, padded length, heads] that queries have: the kernel gives each run a row of its own.
at::Tensor places(const AttentionPass &pass, int64_t queries, int64_t padded) {
    const auto token = at::arange(queries, pass.query_offsets.options().dtype(at::kLong)), offsets = pass.query_offsets.to(at::kLong);
    const auto run = at::searchsorted(offsets, token, false, true) - 1;
    return run * padded + token - offsets.index_select(0, run);
}

int64_t mask_type(const AttentionPass &pass) { return pass.causal ? 1 : 0; }

} // namespace

bool takes_efficient(const at::Tensor &q, const AttentionTerms &terms) {
    return q.is_cuda() && q.scalar_type() == at::kFloat && q.size(2) % 4 == 0 && q.size(2) <= 256 && terms.soft_cap == 0 &&
           terms.window == 0;
}

Attended efficient_forward(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const AttentionPass &pass,
                           const AttentionTerms &terms) {
    const int64_t heads = q.size(1);
    const auto result = at::_efficient_attention_forward(
        q.unsqueeze(0), repeated(k, heads).unsqueeze(0), repeated(v, heads).unsqueeze(0), {}, pass.query_offsets, pass.key_offsets,
        pass.longest_query, pass.longest_key, 0.0, mask_type(pass), true, terms.scale);
    const auto &statistics = std::get<1>(result); // [runs, heads, padded length]
    const auto lse = statistics.transpose(1, 2).reshape({-1, heads}).index_select(0, places(pass, q.size(0), statistics.size(2)));
    return {std::get<0>(result).squeeze(0), lse.t().contiguous()};
}

AttentionGrads efficient_backward(const at::Tensor &dout, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                                  const Attended &part, const AttentionPass &pass, const AttentionTerms &terms) {
    const int64_t heads = q.size(1), runs = pass.query_offsets.size(0) - 1;
    const int64_t padded = (pass.longest_query + aligned_statistics - 1) / aligned_statistics * aligned_statistics;
    // Past a run's end the kernel reads on: an infinite denominator leaves nothing of it.
    auto rows = at::full({runs * padded, heads}, std::numeric_limits<float>::infinity(), part.log_sum_exps.options());
    rows.index_copy_(0, places(pass, q.size(0), padded), part.log_sum_exps.t());
    const auto statistics = rows.view({runs, padded, heads}).transpose(1, 2).contiguous();
    const auto seed = at::empty({}, q.options().dtype(at::kLong)), offset = at::empty({}, seed.options());
    // More splits of the keys add in any order.
    const auto splits = at::globalContext().deterministicAlgorithms() ? std::optional<int64_t>(1) : std::nullopt;
    const auto result = at::_efficient_attention_backward(
        dout.unsqueeze(0), q.unsqueeze(0), repeated(k, heads).unsqueeze(0), repeated(v, heads).unsqueeze(0), {},
        part.out.unsqueeze(0), pass.query_offsets, pass.key_offsets, pass.longest_query, pass.longest_key, statistics, 0.0, seed,
        offset, mask_type(pass), false, terms.scale, splits);
    auto over_group = [&](const at::Tensor &x, const at::Tensor &like) {
        const auto all = x.squeeze(0);
        return like.size(1) == heads ? all : all.unflatten(1, {like.size(1), -1}).sum(2);
    };
    return {std::get<0>(result).squeeze(0), over_group(std::get<1>(result), k), over_group(std::get<2>(result), v)};
}

} // namespace ct
