// Gradients and checkpointing.
#include "fused.hpp"
#include "shim.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace ct;

namespace {

// A Swift closure that outlives the forward pass: released when the last graph node lets go of it.
struct Body {
    ct_checkpoint_body call;
    void (*release)(void *);
    void *context;
    Body(ct_checkpoint_body call, void (*release)(void *), void *context) : call(call), release(release), context(context) {}
    Body(const Body &) = delete;
    ~Body() { release(context); }

    std::vector<at::Tensor> run(const std::vector<at::Tensor> &inputs, int capacity) const {
        std::vector<ct_tensor> handles;
        for (const auto &input : inputs) handles.push_back(wrap(input));
        std::vector<ct_tensor> results(capacity, nullptr);
        ct_message message = nullptr;
        const int count =
            call(context, handles.data(), static_cast<int>(handles.size()), results.data(), capacity, &message);
        for (auto handle : handles) ct_free(handle);
        if (count < 0) {
            const std::string text = message ? message : "the checkpointed body failed";
            free(message);
            TORCH_CHECK(false, text);
        }
        std::vector<at::Tensor> tensors;
        for (int i = 0; i < count; ++i) {
            tensors.push_back(T(results[i]));
            ct_free(results[i]);
        }
        return tensors;
    }
};

struct Checkpoint : torch::autograd::Node {
    std::shared_ptr<Body> body;
    std::vector<torch::autograd::SavedVariable> saved;
    int capacity = 0;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&grads) override {
        std::vector<at::Tensor> inputs;
        for (auto &variable : saved) {
            auto input = variable.unpack();
            auto fresh = input.detach();
            fresh.set_requires_grad(input.requires_grad());
            inputs.push_back(fresh);
        }
        std::vector<at::Tensor> roots, root_grads;
        {
            at::AutoGradMode recording(true);
            auto outputs = body->run(inputs, capacity);
            for (size_t i = 0; i < outputs.size(); ++i)
                if (grads[i].defined() && outputs[i].requires_grad()) {
                    roots.push_back(outputs[i]);
                    root_grads.push_back(grads[i]);
                }
            torch::autograd::backward(roots, root_grads);
        }
        torch::autograd::variable_list results;
        for (const auto &input : inputs) results.push_back(input.grad());
        return results;
    }
    void release_variables() override {
        saved.clear();
        body.reset();
    }
};

} // namespace

extern "C" {

bool ct_grad_enabled(void) { return at::GradMode::is_enabled(); }
void ct_set_grad_enabled(bool on) { at::GradMode::set_enabled(on); }
CT_DO(ct_set_requires_grad, (ct_tensor t, bool on, ct_message *error), T(t).set_requires_grad(on))
int ct_grad(ct_tensor t, CT_RESULT) {
    return guarded(error, [&] {
        const auto &grad = T(t).grad();
        *out = grad.defined() ? wrap(grad) : nullptr;
    });
}
CT_DO(ct_set_grad, (ct_tensor t, ct_tensor grad, ct_message *error), {
    T(t).mutable_grad() = grad ? T(grad) : at::Tensor();
})
CT_DO(ct_backward, (const ct_tensor *roots, const ct_tensor *grads, int count, ct_message *error),
      torch::autograd::backward(list(roots, count), grads ? list(grads, count) : std::vector<at::Tensor>()))

int ct_checkpoint(const ct_tensor *inputs, int count, ct_checkpoint_body call, void (*release)(void *), void *context,
                  ct_tensor *results, int capacity, int *result_count, ct_message *error) {
    auto body = std::make_shared<Body>(call, release, context);
    return guarded(error, [&] {
        const auto tensors = list(inputs, count);
        const bool recording = at::GradMode::is_enabled();
        std::vector<at::Tensor> outputs;
        {
            at::NoGradGuard no_grad;
            const Unfused separate(recording);
            outputs = body->run(tensors, capacity);
        }
        if (recording) {
            auto node = std::shared_ptr<Checkpoint>(new Checkpoint(), torch::autograd::deleteNode);
            node->body = body;
            node->capacity = capacity;
            node->set_next_edges(torch::autograd::collect_next_edges(tensors));
            for (const auto &tensor : tensors) node->saved.emplace_back(tensor, /*is_output=*/false);
            for (auto &output : outputs) {
                // A result that aliases an input must not be given a second history.
                for (const auto &tensor : tensors)
                    if (output.is_same(tensor)) output = output.view_as(output);
                output = output.detach();
                torch::autograd::create_gradient_edge(output, node);
            }
        }
        for (size_t i = 0; i < outputs.size(); ++i) results[i] = wrap(outputs[i]);
        *result_count = static_cast<int>(outputs.size());
    });
}

} // extern "C"
