// Collectives with gradients: what tensor, sequence and expert parallel layers put between their products.
#include "ctorch_parallel.h"
#include "parallel_layers.hpp"

using namespace ct;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

struct Copy : Function<Copy> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const GroupPointer &group) {
        keep(context, group);
        return x;
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        return {all_reduced(*kept(context), std::move(grads[0])), at::Tensor()};
    }
};

struct Sum : Function<Sum> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const GroupPointer &group, bool both) {
        keep(context, group);
        context->saved_data["both"] = both;
        return all_reduced(*group, x.clone(at::MemoryFormat::Contiguous));
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const bool both = context->saved_data["both"].toBool();
        return {both ? all_reduced(*kept(context), std::move(grads[0])) : grads[0], at::Tensor(), at::Tensor()};
    }
};

struct ScaleGradient : Function<ScaleGradient> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, double factor) {
        context->saved_data["factor"] = factor;
        return x;
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        return {grads[0] * context->saved_data["factor"].toDouble(), at::Tensor()};
    }
};

struct GatherRows : Function<GatherRows> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const GroupPointer &group, int64_t total, bool sums) {
        keep(context, group);
        context->saved_data["sums"] = sums;
        context->saved_data["rows"] = x.size(0);
        return all_gathered(*group, x).narrow(0, 0, total);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto group = kept(context);
        const int64_t rows = context->saved_data["rows"].toInt();
        const auto all = padded(grads[0], rows * group->size);
        return {context->saved_data["sums"].toBool() ? reduce_scattered(*group, all)
                                                     : all.narrow(0, rows * group->rank, rows).contiguous(),
                at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

struct ScatterRows : Function<ScatterRows> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const GroupPointer &group, bool is_read) {
        keep(context, group);
        context->saved_data["total"] = x.size(0);
        const int64_t rows = chunk_rows(x.size(0), group->size);
        if (is_read) return reduce_scattered(*group, padded(x, rows * group->size));
        auto sizes = x.sizes().vec();
        sizes[0] = rows;
        return at::empty(sizes, x.options());
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        return {all_gathered(*kept(context), grads[0]).narrow(0, 0, context->saved_data["total"].toInt()), at::Tensor(),
                at::Tensor()};
    }
};

struct GatherColumns : Function<GatherColumns> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const GroupPointer &group, int64_t total) {
        const int64_t rows = x.size(0), width = chunk_rows(total, group->size);
        context->saved_data["first"] = std::min(total, group->rank * width);
        context->saved_data["width"] = x.size(1);
        auto own = x;
        if (x.size(1) < width) own = at::cat({x, at::zeros({rows, width - x.size(1)}, x.options())}, 1);
        return all_gathered(*group, own)
            .view({group->size, rows, width})
            .permute({1, 0, 2})
            .reshape({rows, group->size * width})
            .narrow(1, 0, total);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        return {grads[0].narrow(1, context->saved_data["first"].toInt(), context->saved_data["width"].toInt()), at::Tensor(),
                at::Tensor()};
    }
};

at::Tensor exchanged(Group &group, const at::Tensor &x, const std::vector<int64_t> &from, const std::vector<int64_t> &to) {
    auto sizes = x.sizes().vec();
    sizes[0] = std::accumulate(to.begin(), to.end(), int64_t(0));
    const auto y = at::empty(sizes, x.options());
    // A rank that neither sends nor receives takes part all the same: the others wait for it.
    group.all_to_all(x.contiguous(), y, from, to)->wait();
    return y;
}

struct ExchangeRows : Function<ExchangeRows> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const GroupPointer &group,
                              const std::vector<int64_t> &input_rows, const std::vector<int64_t> &output_rows) {
        keep(context, group);
        context->saved_data["input_rows"] = input_rows;
        context->saved_data["output_rows"] = output_rows;
        return exchanged(*group, x, input_rows, output_rows);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        return {exchanged(*kept(context), grads[0], context->saved_data["output_rows"].toIntVector(),
                          context->saved_data["input_rows"].toIntVector()),
                at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

// x [n * c, ..] in n blocks, of which the r-th goes to rank r.
at::Tensor exchanged_blocks(const GroupPointer &group, const at::Tensor &x) {
    const std::vector<int64_t> rows(group->size, x.size(0) / group->size);
    return ExchangeRows::apply(x, group, rows, rows);
}

// The sum over the ranks that hold the same as this one: `copies` neighbours of the group.
at::Tensor summed_copies(Group &group, const at::Tensor &x, int64_t copies) {
    auto sizes = x.sizes().vec();
    sizes.insert(sizes.begin(), group.size);
    return all_gathered(group, x).view(sizes).narrow(0, group.rank / copies * copies, copies).sum(0);
}

struct SumCopies : Function<SumCopies> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const GroupPointer &group, int64_t copies) {
        keep(context, group);
        context->saved_data["copies"] = copies;
        return x;
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        return {summed_copies(*kept(context), grads[0], context->saved_data["copies"].toInt()), at::Tensor(), at::Tensor()};
    }
};

