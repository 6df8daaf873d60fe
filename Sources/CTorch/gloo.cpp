// Groups over Gloo, which libtorch_cpu holds.
#include "group.hpp"
#include "shim.hpp"

#include <condition_variable>
#include <mutex>
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

using namespace ct;

namespace ct {
c10::intrusive_ptr<c10d::Store> store_of(ct_store store);
} // namespace ct

namespace {

// c10d's flight recorder writes to a map before it takes its lock, so that groups of several threads corrupt it. We have a record of
// our own; a size of zero turns it off, unless somebody has asked for it.
void turn_flight_recorder_off() {
    static const bool done = [] {
        setenv("TORCH_FR_BUFFER_SIZE", "0", 0);
        return true;
    }();
    (void)done;
}

using Work = c10::intrusive_ptr<c10d::Work>;

// Waits of a group, which `abort` ends. Gloo's own waits can only be ended by their timeout.
struct Waits {
    std::mutex mutex;
    std::condition_variable changed;
    bool aborted = false;
    // Sends and receives under way, which have a way of their own to be ended.
    std::vector<c10::weak_intrusive_ptr<c10d::Work>> messages;

    void abort() {
        const std::lock_guard lock(mutex);
        aborted = true;
        for (auto &weak : messages)
            if (auto work = weak.lock()) work->abort();
        messages.clear();
        changed.notify_all();
    }
    void add(const Work &message) {
        const std::lock_guard lock(mutex);
        std::erase_if(messages, [](const auto &known) { return known.expired(); });
        messages.emplace_back(message);
    }
};

class GlooPending : public Pending {
    // Operations that run on Gloo's threads and have not ended.
    struct Running {
        std::shared_ptr<Waits> waits;
        std::atomic<int> count{0};
    };
    std::vector<Work> works;
    Group::Tensors held;
    std::function<void()> after;
    std::shared_ptr<Running> running = std::make_shared<Running>();
    bool are_messages;

  public:
    GlooPending(std::shared_ptr<Waits> waits, std::vector<Work> all, Group::Tensors held, std::function<void()> after = {},
                bool are_messages = false)
        : works(std::move(all)), held(std::move(held)), after(std::move(after)), are_messages(are_messages) {
        running->waits = std::move(waits);
        running->count = static_cast<int>(works.size());
        for (auto &work : works) {
            if (are_messages) {
                running->waits->add(work);
                continue;
            }
            work->getFuture()->addCallback([running = running](c10::ivalue::Future &) {
                const std::lock_guard lock(running->waits->mutex);
                --running->count;
                running->waits->changed.notify_all();
            });
        }
    }

    void wait() override {
        if (!are_messages) {
            std::unique_lock lock(running->waits->mutex);
            running->waits->changed.wait(lock, [&] { return running->count == 0 || running->waits->aborted; });
            TORCH_CHECK(running->count == 0, "the group was ended");
        }
        for (auto &work : works) TORCH_CHECK(work->wait(), "the group was ended");
        works.clear();
        if (after) std::exchange(after, {})();
    }

    bool done() override {
        if (!are_messages && running->count > 0) return false;
        for (auto &work : works)
            if (!work->isCompleted()) return false;
        wait();
        return true;
    }

    std::function<bool()> probe() override {
        if (are_messages) return {};
        return [running = running] { return running->count == 0; };
    }
};

// Gloo reduces neither means nor, for whole numbers of some types, at all: means are sums divided at the end.
c10d::ReduceOp::RedOpType operation(ct_merge reduction) {
    switch (reduction) {
    case CT_MERGE_MAX: return c10d::ReduceOp::MAX;
    case CT_MERGE_MIN: return c10d::ReduceOp::MIN;
    default: return c10d::ReduceOp::SUM;
    }
}

class GlooGroup : public Group {
    c10::intrusive_ptr<c10d::Backend> backend;
    std::shared_ptr<Waits> waits = std::make_shared<Waits>();
    // Numbers the messages between each two ranks; Gloo matches them by tag.
    std::vector<int> sent, received;

    std::function<void()> divide(const Tensors &tensors, ct_merge reduction) const {
        if (reduction != CT_MERGE_MEAN) return {};
        return [tensors, size = size] {
            at::NoGradGuard no_grad;
            for (auto tensor : tensors) tensor.div_(size);
        };
    }

  public:
    GlooGroup(c10::intrusive_ptr<c10d::Backend> backend, int rank, int size)
        : Group(rank, size), backend(std::move(backend)), sent(size), received(size) {}
    ~GlooGroup() override {
        // Its destructor waits for its threads, and they for ranks that will not come.
        if (waits->aborted) (void)backend.release();
    }

