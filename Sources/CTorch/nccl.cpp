// Groups over NCCL. Its C interface is found by name in libnccl, which libtorch's CUDA half brings into the process.
#include "group.hpp"
#include "shim.hpp"

#include "ctorch_ranks.h"
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <link.h>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>

using namespace ct;

namespace ct {
c10::intrusive_ptr<c10d::Store> store_of(ct_store store);
} // namespace ct

namespace {

// As nccl.h of version 2 declares them.
struct UniqueID {
    char bytes[128];
};
using Communicator = struct ncclComm *;
using Stream = void *;
enum Type { u8 = 1, i32 = 2, i64 = 4, f16 = 6, f32 = 7, f64 = 8, bf16 = 9 };

struct NCCL {
    int (*version)(int *);
    int (*unique_id)(UniqueID *);
    int (*init)(Communicator *, int, UniqueID, int);
    int (*destroy)(Communicator);
    int (*abort)(Communicator);
    int (*async_error)(Communicator, int *);
    const char *(*error_string)(int);
    const char *(*last_error)(Communicator);
    int (*group_start)();
    int (*group_end)();
    int (*all_reduce)(const void *, void *, size_t, int, int, Communicator, Stream);
    int (*all_gather)(const void *, void *, size_t, int, Communicator, Stream);
    int (*reduce_scatter)(const void *, void *, size_t, int, int, Communicator, Stream);
    int (*broadcast)(const void *, void *, size_t, int, int, Communicator, Stream);
    int (*send)(const void *, size_t, int, int, Communicator, Stream);
    int (*receive)(void *, size_t, int, int, Communicator, Stream);
    // Of the CUDA runtime, which libtorch_cuda links to.
    int (*capture_state)(Stream, int *);

    static const NCCL &get() {
        static const NCCL nccl = [] {
            // A rank has a communicator for each axis of its mesh, and their kernels run at the same time. NCCL promises that two
            // of them never wait for one another only when it may order their launches as the host does, the same on all ranks.
            setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
            void *library = open();
            auto find = [&]<class Function>(Function &out, const char *name) {
                out = reinterpret_cast<Function>(dlsym(library, name));
                TORCH_CHECK(out, "libnccl lacks ", name);
            };
            NCCL n{};
            find(n.version, "ncclGetVersion");
            find(n.unique_id, "ncclGetUniqueId");
            find(n.init, "ncclCommInitRank");
            find(n.destroy, "ncclCommDestroy");
            find(n.abort, "ncclCommAbort");
            find(n.async_error, "ncclCommGetAsyncError");
            find(n.error_string, "ncclGetErrorString");
            find(n.last_error, "ncclGetLastError");
            find(n.group_start, "ncclGroupStart");
            find(n.group_end, "ncclGroupEnd");
            find(n.all_reduce, "ncclAllReduce");
            find(n.all_gather, "ncclAllGather");
            find(n.reduce_scatter, "ncclReduceScatter");
            find(n.broadcast, "ncclBroadcast");
            find(n.send, "ncclSend");
            find(n.receive, "ncclRecv");
            n.capture_state = reinterpret_cast<decltype(n.capture_state)>(dlsym(RTLD_DEFAULT, "cudaStreamIsCapturing"));
            TORCH_CHECK(n.capture_state, "the CUDA runtime lacks cudaStreamIsCapturing");
            return n;
        }();
        return nccl;
    }

    void check(int status, const char *what) const {
        if (status == 0) return;
        const char *detail = last_error(nullptr);
        TORCH_CHECK(false, what, ": ", error_string(status), detail && *detail ? ": " : "", detail ? detail : "");
    }

  private:
    static void *open() {
        // Where libtorch_cuda was opened, its NCCL is in the process already.
        if (dlsym(RTLD_DEFAULT, "ncclCommInitRank")) return RTLD_DEFAULT;
        std::string loaded;
        dl_iterate_phdr(
            [](dl_phdr_info *info, size_t, void *out) {
                const std::string path = info->dlpi_name ? info->dlpi_name : "";
                if (path.find("/libnccl.so") != std::string::npos) *static_cast<std::string *>(out) = path;
                return 0;
            },
            &loaded);
        void *library = nullptr;
        if (!loaded.empty()) library = dlopen(loaded.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!library) library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
        TORCH_CHECK(library, "libnccl.so.2 is not found: several GPUs need the nvidia-nccl-cu13 that belongs to torch 2.11.0");
        return library;
    }
};

const c10::impl::VirtualGuardImpl &cuda() {
    static const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
    return guard;
}

// The end of what was launched on a stream.
class Event {
    void *event = nullptr;
    c10::DeviceIndex device;

