#include "offload.hpp"

#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace ct {
namespace {

// Launches go to `stream` until the scope ends.
class OnStream {
  public:
    explicit OnStream(c10::Stream stream) : guard(c10::kCUDA), before(guard.exchangeStream(stream)) {}
    ~OnStream() { guard.exchangeStream(before); }
    OnStream(const OnStream &) = delete;

  private:
    const c10::impl::VirtualGuardImpl guard;
    const c10::Stream before;
};

// `later` goes on only when `earlier` has done what it was given so far.
void order(const c10::Stream &earlier, const c10::Stream &later) {
    const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
    void *event = nullptr;
    guard.record(&event, earlier, earlier.device_index(), c10::EventFlag::PYTORCH_DEFAULT);
    guard.block(event, later);
    guard.destroyEvent(event, earlier.device_index());
}

} // namespace

Offloader::Offloader(at::Device device) : device(device) {
    if (device.is_cuda()) stream = c10::impl::VirtualGuardImpl(c10::kCUDA).getStreamFromGlobalPool(device);
}

Offloader::~Offloader() = default;

Offloader::Parcel::~Parcel() {
    // A graph that backward never reached.
    for (auto &buffer : host) owner->give_back(std::move(buffer));
    if (arrived) c10::impl::VirtualGuardImpl(c10::kCUDA).destroyEvent(arrived, owner->device.index());
}

at::Tensor Offloader::buffer(const at::Tensor &like) {
    const int64_t bytes = static_cast<int64_t>(like.nbytes());
    const auto found = free.find(bytes);
    at::Tensor block;
    if (found != free.end()) {
        block = std::move(found->second);
        free.erase(found);
    } else {
        block = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(device.is_cuda()));
        stats.pinned_bytes += bytes;
    }
    stats.away_bytes += bytes;
    return block.view(like.scalar_type()).view(like.sizes());
}

void Offloader::give_back(at::Tensor buffer) {
    const int64_t bytes = static_cast<int64_t>(buffer.nbytes());
    stats.away_bytes -= bytes;
    free.emplace(bytes, buffer.view({-1}).view(at::kByte));
}

std::shared_ptr<Offloader::Parcel> Offloader::send(const std::vector<at::Tensor> &tensors) {
    at::NoGradGuard no_grad;
    auto parcel = std::make_shared<Parcel>();
    parcel->owner = shared_from_this();
    parcel->before = last;
    last = parcel;
    std::optional<OnStream> scope;
    if (stream) {
        order(c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(device), *stream);
        scope.emplace(*stream);
    }
    for (const auto &tensor : tensors) {
        parcel->strides.push_back(tensor.strides().vec());
        auto host = buffer(tensor);
        if (tensor.is_contiguous() || !stream) {
            host.copy_(tensor, /*non_blocking=*/true);
            // Its memory must not serve anything else before it is read.
            if (stream)
                c10::impl::VirtualGuardImpl(c10::kCUDA).recordDataPtrOnStream(tensor.storage().data_ptr(), *stream);
        } else {
            // Laid out on the device first: the bus takes whole runs.
            const auto dense = tensor.contiguous();
            c10::impl::VirtualGuardImpl(c10::kCUDA).recordDataPtrOnStream(tensor.storage().data_ptr(), *stream);
            host.copy_(dense, /*non_blocking=*/true);
        }
        stats.sent_bytes += static_cast<int64_t>(tensor.nbytes());
        parcel->host.push_back(std::move(host));
    }
    return parcel;
}

void Offloader::fetch(Parcel &parcel) {
    if (parcel.host.empty()) return;
    for (size_t i = 0; i < parcel.host.size(); ++i)
        parcel.back.push_back(at::empty(parcel.host[i].sizes(), parcel.host[i].options().device(device).pinned_memory(false)));
    std::optional<OnStream> scope;
    if (stream) {
        // The new memory may still be in use by what was launched before.
        order(c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(device), *stream);
        scope.emplace(*stream);
    }
    for (size_t i = 0; i < parcel.host.size(); ++i) {
        parcel.back[i].copy_(parcel.host[i], /*non_blocking=*/true);
        stats.fetched_bytes += static_cast<int64_t>(parcel.host[i].nbytes());
        give_back(std::move(parcel.host[i]));
    }
    parcel.host.clear();
    if (stream)
        c10::impl::VirtualGuardImpl(c10::kCUDA).record(&parcel.arrived, *stream, device.index(), c10::EventFlag::PYTORCH_DEFAULT);
}

std::vector<at::Tensor> Offloader::bring(const std::shared_ptr<Parcel> &parcel) {
    at::NoGradGuard no_grad;
    fetch(*parcel);
    if (parcel->arrived) {
        const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
        guard.block(parcel->arrived, guard.getStream(device));
    }
    auto tensors = std::move(parcel->back);
    parcel->back.clear();
    for (size_t i = 0; i < tensors.size(); ++i) {
        // Kernels may go by strides: the second run must find those of the first.
        if (tensors[i].strides() == at::IntArrayRef(parcel->strides[i])) continue;
        auto as_before = at::empty_strided(tensors[i].sizes(), parcel->strides[i], tensors[i].options());
        tensors[i] = as_before.copy_(tensors[i]);
    }
    if (auto before = parcel->before.lock()) fetch(*before);
    return tensors;
}

void Offloader::trim() {
    for (const auto &[bytes, block] : free) stats.pinned_bytes -= bytes;
    free.clear();
}

} // namespace ct

struct ct_offload_impl {
    std::shared_ptr<ct::Offloader> offloader;
};

using namespace ct;

std::shared_ptr<Offloader> ct::offloader_of(ct_offload offload) { return offload->offloader; }

extern "C" {

int ct_offload_create(int device_type, int device_index, ct_offload *out, ct_message *error) {
    return guarded(error, [&] { *out = new ct_offload_impl{std::make_shared<Offloader>(device(device_type, device_index))}; });
}
void ct_offload_free(ct_offload offload) { delete offload; }
ct_offload_stats ct_offload_statistics(ct_offload offload) { return offload->offloader->stats; }
void ct_offload_trim(ct_offload offload) { offload->offloader->trim(); }

} // extern "C"