struct CopiedRowsLinear : Function<CopiedRowsLinear> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &weight,
                              const c10::optional<at::Tensor> &bias, const GroupPointer &group, int64_t first, int64_t copies) {
        keep(context, group);
        context->save_for_backward({x, weight});
        context->saved_data["first"] = first;
        context->saved_data["copies"] = copies;
        context->saved_data["has_bias"] = bias.has_value();
        return at::linear(x, weight, bias);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const auto saved = context->get_saved_variables();
        const auto group = kept(context);
        const int64_t first = context->saved_data["first"].toInt(), copies = context->saved_data["copies"].toInt();
        const auto g = grads[0].reshape({-1, saved[1].size(0)}), x = saved[0].reshape({-1, saved[1].size(1)});
        const auto complete = [&](at::Tensor gradient) {
            const auto own = gradient.narrow(0, first, gradient.size(0) - first);
            own.copy_(summed_copies(*group, own, copies));
            return gradient;
        };
        at::Tensor dx, dweight, dbias;
        if (context->needs_input_grad(0)) dx = at::mm(g, saved[1]).view(saved[0].sizes());
        if (context->needs_input_grad(1)) dweight = complete(at::mm(g.t(), x));
        if (context->saved_data["has_bias"].toBool() && context->needs_input_grad(2)) dbias = complete(g.sum(0));
        return {dx, dweight, dbias, at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

void check_heads(const Group &group, const at::Tensor &x) {
    TORCH_CHECK(x.dim() == 3 && (x.size(1) % group.size == 0 || group.size % x.size(1) == 0), "tokens to heads: ", x.sizes(),
                " has heads that ", group.size, " ranks cannot share");
}

} // namespace

extern "C" {

int ct_parallel_copy(ct_group group, ct_tensor x, CT_RESULT) {
    return guarded(error, [&] { *out = wrap(needs_graph({T(x)}) ? Copy::apply(T(x), group->group) : T(x)); });
}

int ct_parallel_sum(ct_group group, ct_tensor x, CT_RESULT) {
    return guarded(error, [&] {
        if (needs_graph({T(x)})) {
            *out = wrap(Sum::apply(T(x), group->group, false));
            return;
        }
        auto sum = T(x).contiguous();
        if (sum.numel() > 0) group->group->all_reduce({sum}, CT_MERGE_SUM)->wait();
        *out = wrap(sum);
    });
}

int ct_parallel_sum_both(ct_group group, ct_tensor x, CT_RESULT) {
    return guarded(error, [&] { *out = wrap(Sum::apply(T(x), group->group, true)); });
}

int ct_scale_gradient(ct_tensor x, double factor, CT_RESULT) {
    return guarded(error, [&] { *out = wrap(needs_graph({T(x)}) ? ScaleGradient::apply(T(x), factor) : T(x)); });
}

int ct_rows_gather(ct_group group, ct_tensor x, int64_t total, bool sums, CT_RESULT) {
    return guarded(error, [&] {
        TORCH_CHECK(T(x).dim() > 0 && total >= 0 && T(x).size(0) == chunk_rows(total, group->group->size), "gather rows: a chunk of ",
                    T(x).sizes(), " of ", group->group->size, " ranks is not one of ", total, " rows");
        *out = wrap(GatherRows::apply(T(x), group->group, total, sums));
    });
}

int ct_rows_scatter(ct_group group, ct_tensor x, bool is_read, CT_RESULT) {
    return guarded(error, [&] { *out = wrap(ScatterRows::apply(T(x), group->group, is_read)); });
}

int ct_rows_own(ct_group group, ct_tensor x, CT_RESULT) {
    return guarded(error, [&] {
        const auto &all = T(x);
        const int64_t rows = chunk_rows(all.size(0), group->group->size);
        const int64_t first = std::min(all.size(0), rows * group->group->rank);
        *out = wrap(padded(all.narrow(0, first, std::min(rows, all.size(0) - first)), rows));
    });
}

int ct_columns_gather(ct_group group, ct_tensor x, int64_t total, CT_RESULT) {
    return guarded(error, [&] { *out = wrap(GatherColumns::apply(T(x), group->group, total)); });
}

int ct_rows_exchange(ct_group group, ct_tensor x, const int64_t *input_rows, const int64_t *output_rows, CT_RESULT) {
    return guarded(error, [&] {
        const int size = group->group->size;
        const std::vector<int64_t> from(input_rows, input_rows + size), to(output_rows, output_rows + size);
        TORCH_CHECK(T(x).dim() > 0 && std::accumulate(from.begin(), from.end(), int64_t(0)) == T(x).size(0), "exchange rows: ",
                    T(x).sizes(), " are not the rows ", from);
        *out = wrap(ExchangeRows::apply(T(x), group->group, from, to));
    });
}

int ct_tokens_to_heads(ct_group group, const ct_tensor *xs, int count, int64_t total, ct_tensor *outs, ct_message *error) {
    return guarded(error, [&] {
        const auto &ranks = *group->group;
        const int64_t size = ranks.size, rows = chunk_rows(total, ranks.size);
        std::vector<at::Tensor> parts;
        std::vector<int64_t> widths;
        for (const auto &x : list(xs, count)) {
            check_heads(ranks, x);
            TORCH_CHECK(x.size(0) == rows, "tokens to heads: ", x.sizes(), " is no chunk of ", total, " tokens");
            const auto heads = x.size(1) < size ? x.repeat_interleave(size / x.size(1), 1) : x;
            parts.push_back(heads.reshape({rows, size, -1}));
            widths.push_back(parts.back().size(2));
        }
        const auto packed = (count == 1 ? parts[0] : at::cat(parts, 2)).permute({1, 0, 2}).reshape({size * rows, -1});
        const auto all = exchanged_blocks(group->group, packed).narrow(0, 0, total);
        int64_t start = 0;
        for (int i = 0; i < count; ++i) {
            outs[i] = wrap(all.narrow(1, start, widths[i]).unflatten(1, {-1, T(xs[i]).size(2)}));
            start += widths[i];
        }
    });
}

int ct_heads_to_tokens(ct_group group, ct_tensor x, CT_RESULT) {
    return guarded(error, [&] {
        const auto &all = T(x);
        const int64_t size = group->group->size, rows = chunk_rows(all.size(0), size), heads = all.size(1), dim = all.size(2);
        const auto mine = exchanged_blocks(group->group, padded(all.flatten(1), rows * size));
        *out = wrap(mine.view({size, rows, heads * dim}).permute({1, 0, 2}).reshape({rows, size * heads, dim}));
    });
}

int ct_sum_copies(ct_group group, ct_tensor x, int copies, CT_RESULT) {
    return guarded(error, [&] {
        TORCH_CHECK(copies > 0 && group->group->size % copies == 0, "sum copies: ", copies, " copies among ", group->group->size,
                    " ranks");
        *out = wrap(needs_graph({T(x)}) ? SumCopies::apply(T(x), group->group, int64_t(copies)) : T(x));
    });
}

int ct_copied_rows_linear(ct_group group, ct_tensor x, ct_tensor weight, ct_tensor bias, int64_t first, int copies, CT_RESULT) {
    return guarded(error, [&] {
        TORCH_CHECK(copies > 0 && group->group->size % copies == 0 && first >= 0 && first <= T(weight).size(0),
                    "linear with copied rows: ", copies, " copies of the rows from ", first, " on of ", T(weight).sizes(), " among ",
                    group->group->size, " ranks");
        *out = wrap(CopiedRowsLinear::apply(T(x), T(weight), maybe(bias), group->group, first, int64_t(copies)));
    });
}

int ct_embedding_part(ct_tensor weight, ct_tensor ids, int64_t first, CT_RESULT) {
    return guarded(error, [&] {
        const auto local = T(ids) - first;
        const auto outside = at::logical_or(local < 0, local >= T(weight).size(0));
        *out = wrap(at::embedding(T(weight), local.masked_fill(outside, 0)).masked_fill(outside.unsqueeze(-1), 0));
    });
}

} // extern "C"
