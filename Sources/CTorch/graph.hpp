#pragma once
// Nodes of our own in autograd's graph. Unlike torch's, they keep a tensor that is cheap to compute not at all: who needs it in
// backward asks the node that made it to compute it again.
#include "rows.hpp"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

namespace ct {

struct LayerNode : torch::autograd::Node {
    // Whether result `number` can be computed again from what the node keeps.
    virtual bool makes_again(uint32_t number) const { return false; }
    virtual at::Tensor make_again(uint32_t number) { return {}; }
};

// A node whose gradients go to `inputs`, undefined ones and those without gradients too.
template <class Made> std::shared_ptr<Made> make_node(std::initializer_list<at::Tensor> inputs) {
    auto node = std::shared_ptr<Made>(new Made(), torch::autograd::deleteNode);
    for (const auto &input : inputs)
        node->add_next_edge(input.defined() ? torch::autograd::impl::gradient_edge(input) : torch::autograd::Edge());
    return node;
}

// `value` as the next result of `node`; its memory is shared, its history is not.
inline at::Tensor result_of(const std::shared_ptr<torch::autograd::Node> &node, const at::Tensor &value) {
    auto result = value.detach();
    torch::autograd::create_gradient_edge(result, node);
    return result;
}

// A tensor that nobody reads: the shape of one, of which all is NaN.
inline at::Tensor unread(at::IntArrayRef sizes, const at::TensorOptions &options) {
    return at::full({1}, std::numeric_limits<double>::quiet_NaN(), options).expand(sizes);
}

inline bool is_unread(const at::Tensor &x) {
    for (const int64_t stride : x.strides())
        if (stride != 0) return false;
    return x.numel() > 1;
}

// What a checkpoint's body notes in its first run and finds again in its second, in the same order.
class Memo {
  public:
    explicit Memo(int kinds) : kinds(kinds) {}
    // This thread's, while a body runs; null: none.
    static Memo *&current();
    static bool is_second_run() { return current() && current()->reads; }
    static bool keeps(int kind) { return current() && (current()->kinds & kind); }
    // In a first run that keeps such things: nothing may be written to them any more.
    static void keep(int kind, std::initializer_list<at::Tensor> values) {
        if (keeps(kind) && !is_second_run())
            for (const auto &value : values) current()->values.push_back(value.detach());
    }
    // In a second run: what `keep` got in the first one; empty where such things are not kept.
    static std::vector<at::Tensor> take(int kind, size_t count);

    const int kinds;
    bool reads = false;
    std::vector<at::Tensor> values;
    size_t next = 0;
};

// An activation that backward needs: the tensor itself, or the node that makes it again. Nobody may write to it before.
class KeptInput {
  public:
    KeptInput() = default;
    explicit KeptInput(const at::Tensor &x) {
        maker = std::dynamic_pointer_cast<LayerNode>(x.grad_fn());
        number = x.output_nr();
        // A layer that is run again is gone through at once: memory for one layer, and nothing is made a third time.
        if (maker && maker->makes_again(number) && (is_unread(x) || !Memo::is_second_run())) return;
        maker.reset();
        tensor = x.detach();
        version = tensor._version();
    }
    at::Tensor get() const {
        if (maker) return maker->make_again(number);
        TORCH_CHECK(tensor.defined(), "backward goes through a part of the graph a second time; its activations are gone");
        TORCH_CHECK(tensor._version() == version, "an activation ", tensor.sizes(), " was written to before backward read it");
        return tensor;
    }
    void release() { *this = KeptInput(); }

  private:
    at::Tensor tensor;
    std::shared_ptr<LayerNode> maker;
    uint32_t number = 0;
    int64_t version = 0;
};

// Adds dyᵀ · x to the gradient of `weight` where it has one already, and gives nothing; else gives the product.
at::Tensor weight_gradient(const at::Tensor &weight, const at::Tensor &dy, const at::Tensor &x);

} // namespace ct
