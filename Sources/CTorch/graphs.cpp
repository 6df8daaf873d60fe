// CUDA events and graphs. libtorch's own CUDAGraph, whose class lives in libtorch_cuda, does the capturing, since the caching
// allocator must know of it; its functions are found by name in the library that was opened at run time.
#include "cuda_driver.hpp"
#include "shim.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <memory>

using namespace ct;

struct ct_event_impl {
    void *event = nullptr;
    c10::DeviceIndex device;
};

namespace {

using Pool = std::pair<unsigned long long, unsigned long long>; // c10::MempoolId_t

template <class Function> Function find(const char *name) {
    auto found = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
    TORCH_CHECK(found, "libtorch_cuda lacks ", name, ": CUDA graphs need libtorch 2.11");
    return found;
}

// at::cuda::CUDAGraph of libtorch 2.11.
struct GraphClass {
    void (*construct)(void *, bool);
    void (*destruct)(void *);
    void (*begin)(void *, Pool, int);
    void (*end)(void *);
    void (*replay)(void *);
    Pool (*pool)(void *);

    static const GraphClass &get() {
        static const GraphClass graph{find<decltype(construct)>("_ZN2at4cuda9CUDAGraphC1Eb"),
                                      find<decltype(destruct)>("_ZN2at4cuda9CUDAGraphD1Ev"),
                                      find<decltype(begin)>("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode"),
                                      find<decltype(end)>("_ZN2at4cuda9CUDAGraph11capture_endEv"),
                                      find<decltype(replay)>("_ZN2at4cuda9CUDAGraph6replayEv"),
                                      find<decltype(pool)>("_ZN2at4cuda9CUDAGraph4poolEv")};
        return graph;
    }
};

// Launches go to another stream than the default one, which cannot be captured, until the scope ends.
class SideStream {
    c10::impl::VirtualGuardImpl guard{c10::kCUDA};
    c10::Stream before;

public:
    explicit SideStream(c10::Device device) : before(guard.getStream(device)) {
        guard.synchronizeStream(before);
        guard.exchangeStream(guard.getStreamFromGlobalPool(device));
    }
    ~SideStream() { guard.exchangeStream(before); }
};

} // namespace

struct ct_graph_impl {
    // The class has some 150 bytes.
    alignas(16) unsigned char storage[1024];
    ct_graph_impl() { GraphClass::get().construct(storage, false); }
    ~ct_graph_impl() { GraphClass::get().destruct(storage); }
    ct_graph_impl(const ct_graph_impl &) = delete;
};

extern "C" {

int ct_event_record(int device_index, ct_event *out, ct_message *error) {
    return guarded(error, [&] {
        const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
        const auto index = static_cast<c10::DeviceIndex>(device_index);
        auto made = std::make_unique<ct_event_impl>(ct_event_impl{nullptr, index});
        guard.record(&made->event, guard.getStream(c10::Device(c10::kCUDA, index)), index, c10::EventFlag::PYTORCH_DEFAULT);
        *out = made.release();
    });
}

int ct_event_synchronize(ct_event event, ct_message *error) {
    return guarded(error, [&] { c10::impl::VirtualGuardImpl(c10::kCUDA).synchronizeEvent(event->event); });
}

void ct_event_free(ct_event event) {
    c10::impl::VirtualGuardImpl(c10::kCUDA).destroyEvent(event->event, event->device);
    delete event;
}

int ct_graph_capture(int device_index, ct_graph pool_of, ct_graph_body body, void *context, ct_graph *out, ct_message *error) {
    int status = 0;
    ct_message message = nullptr;
    const int captured = guarded(error, [&] {
        const auto &graph = GraphClass::get();
        auto made = std::make_unique<ct_graph_impl>();
        const SideStream scope(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device_index)));
        graph.begin(made->storage, pool_of ? graph.pool(pool_of->storage) : Pool{0, 0}, 1 /* only this thread's calls */);
        status = body(context, &message);
        try {
            graph.end(made->storage);
        } catch (...) {
            // After a failure of the body the capture is void; what the body said is the cause.
            if (status == 0) throw;
        }
        if (status == 0) *out = made.release();
    });
    if (status != 0) {
        if (captured != 0) free(*error);
        *error = message;
        return -1;
    }
    return captured;
}

int ct_graph_replay(ct_graph graph, ct_message *error) {
    return guarded(error, [&] { GraphClass::get().replay(graph->storage); });
}

void ct_graph_free(ct_graph graph) { delete graph; }

} // extern "C"
