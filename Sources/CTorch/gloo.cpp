// Groups over Gloo, which libtorch_cpu holds.
#include "group.hpp"
#include "shim.hpp"

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

using namespace ct;

namespace ct {
c10::intrusive_ptr<c10d::Store> store_of(ct_store store);
} // namespace ct

namespace {

using Work = c10::intrusive_ptr<c10d::Work>;

class GlooPending : public Pending {
    std::vector<Work> works;
    Group::Tensors held;
    std::function<void()> after;

  public:
    GlooPending(std::vector<Work> works, Group::Tensors held, std::function<void()> after = {})
        : works(std::move(works)), held(std::move(held)), after(std::move(after)) {}
    void wait() override {
        for (auto &work : works) work->wait();
        works.clear();
        if (after) std::exchange(after, {})();
    }
    bool done() override {
        for (auto &work : works)
            if (!work->isCompleted()) return false;
        wait();
        return true;
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

    PendingPointer all_reduce(Tensors tensors, ct_merge reduction) override {
        std::vector<Work> works;
        c10d::AllreduceOptions options;
        options.reduceOp = operation(reduction);
        for (auto &tensor : tensors) {
            Tensors one{tensor.view(-1)};
            works.push_back(backend->allreduce(one, options));
        }
        auto after = divide(tensors, reduction);
        return std::make_unique<GlooPending>(std::move(works), std::move(tensors), std::move(after));
    }

    PendingPointer all_gather(Tensors inputs, Tensors outputs) override {
        std::vector<Work> works;
        for (size_t i = 0; i < inputs.size(); ++i) {
            auto from = inputs[i].view(-1), to = outputs[i].view(-1);
            if (from.numel() > 0) works.push_back(backend->_allgather_base(to, from));
        }
        inputs.insert(inputs.end(), outputs.begin(), outputs.end());
        return std::make_unique<GlooPending>(std::move(works), std::move(inputs));
    }

    PendingPointer reduce_scatter(Tensors inputs, Tensors outputs, ct_merge reduction) override {
        std::vector<Work> works;
        c10d::ReduceScatterOptions options;
        options.reduceOp = operation(reduction);
        for (size_t i = 0; i < inputs.size(); ++i) {
            auto from = inputs[i].view(-1), to = outputs[i].view(-1);
            if (from.numel() > 0) works.push_back(backend->_reduce_scatter_base(to, from, options));
        }
        auto after = divide(outputs, reduction);
        inputs.insert(inputs.end(), outputs.begin(), outputs.end());
        return std::make_unique<GlooPending>(std::move(works), std::move(inputs), std::move(after));
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
        return std::make_unique<GlooPending>(std::move(works), std::move(tensors));
    }

    PendingPointer all_to_all(at::Tensor input, at::Tensor output, std::vector<int64_t> input_rows,
                              std::vector<int64_t> output_rows) override {
        std::vector<Work> works{backend->alltoall_base(output, input, output_rows, input_rows)};
        return std::make_unique<GlooPending>(std::move(works), Tensors{input, output});
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
        return std::make_unique<GlooPending>(std::move(works), std::move(held));
    }

    void barrier() override { backend->barrier()->wait(); }
    void abort() override { backend->abort(); }
};

} // namespace

extern "C" {

int ct_group_gloo(ct_store store, const char *name, const char *host, int rank, int size, int64_t timeout_ms, ct_group *out,
                  ct_message *error) {
    return guarded(error, [&] {
        TORCH_CHECK(size > 0 && rank >= 0 && rank < size && timeout_ms > 0, "group ", name, ": rank ", rank, " of ", size,
                    ", timeout ", timeout_ms, " ms");
        auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host, /*lazyInit=*/false));
        auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>(name, store_of(store)),
                                                                   rank, size, options);
        *out = new ct_group_impl{std::make_shared<GlooGroup>(backend, rank, size)};
    });
}

} // extern "C"