  public:
    explicit Event(const c10::Stream &stream) : device(stream.device_index()) {
        cuda().record(&event, stream, device, c10::EventFlag::PYTORCH_DEFAULT);
    }
    ~Event() { cuda().destroyEvent(event, device); }
    Event(const Event &) = delete;
    void block(const c10::Stream &stream) const { cuda().block(event, stream); }
    bool is_past() const { return cuda().queryEvent(event); }
    void wait() const { cuda().synchronizeEvent(event); }
};

// The current device, until the scope ends.
class OnDevice {
    c10::Device before;

  public:
    explicit OnDevice(c10::Device device) : before(cuda().exchangeDevice(device)) {}
    ~OnDevice() { cuda().uncheckedSetDevice(before); }
};

// A communicator that its group and the operations under way share.
struct Channel {
    Communicator communicator = nullptr;
    std::atomic<bool> aborted{false};

    void check() const { TORCH_CHECK(!aborted, "the group was ended"); }
};

class NCCLPending : public Pending {
    std::shared_ptr<Channel> channel;
    std::shared_ptr<Event> event;
    // The group's, and the one that waited for nothing yet.
    const c10::Stream stream, origin;
    Group::Tensors held;
    bool on_host;

    // Memory that is freed before anybody has waited, or was waited for elsewhere, must not be used again before the operation is done.
    void keep() const {
        for (const auto &tensor : held) cuda().recordDataPtrOnStream(tensor.storage().data_ptr(), stream);
    }

  public:
    NCCLPending(std::shared_ptr<Channel> channel, std::shared_ptr<Event> event, c10::Stream stream, c10::Stream origin,
                Group::Tensors held, bool on_host)
        : channel(std::move(channel)), event(std::move(event)), stream(stream), origin(origin), held(std::move(held)), on_host(on_host) {}
    ~NCCLPending() override {
        try {
            keep();
        } catch (const std::exception &) {
            // The device is in error: nothing is launched any more.
        }
    }

    // What the current stream frees after this it may use again at once: layers' weights come and go without waiting for the device.
    void wait() override {
        channel->check();
        const auto current = cuda().getStream(origin.device());
        if (on_host) event->wait();
        else event->block(current);
        channel->check();
        if (current != origin && !on_host) keep();
        held.clear();
    }
    bool done() override {
        channel->check();
        return event->is_past();
    }
    std::function<bool()> probe() override {
        return [event = event] {
            try {
                return event->is_past();
            } catch (const std::exception &) {
                return true; // The device is in error; whoever launches next is told.
            }
        };
    }
};

int type(const at::Tensor &tensor, const char *operation) {
    switch (tensor.scalar_type()) {
    case at::kFloat: return f32;
    case at::kBFloat16: return bf16;
    case at::kHalf: return f16;
    case at::kDouble: return f64;
    case at::kLong: return i64;
    case at::kInt: return i32;
    case at::kByte: return u8;
    default: TORCH_CHECK(false, operation, ": NCCL cannot reduce ", tensor.scalar_type());
    }
}

int reduction_of(ct_merge reduction) {
    switch (reduction) {
    case CT_MERGE_SUM: return 0;
    case CT_MERGE_MAX: return 2;
    case CT_MERGE_MIN: return 3;
    case CT_MERGE_MEAN: return 4;
    }
    TORCH_CHECK(false, "unknown reduction ", static_cast<int>(reduction));
}

class NCCLGroup : public Group {
    const c10::Device device;
    const c10::Stream stream;
    std::shared_ptr<Channel> channel = std::make_shared<Channel>();
    // For barriers.
    at::Tensor token;

    // Launches `body` on the group's stream, after what the current one holds.
    template <class Body> PendingPointer launch(const char *what, Tensors tensors, Body &&body, bool on_host = false) {
        channel->check();
        for (const auto &tensor : tensors)
            TORCH_CHECK(tensor.device() == device, what, ": a tensor on ", tensor.device(), " in a group on ", device);
        const OnDevice scope(device);
        const auto origin = cuda().getStream(device);
        Event(origin).block(stream);
        const auto &nccl = NCCL::get();
        nccl.check(nccl.group_start(), what);
        try {
            body(nccl, channel->communicator, cuda().getStreamNativeHandle(stream));
        } catch (...) {
            nccl.group_end();
            throw;
        }
        nccl.check(nccl.group_end(), what);
        return std::make_unique<NCCLPending>(channel, std::make_shared<Event>(stream), stream, origin, std::move(tensors), on_host);
    }

