// Memory that comes and goes under tensors that stay, and calls from backward.
#include "ctorch_sharding.h"
#include "shim.hpp"

#include <ATen/core/grad_mode.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

using namespace ct;

namespace {

c10::StorageImpl &storage_of(const at::Tensor &tensor) { return *tensor.storage().unsafeGetStorageImpl(); }

// A Swift closure that lives as long as some graph may call it.
struct Call {
    int (*const call)(void *, ct_message *);
    void (*const release)(void *);
    void *const context;
    Call(int (*call)(void *, ct_message *), void (*release)(void *), void *context) : call(call), release(release), context(context) {}
    Call(const Call &) = delete;
    ~Call() { release(context); }

    void operator()() const {
        ct_message message = nullptr;
        if (call(context, &message) == 0) return;
        const std::string text = message ? message : "a call from backward failed";
        free(message);
        TORCH_CHECK(false, text);
    }
};

struct BackwardHook : torch::autograd::Node {
    std::shared_ptr<Call> call;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&grads) override {
        (*call)();
        return std::move(grads);
    }
};

} // namespace

extern "C" {

int64_t ct_storage_bytes(ct_tensor tensor) { return static_cast<int64_t>(storage_of(T(tensor)).nbytes()); }

int ct_storage_release(ct_tensor tensor, ct_message *error) {
    return guarded(error, [&] {
        auto &storage = storage_of(T(tensor));
        storage.set_data_ptr_noswap(at::DataPtr(nullptr, storage.device()));
        storage.set_nbytes(0);
    });
}

int ct_storage_allocate(ct_tensor tensor, const int64_t *sizes, int ndim, CT_RESULT) {
    return guarded(error, [&] {
        const auto &t = T(tensor);
        auto &storage = storage_of(t);
        const auto shape = ints(sizes, ndim);
        const size_t bytes = static_cast<size_t>(c10::multiply_integers(shape)) * t.element_size();
        TORCH_CHECK(t.is_contiguous() && t.storage_offset() == 0 && t.nbytes() <= bytes, "memory for ", shape,
                    " under a tensor ", t.sizes(), " that begins at ", t.storage_offset());
        auto *allocator = storage.allocator() ? storage.allocator() : c10::GetAllocator(t.device().type());
        {
            const c10::DeviceGuard guard(t.device());
            storage.set_data_ptr_noswap(allocator->allocate(bytes));
        }
        storage.set_nbytes(bytes);
        auto whole = at::detail::make_tensor<at::TensorImpl>(c10::Storage(t.storage()), c10::DispatchKeySet(t.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU), t.dtype());
        whole.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
        *out = wrap(std::move(whole));
    });
}

int ct_backward_hook(ct_tensor tensor, int (*call)(void *, ct_message *), void (*release)(void *), void *context, CT_RESULT) {
    auto body = std::make_shared<Call>(call, release, context);
    return guarded(error, [&] {
        const auto &x = T(tensor);
        if (!x.requires_grad() || !at::GradMode::is_enabled()) {
            *out = wrap(x);
            return;
        }
        auto node = std::shared_ptr<BackwardHook>(new BackwardHook(), torch::autograd::deleteNode);
        node->call = body;
        node->set_next_edges(torch::autograd::collect_next_edges(x));
        auto same = x.detach();
        torch::autograd::create_gradient_edge(same, node);
        *out = wrap(std::move(same));
    });
}

} // extern "C"
