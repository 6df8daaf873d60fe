// The product with a weight.
#include "graph.hpp"

using namespace ct;
using torch::autograd::variable_list;

namespace {

struct LinearNode : LayerNode {
    KeptInput x; // only where the weight learns
    at::Tensor weight;
    bool has_bias = false;

    variable_list apply(variable_list &&grads) override {
        variable_list results(3);
        if (!grads[0].defined()) return results;
        at::NoGradGuard no_grad;
        const auto dy = grads[0].reshape({-1, weight.size(0)});
        if (task_should_compute_output(0)) {
            auto sizes = grads[0].sizes().vec();
            sizes.back() = weight.size(1);
            results[0] = at::mm(dy, weight).view(sizes);
        }
        if (task_should_compute_output(1)) results[1] = weight_gradient(weight, dy, x.get().reshape({-1, weight.size(1)}));
        if (has_bias && task_should_compute_output(2)) results[2] = dy.sum(0);
        return results;
    }
    void release_variables() override { x.release(); }
};

at::Tensor linear(const at::Tensor &x, const at::Tensor &weight, const c10::optional<at::Tensor> &bias, int kept, bool is_read) {
    const bool has_graph = needs_graph({x, weight, bias.value_or(at::Tensor())}) && weight.dim() == 2 && x.dim() > 0;
    const auto noted = Memo::take(kept, 1);
    if (!has_graph) {
        if (!noted.empty()) return noted[0];
        auto y = at::linear(x, weight, bias);
        Memo::keep(kept, {y});
        return y;
    }
    at::NoGradGuard no_grad;
    at::Tensor y;
    if (!noted.empty()) {
        y = noted[0];
    } else if (is_read) {
        y = at::linear(x, weight, bias);
    } else {
        auto sizes = x.sizes().vec();
        TORCH_CHECK(sizes.back() == weight.size(1), "linear: x ", x.sizes(), " does not fit the weight ", weight.sizes());
        sizes.back() = weight.size(0);
        y = unread(sizes, x.options());
    }
    auto node = make_node<LinearNode>({x, weight, bias.value_or(at::Tensor())});
    if (weight.requires_grad()) node->x = KeptInput(x);
    node->weight = weight;
    node->has_bias = bias.has_value();
    return result_of(node, y);
}

} // namespace

namespace ct {

at::Tensor weight_gradient(const at::Tensor &weight, const at::Tensor &dy, const at::Tensor &x) {
    if (weight.is_leaf() && weight.grad().defined()) {
        auto &grad = weight.mutable_grad();
        if (grad.scalar_type() == dy.scalar_type() && grad.sizes() == weight.sizes() && grad.is_contiguous() &&
            grad.device() == dy.device()) {
            grad.addmm_(dy.t(), x);
            return {};
        }
    }
    return at::mm(dy.t(), x);
}

} // namespace ct

extern "C" {

CT_OP(ct_linear, (ct_tensor x, ct_tensor weight, ct_tensor bias, CT_RESULT),
      linear(T(x), T(weight), maybe(bias), ct_kept_nothing, true))
CT_OP(ct_layer_linear, (ct_tensor x, ct_tensor weight, ct_tensor bias, enum ct_kept kept, bool is_read, CT_RESULT),
      linear(T(x), T(weight), maybe(bias), kept, is_read))

} // extern "C"
