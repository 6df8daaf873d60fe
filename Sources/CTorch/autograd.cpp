// Gradients and checkpointing.
#include "graph.hpp"
#include "offload.hpp"

#include <ATen/core/grad_mode.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace ct;

namespace ct {

Memo *&Memo::current() {
    static thread_local Memo *memo = nullptr;
    return memo;
}

std::vector<at::Tensor> Memo::take(int kind, size_t count) {
    if (!is_second_run() || !keeps(kind)) return {};
    auto &memo = *current();
    TORCH_CHECK(memo.next + count <= memo.values.size(), "a checkpoint's second run asks for ", memo.next + count,
                " kept tensors; its first run kept ", memo.values.size());
    std::vector<at::Tensor> taken;
    for (size_t i = 0; i < count; ++i) taken.push_back(std::move(memo.values[memo.next++]));
    return taken;
}

} // namespace ct

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

// Makes a memo this thread's until the scope ends.
class MemoScope {
  public:
    explicit MemoScope(Memo *memo) : before(Memo::current()) { Memo::current() = memo; }
    ~MemoScope() { Memo::current() = before; }
    MemoScope(const MemoScope &) = delete;

  private:
    Memo *const before;
};

struct Checkpoint : torch::autograd::Node {
    std::shared_ptr<Body> body;
    std::shared_ptr<Offloader> offloader;
    std::vector<at::Tensor> inputs; // away where there is an offloader
    std::vector<bool> learns;
    std::unique_ptr<Memo> memo;
    std::shared_ptr<Offloader::Parcel> parcel;
    int capacity = 0;

    // Puts the inputs and the memo's values away.
    void send() {
        auto all = std::move(inputs);
        all.insert(all.end(), memo->values.begin(), memo->values.end());
        memo->values.clear();
        parcel = offloader->send(all);
    }

    torch::autograd::variable_list apply(torch::autograd::variable_list &&grads) override {
        TORCH_CHECK(memo, "backward goes through a checkpoint a second time; what it kept is gone");
        if (parcel) {
            auto all = offloader->bring(parcel);
            parcel.reset();
            inputs.assign(all.begin(), all.begin() + static_cast<int64_t>(learns.size()));
            memo->values.assign(all.begin() + static_cast<int64_t>(learns.size()), all.end());
        }
        std::vector<at::Tensor> fresh;
        for (size_t i = 0; i < inputs.size(); ++i) {
            fresh.push_back(inputs[i].detach());
            fresh.back().set_requires_grad(learns[i]);
        }
        inputs.clear();
        std::vector<at::Tensor> roots, root_grads;
        {
            at::AutoGradMode recording(true);
            {
                memo->reads = true;
                const MemoScope scope(memo.get());
                auto outputs = body->run(fresh, capacity);
                for (size_t i = 0; i < outputs.size(); ++i)
                    if (grads[i].defined() && outputs[i].requires_grad()) {
                        roots.push_back(outputs[i]);
                        root_grads.push_back(grads[i]);
                    }
            }
            memo.reset();
            torch::autograd::backward(roots, root_grads);
        }
        torch::autograd::variable_list results;
        for (const auto &input : fresh) results.push_back(input.grad());
        return results;
    }
    void release_variables() override {
        inputs.clear();
        memo.reset();
        parcel.reset();
        body.reset();
    }
};

// For ct_watch_memory.
struct Watch : c10::MemoryReportingInfoBase {
    int64_t now = 0, most = 0;
    void reportMemoryUsage(void *, int64_t bytes, size_t, size_t, c10::Device) override {
        now += bytes;
        most = std::max(most, now);
    }
    bool memoryProfilingEnabled() const override { return true; }
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

bool ct_is_second_run(void) { return Memo::is_second_run(); }
bool ct_is_checkpointing(void) { return Memo::current() != nullptr; }

int ct_checkpoint(const ct_tensor *inputs, int count, int kept, ct_offload offload, ct_checkpoint_body call,
                  void (*release)(void *), void *context, ct_tensor *results, int capacity, int *result_count,
                  ct_message *error) {
    auto body = std::make_shared<Body>(call, release, context);
    return guarded(error, [&] {
        const auto tensors = list(inputs, count);
        const bool recording = at::GradMode::is_enabled();
        auto memo = std::make_unique<Memo>(kept);
        std::vector<at::Tensor> outputs;
        {
            at::NoGradGuard no_grad;
            const MemoScope scope(recording ? memo.get() : nullptr);
            outputs = body->run(tensors, capacity);
        }
        if (recording) {
            auto node = std::shared_ptr<Checkpoint>(new Checkpoint(), torch::autograd::deleteNode);
            node->body = body;
            node->capacity = capacity;
            node->memo = std::move(memo);
            node->set_next_edges(torch::autograd::collect_next_edges(tensors));
            for (const auto &tensor : tensors) {
                node->inputs.push_back(tensor.detach());
                node->learns.push_back(tensor.requires_grad());
            }
            if (offload) {
                node->offloader = offloader_of(offload);
                node->send();
            }
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

int ct_watch_memory(int (*body)(void *, ct_message *), void *context, int64_t *left, int64_t *most, ct_message *error) {
    int status = 0;
    const int ran = guarded(error, [&] {
        const auto watch = std::make_shared<Watch>();
        const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, watch);
        status = body(context, error);
        *left = watch->now;
        *most = watch->most;
    });
    return ran != 0 ? ran : status;
}

} // extern "C"