  public:
    NCCLGroup(const UniqueID &id, c10::Device device, int rank, int size)
        : Group(rank, size), device(device), stream(cuda().getStreamFromGlobalPool(device, /*isHighPriority=*/true)) {
        const OnDevice scope(device);
        const auto &nccl = NCCL::get();
        nccl.check(nccl.init(&channel->communicator, size, id, rank), "ncclCommInitRank");
        token = at::zeros({1}, at::TensorOptions().dtype(at::kInt).device(device));
    }
    // Destroying waits for the other ranks' destroying. A rank of several groups may let go of them in another order than its peers, so
    // each waits on a thread of its own; a process that ends leaves without it.
    ~NCCLGroup() override {
        // After an error nothing is sure to end; the process is about to.
        if (channel->aborted) return;
        auto destroy = [device = device, stream = stream, communicator = channel->communicator] {
            try {
                const OnDevice scope(device);
                cuda().synchronizeStream(stream);
                NCCL::get().destroy(communicator);
            } catch (const std::exception &) {
                // The device is in error, and with it the communicator: there is nothing left to give back.
            }
        };
        if (size == 1) {
            destroy();
            return;
        }
        try {
            std::thread(destroy).detach();
        } catch (const std::exception &) {
            // No thread is to be had: the communicator stays until the process ends.
        }
    }

    PendingPointer all_reduce(Tensors tensors, ct_merge reduction) override {
        const auto op = reduction_of(reduction);
        return launch("all-reduce", tensors, [&](const NCCL &nccl, Communicator communicator, Stream stream) {
            for (const auto &tensor : tensors) {
                if (tensor.numel() == 0) continue;
                void *data = tensor.data_ptr();
                nccl.check(nccl.all_reduce(data, data, tensor.numel(), type(tensor, "all-reduce"), op, communicator, stream), "all-reduce");
            }
        });
    }

    PendingPointer all_gather(Tensors inputs, Tensors outputs) override {
        return launch("all-gather", both(inputs, outputs), [&](const NCCL &nccl, Communicator communicator, Stream stream) {
            for (size_t i = 0; i < inputs.size(); ++i) {
                if (inputs[i].numel() == 0) continue;
                nccl.check(nccl.all_gather(inputs[i].const_data_ptr(), outputs[i].data_ptr(), inputs[i].nbytes(), u8, communicator, stream),
                           "all-gather");
            }
        });
    }

    PendingPointer reduce_scatter(Tensors inputs, Tensors outputs, ct_merge reduction) override {
        const auto op = reduction_of(reduction);
        return launch("reduce-scatter", both(inputs, outputs), [&](const NCCL &nccl, Communicator communicator, Stream stream) {
            for (size_t i = 0; i < inputs.size(); ++i) {
                if (outputs[i].numel() == 0) continue;
                nccl.check(nccl.reduce_scatter(inputs[i].const_data_ptr(), outputs[i].data_ptr(), outputs[i].numel(),
                                               type(inputs[i], "reduce-scatter"), op, communicator, stream),
                           "reduce-scatter");
            }
        });
    }

    PendingPointer broadcast(Tensors tensors, int root) override {
        return launch("broadcast", tensors, [&](const NCCL &nccl, Communicator communicator, Stream stream) {
            for (const auto &tensor : tensors) {
                if (tensor.numel() == 0) continue;
                void *data = tensor.data_ptr();
                nccl.check(nccl.broadcast(data, data, tensor.nbytes(), u8, root, communicator, stream), "broadcast");
            }
        });
    }

