#pragma once
// Tensors on their way between a device and the host.
#include "shim.hpp"

#include <c10/core/Stream.h>
#include <map>
#include <memory>

namespace ct {

// Copies what checkpoints keep to pinned host memory as the forward pass goes on, and back one checkpoint ahead of backward. Both
// ways lie on one stream of their own, so a buffer that was read from can be written to again without a wait.
class Offloader : public std::enable_shared_from_this<Offloader> {
  public:
    explicit Offloader(at::Device device);
    ~Offloader();
    Offloader(const Offloader &) = delete;

    // What one checkpoint has put away.
    class Parcel {
      public:
        ~Parcel();

      private:
        friend class Offloader;
        std::shared_ptr<Offloader> owner;
        std::vector<at::Tensor> host, back; // pinned copies; tensors of the device that are being filled again
        std::vector<std::vector<int64_t>> strides;
        void *arrived = nullptr;
        std::weak_ptr<Parcel> before;
    };

    // Takes over tensors, which lose nothing but their place on the device.
    std::shared_ptr<Parcel> send(const std::vector<at::Tensor> &tensors);
    // The tensors again, in the same order; starts to bring those of the checkpoint before.
    std::vector<at::Tensor> bring(const std::shared_ptr<Parcel> &parcel);
    void trim();

    ct_offload_stats stats{};

  private:
    at::Tensor buffer(const at::Tensor &like);
    void give_back(at::Tensor buffer);
    void fetch(Parcel &parcel);

    const at::Device device;
    std::optional<c10::Stream> stream;
    // Free pinned buffers by their size in bytes.
    std::multimap<int64_t, at::Tensor> free;
    std::weak_ptr<Parcel> last;
};

// Of a handle.
std::shared_ptr<Offloader> offloader_of(ct_offload offload);

} // namespace ct