    PendingPointer all_reduce(Tensors tensors, ct_merge reduction) override {
        std::vector<Work> works;
        c10d::AllreduceOptions options;
        options.reduceOp = operation(reduction);
        for (auto &tensor : tensors) {
            Tensors one{tensor.view(-1)};
            works.push_back(backend->allreduce(one, options));
        }
        auto after = divide(tensors, reduction);
        return std::make_unique<GlooPending>(waits, std::move(works), std::move(tensors), std::move(after));
    }

    PendingPointer all_gather(Tensors inputs, Tensors outputs) override {
        std::vector<Work> works;
        for (size_t i = 0; i < inputs.size(); ++i) {
            auto from = inputs[i].view(-1), to = outputs[i].view(-1);
            if (from.numel() > 0) works.push_back(backend->_allgather_base(to, from));
        }
        inputs.insert(inputs.end(), outputs.begin(), outputs.end());
        return std::make_unique<GlooPending>(waits, std::move(works), std::move(inputs));
    }

    PendingPointer reduce_scatter(Tensors inputs, Tensors outputs, ct_merge reduction) override {
        // As Gloo's own in libtorch, which cannot be waited for without blocking: all of it reduced everywhere.
        std::vector<Work> works;
        Tensors wholes;
        c10d::AllreduceOptions options;
        options.reduceOp = operation(reduction);
        for (auto &input : inputs) {
            wholes.push_back(input.view(-1).clone());
            Tensors one{wholes.back()};
            if (input.numel() > 0) works.push_back(backend->allreduce(one, options));
        }
        auto after = [wholes, outputs, rank = rank, division = divide(outputs, reduction)] {
            at::NoGradGuard no_grad;
            for (size_t i = 0; i < outputs.size(); ++i) {
                const auto count = outputs[i].numel();
                outputs[i].view(-1).copy_(wholes[i].narrow(0, rank * count, count));
            }
            if (division) division();
        };
        inputs.insert(inputs.end(), outputs.begin(), outputs.end());
        return std::make_unique<GlooPending>(waits, std::move(works), std::move(inputs), std::move(after));
    }

    PendingPointer broadcast(Tensors tensors, int root) override {
        std::vector<Work> works;
        c10d::BroadcastOptions options;
        options.rootRank = root;
        for (auto &tensor : tensors) {
            if (tensor.numel() == 0) continue;
            Tensors one{tensor.view(-1)};
            works.push_back(backend->broadcast(one, options));
        }
        return std::make_unique<GlooPending>(waits, std::move(works), std::move(tensors));
    }

    PendingPointer all_to_all(at::Tensor input, at::Tensor output, std::vector<int64_t> input_rows,
                              std::vector<int64_t> output_rows) override {
        std::vector<Work> works{backend->alltoall_base(output, input, output_rows, input_rows)};
        return std::make_unique<GlooPending>(waits, std::move(works), Tensors{input, output});
    }

    PendingPointer exchange(std::vector<Message> sends, std::vector<Message> receives) override {
        std::vector<Work> works;
        Tensors held;
        for (auto &message : receives) {
            Tensors one{message.tensor.view(-1)};
            works.push_back(backend->recv(one, message.peer, received[message.peer]++));
            held.push_back(message.tensor);
        }
        for (auto &message : sends) {
            Tensors one{message.tensor.view(-1)};
            works.push_back(backend->send(one, message.peer, sent[message.peer]++));
            held.push_back(message.tensor);
        }
        return std::make_unique<GlooPending>(waits, std::move(works), std::move(held), std::function<void()>(), true);
    }

    PendingPointer start_barrier() override { return std::make_unique<GlooPending>(waits, std::vector<Work>{backend->barrier()}, Tensors{}); }
    void abort() override { waits->abort(); }
};

} // namespace

extern "C" {

int ct_group_gloo(ct_store store, const char *name, const char *host, int rank, int size, int64_t timeout_ms, int64_t wait_ms,
                  ct_group *out, ct_message *error) {
    return guarded(error, [&] {
        turn_flight_recorder_off();
        TORCH_CHECK(size > 0 && rank >= 0 && rank < size && timeout_ms > 0, "group ", name, ": rank ", rank, " of ", size,
                    ", timeout ", timeout_ms, " ms");
        auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host, /*lazyInit=*/false));
        auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>(name, store_of(store)),
                                                                   rank, size, options);
        if (wait_ms > 0) backend->setTimeout(std::chrono::milliseconds(wait_ms));
        *out = new ct_group_impl{std::make_shared<GlooGroup>(backend, rank, size)};
    });
}

} // extern "C"