    PendingPointer all_to_all(at::Tensor input, at::Tensor output, std::vector<int64_t> input_rows,
                              std::vector<int64_t> output_rows) override {
        return launch("all-to-all", {input, output}, [&](const NCCL &nccl, Communicator communicator, Stream stream) {
            size_t row = input.element_size();
            for (int64_t dim = 1; dim < input.dim(); ++dim) row *= input.size(dim);
            const auto *from = static_cast<const char *>(input.const_data_ptr());
            auto *to = static_cast<char *>(output.data_ptr());
            for (int peer = 0; peer < size; ++peer) {
                const size_t sent = row * input_rows[peer], received = row * output_rows[peer];
                if (sent > 0) nccl.check(nccl.send(from, sent, u8, peer, communicator, stream), "all-to-all");
                if (received > 0) nccl.check(nccl.receive(to, received, u8, peer, communicator, stream), "all-to-all");
                from += sent;
                to += received;
            }
        });
    }

    PendingPointer exchange(std::vector<Message> sends, std::vector<Message> receives) override {
        Tensors tensors;
        for (const auto &message : sends) tensors.push_back(message.tensor);
        for (const auto &message : receives) tensors.push_back(message.tensor);
        return launch("exchange", tensors, [&](const NCCL &nccl, Communicator communicator, Stream stream) {
            for (const auto &[tensor, peer] : sends)
                if (tensor.numel() > 0) nccl.check(nccl.send(tensor.const_data_ptr(), tensor.nbytes(), u8, peer, communicator, stream), "send");
            for (const auto &[tensor, peer] : receives)
                if (tensor.numel() > 0) nccl.check(nccl.receive(tensor.data_ptr(), tensor.nbytes(), u8, peer, communicator, stream), "receive");
        });
    }

    PendingPointer start_barrier() override {
        return launch("barrier", {token}, [&](const NCCL &nccl, Communicator communicator, Stream stream) {
            nccl.check(nccl.all_reduce(token.data_ptr(), token.data_ptr(), 1, i32, 0, communicator, stream), "barrier");
        }, /*on_host=*/true);
    }

    // Kernels that wait for another rank end too, and with them whoever waits for the device.
    void abort() override {
        if (!channel->aborted.exchange(true)) NCCL::get().abort(channel->communicator);
    }

    std::string problem() override {
        int status = 0;
        if (channel->aborted || NCCL::get().async_error(channel->communicator, &status) != 0 || status == 0 || status == 7 /* in progress */)
            return {};
        const char *detail = NCCL::get().last_error(channel->communicator);
        return std::string("NCCL: ") + NCCL::get().error_string(status) + (detail && *detail ? std::string(": ") + detail : "");
    }

    bool is_captured() override {
        int state = 0;
        return NCCL::get().capture_state(cuda().getStreamNativeHandle(cuda().getStream(device)), &state) == 0 && state != 0;
    }

  private:
    static Tensors both(const Tensors &inputs, const Tensors &outputs) {
        Tensors all = inputs;
        all.insert(all.end(), outputs.begin(), outputs.end());
        return all;
    }
};

} // namespace

extern "C" {

int ct_nccl_version(int *version, ct_message *error) {
    return guarded(error, [&] { NCCL::get().check(NCCL::get().version(version), "ncclGetVersion"); });
}

int ct_group_nccl(ct_store store, const char *name, int device_index, int rank, int size, ct_group *out, ct_message *error) {
    return guarded(error, [&] {
        TORCH_CHECK(size > 0 && rank >= 0 && rank < size, "group ", name, ": rank ", rank, " of ", size);
        const auto &nccl = NCCL::get();
        const auto shared = store_of(store);
        const std::string key = std::string("nccl/") + name;
        UniqueID id;
        if (rank == 0) {
            nccl.check(nccl.unique_id(&id), "ncclGetUniqueId");
            const auto *bytes = reinterpret_cast<const uint8_t *>(id.bytes);
            shared->set(key, std::vector<uint8_t>(bytes, bytes + sizeof id.bytes));
        } else {
            const auto bytes = shared->get(key);
            TORCH_CHECK(bytes.size() == sizeof id.bytes, "group ", name, ": the store's id has ", bytes.size(), " bytes");
            memcpy(id.bytes, bytes.data(), sizeof id.bytes);
        }
        // Connecting cannot be given up: every rank says first that it is there, which the store's timeout bounds.
        shared->set(key + "/" + std::to_string(rank), std::vector<uint8_t>{1});
        std::vector<std::string> all;
        for (int other = 0; other < size; ++other) all.push_back(key + "/" + std::to_string(other));
        shared->wait(all);
        const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(device_index));
        *out = new ct_group_impl{std::make_shared<NCCLGroup>(id, device, rank, size)};
    });
}

} // extern "C"
