// The board on which ranks show what they do, and the watch that each keeps over the others.
#include "watch.hpp"
#include "shim.hpp"

#include "ctorch_ranks.h"
#include <cinttypes>
#include <cstdarg>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

using namespace ct;

namespace ct {
namespace {

int64_t now_ms() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<int64_t>(time.tv_sec) * 1000 + time.tv_nsec / 1'000'000;
}

__attribute__((format(printf, 1, 2))) std::string format(const char *pattern, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, pattern);
    vsnprintf(text, sizeof text, pattern, arguments);
    va_end(arguments);
    return text;
}

std::string seconds(int64_t ms) { return format(ms < 10'000 ? "%.2f s" : "%.0f s", static_cast<double>(ms) / 1000); }

template <size_t count> void set(char (&field)[count], const std::string &text) {
    // Not in the middle of a UTF-8 character.
    size_t length = std::min(text.size(), count - 1);
    while (length < text.size() && length > 0 && (text[length] & 0xC0) == 0x80) --length;
    memcpy(field, text.data(), length);
    field[length] = 0;
}

// What the kernel says of a process: its state's letter (0: there is none) and when it started.
struct ProcessFacts {
    char state = 0;
    uint64_t start = 0;

    static ProcessFacts of(int pid) {
        ProcessFacts facts;
        FILE *file = fopen(format("/proc/%d/stat", pid).c_str(), "r");
        if (!file) return facts;
        char line[1024] = {0};
        const size_t count = fread(line, 1, sizeof line - 1, file);
        fclose(file);
        line[count] = 0;
        // The name, in brackets, may hold anything.
        if (const char *rest = strrchr(line, ')')) {
            unsigned long long start = 0;
            char state = 0;
            if (sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state, &start) == 2) {
                facts.state = state;
                facts.start = start;
            }
        }
        return facts;
    }
    bool is_dead() const { return state == 0 || state == 'Z' || state == 'X'; }
};

// Of a process of another host: what that one told.
ProcessFacts facts_of(const RankSlot &slot) {
    if (const int told = slot.told) return {static_cast<char>(told), slot.process_start};
    return slot.pid == getpid() ? ProcessFacts{'R', slot.process_start} : ProcessFacts::of(slot.pid);
}

// As `process 12`, and its host where there are several.
std::string process(const RankSlot &slot) {
    return slot.node[0] ? format("process %d on %.63s", slot.pid.load(), slot.node) : format("process %d", slot.pid.load());
}

int64_t look_interval(int64_t deadline_ms) { return std::clamp<int64_t>(deadline_ms / 8, 10, 250); }

// After this process itself stood still, the others get their time anew.
class Stillness {
    const int64_t deadline_ms;
    int64_t last = now_ms(), until = 0;

  public:
    explicit Stillness(int64_t deadline_ms) : deadline_ms(deadline_ms) {}
    // To be asked at every look.
    bool blinds(int64_t now) {
        if (now - last > deadline_ms / 2) until = now + deadline_ms;
        last = now;
        return now < until;
    }
};

} // namespace

// MARK: - Board

Board::Board(const std::string &path, int ranks, bool creates) : bytes(sizeof(RankSlot) * ranks), ranks(ranks) {
    static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<int32_t>::is_always_lock_free);
    TORCH_CHECK(ranks > 0, "a board for ", ranks, " ranks");
    int file = -1;
    if (!path.empty()) {
        file = open(path.c_str(), creates ? O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0600);
        struct stat facts = {};
        bool fits = file >= 0 && (!creates || ftruncate(file, static_cast<off_t>(bytes)) == 0) && fstat(file, &facts) == 0;
        if (fits && static_cast<size_t>(facts.st_size) != bytes) {
            fits = false;
            errno = EINVAL;
        }
        if (!fits) {
            const std::string reason = strerror(errno);
            if (file >= 0) close(file);
            TORCH_CHECK(false, "the ranks' board ", path, ": ", reason);
        }
    }
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
    const std::string reason = strerror(errno);
    if (file >= 0) close(file);
    TORCH_CHECK(memory != MAP_FAILED, "the ranks' board ", path, " cannot be mapped: ", reason);
}
Board::~Board() { munmap(memory, bytes); }

void Board::place(int rank, const std::string &node, bool elsewhere) {
    auto &slot = this->slot(rank);
    set(slot.node, node);
    slot.told = elsewhere ? '?' : 0;
}

bool Board::is_alive(int rank, int64_t within_ms) const {
    const auto &slot = this->slot(rank);
    if (slot.state == RankSlot::absent) return true;
    if (slot.state != RankSlot::working || now_ms() - slot.beat > within_ms) return false;
    const auto facts = facts_of(slot);
    return !facts.is_dead() && facts.start == slot.process_start;
}

void Board::lose(int rank) {
    auto &slot = this->slot(rank);
    if (slot.told) slot.told = 'X';
}

void Board::keep(int rank) {
    auto &slot = this->slot(rank);
    if (slot.told) slot.beat = now_ms();
}

// MARK: - Reports

namespace {

constexpr uint32_t report_mark = 0x46444731;

class ReportWriter {
    std::vector<uint8_t> bytes;

  public:
    template <class Value> void add(Value value) {
        const auto *start = reinterpret_cast<const uint8_t *>(&value);
        bytes.insert(bytes.end(), start, start + sizeof value);
    }
    void text(const char *text) {
        add(static_cast<uint16_t>(strlen(text)));
        bytes.insert(bytes.end(), text, text + strlen(text));
    }
    std::vector<uint8_t> take() { return std::move(bytes); }
};

class ReportReader {
    const uint8_t *at, *const end;

  public:
    ReportReader(const uint8_t *bytes, size_t count) : at(bytes), end(bytes + count) {}
    template <class Value> Value value() {
        Value value;
        TORCH_CHECK(static_cast<size_t>(end - at) >= sizeof value, "a rank's report is cut off");
        memcpy(&value, at, sizeof value);
        at += sizeof value;
        return value;
    }
    template <size_t capacity> void text(char (&field)[capacity]) {
        const size_t length = value<uint16_t>();
        TORCH_CHECK(static_cast<size_t>(end - at) >= length && length < capacity, "a rank's report has a text of ", length, " bytes");
        set(field, std::string(reinterpret_cast<const char *>(at), length));
        at += length;
    }
    void finish() const { TORCH_CHECK(at == end, "a rank's report has bytes too many"); }
};

} // namespace

std::vector<uint8_t> Board::report(int rank) const {
    const auto &slot = this->slot(rank);
    // The process first: one that says why it ends does so before it ends.
    auto facts = facts_of(slot);
    if (facts.start != slot.process_start) facts.state = 'X';
    const int32_t state = slot.state;
    const auto text = read(rank);
    const int64_t now = now_ms();
    ReportWriter out;
    out.add(report_mark);
    out.add(state);
    out.add(static_cast<int32_t>(facts.is_dead() ? 'X' : facts.state));
    out.add(slot.pid.load());
    out.add(slot.process_start.load());
    out.add(now - slot.beat);
    out.add(now - slot.active);
    out.add(text.step);
    for (const char *part : {text.phase, text.unit, text.last, text.failure}) out.text(part);
    const int32_t groups = slot.group_count;
    out.add(groups);
    for (int place = 0; place < groups; ++place) {
        out.add(slot.groups[place].key.load());
        out.add(slot.groups[place].begun.load());
    }
    return out.take();
}

void Board::take(int rank, const uint8_t *bytes, size_t count) {
    auto &slot = this->slot(rank);
    TORCH_CHECK(slot.told, "a report of rank ", rank, ", which is of this host");
    ReportReader in(bytes, count);
    TORCH_CHECK(in.value<uint32_t>() == report_mark, "what came is no rank's report");
    const auto state = in.value<int32_t>();
    const auto letter = in.value<int32_t>();
    TORCH_CHECK(state >= RankSlot::absent && state <= RankSlot::failed && letter > 0 && letter < 128, "a rank's report has state ", state);
    const auto pid = in.value<int32_t>();
    const auto process_start = in.value<uint64_t>();
    const auto beat = in.value<int64_t>(), active = in.value<int64_t>();
    RankSlot::Text text = {};
    text.step = in.value<int64_t>();
    in.text(text.phase);
    in.text(text.unit);
    in.text(text.last);
    in.text(text.failure);
    const auto groups = in.value<int32_t>();
    TORCH_CHECK(groups >= 0 && groups <= RankSlot::group_capacity, "a rank's report has ", groups, " groups");
    std::pair<uint64_t, uint64_t> counts[RankSlot::group_capacity];
    for (int place = 0; place < groups; ++place) {
        counts[place].first = in.value<uint64_t>();
        counts[place].second = in.value<uint64_t>();
    }
    in.finish();

    const int64_t now = now_ms(), most = int64_t{1} << 40;
    slot.version.fetch_add(1, std::memory_order_acq_rel);
    slot.text = text;
    slot.version.fetch_add(1, std::memory_order_release);
    for (int place = 0; place < groups; ++place) {
        slot.groups[place].key = counts[place].first;
        slot.groups[place].begun = counts[place].second;
    }
    slot.group_count = groups;
    slot.pid = pid;
    slot.process_start = process_start;
    slot.beat = now - std::clamp<int64_t>(beat, 0, most);
    slot.active = now - std::clamp<int64_t>(active, 0, most);
    slot.state = state;
    slot.told = letter;
}

// MARK: - Publishing

Watch::Watch(std::shared_ptr<Board> board, int rank, WatchOptions options)
    : options(options), board(std::move(board)), rank(rank) {
    TORCH_CHECK(rank >= 0 && rank < this->board->ranks && options.deadline_ms > 0, "rank ", rank, " of ", this->board->ranks,
                ", deadline ", options.deadline_ms, " ms");
    write([](RankSlot::Text &text) {
        text = {};
        text.step = -1;
        set(text.phase, "start");
        set(text.last, "started");
    });
    own().pid = getpid();
    own().process_start = ProcessFacts::of(getpid()).start;
    own().beat = own().active = now_ms();
    own().state = RankSlot::working;
    looked_at = now_ms();
    thread = std::thread([this] { run(); });
    guardian = std::thread([this] { guard(); });
}

Watch::~Watch() {
    {
        const std::lock_guard lock(mutex);
        stops = true;
    }
    wakes.notify_all();
    thread.join();
    // The guardian outlives them: where a group cannot be ended, it ends the process.
    for (auto &one : aborting) one.join();
    is_over = true;
    guardian.join();
}

void Watch::write(const std::function<void(RankSlot::Text &)> &body) {
    const std::lock_guard lock(mutex);
    auto &slot = own();
    slot.version.fetch_add(1, std::memory_order_acq_rel);
    body(slot.text);
    slot.version.fetch_add(1, std::memory_order_release);
    slot.active.store(now_ms(), std::memory_order_release);
}

RankSlot::Text Board::read(int rank) const {
    auto &slot = this->slot(rank);
    RankSlot::Text text;
    // A rank that was killed while it wrote leaves an odd version for ever: its text is then taken as it is.
    for (int tries = 0; tries < 1000; ++tries) {
        const auto before = slot.version.load(std::memory_order_acquire);
        memcpy(&text, &slot.text, sizeof text);
        std::atomic_thread_fence(std::memory_order_acquire);
        if (before % 2 == 0 && before == slot.version.load(std::memory_order_relaxed)) break;
    }
    text.phase[sizeof text.phase - 1] = text.unit[sizeof text.unit - 1] = text.last[sizeof text.last - 1] =
        text.failure[sizeof text.failure - 1] = 0;
    return text;
}

void Watch::progress(int64_t step, const char *phase, const char *unit) {
    write([&](RankSlot::Text &text) {
        text.step = step;
        set(text.phase, phase);
        set(text.unit, unit);
    });
}

void Watch::tick() { own().active.store(now_ms(), std::memory_order_release); }

void Watch::leave(const char *failure) {
    if (failure) write([&](RankSlot::Text &text) { set(text.failure, failure); });
    own().state = failure ? RankSlot::failed : RankSlot::left;
}

void Watch::add(std::weak_ptr<Group> group) {
    const std::lock_guard lock(mutex);
    std::erase_if(groups, [](const auto &known) { return known.expired(); });
    groups.push_back(std::move(group));
}

Watch::TicketPointer Watch::begin(const std::string &group, uint64_t key, const std::vector<int> &ranks, std::string operation,
                                  bool patient) {
    check();
    auto &slot = own();
    int place = 0;
    const int known = slot.group_count;
    while (place < known && slot.groups[place].key != key) ++place;
    uint64_t number = 0;
    if (place < RankSlot::group_capacity) {
        number = slot.groups[place].begun + 1;
        if (place == known) slot.groups[place].key = key;
        slot.groups[place].begun = number;
        if (place == known) slot.group_count = known + 1;
    }
    auto ticket = std::make_shared<Ticket>(Ticket{std::move(operation), group, ranks, key, number, now_ms()});
    ticket->patient = patient;
    write([&](RankSlot::Text &text) {
        set(text.last, format("began %s, number %" PRIu64 " in group '%s'", ticket->operation.c_str(), number, group.c_str()));
    });
    const std::lock_guard lock(mutex);
    tickets.push_back(ticket);
    return ticket;
}

void Watch::follow(const TicketPointer &ticket, std::function<bool()> finished) {
    const std::lock_guard lock(mutex);
    ticket->finished = std::move(finished);
}

void Watch::end(const TicketPointer &ticket) {
    {
        const std::lock_guard lock(mutex);
        const auto found = std::find(tickets.begin(), tickets.end(), ticket);
        if (found == tickets.end()) return;
        tickets.erase(found);
    }
    write([&](RankSlot::Text &text) {
        set(text.last,
            format("finished %s, number %" PRIu64 " in group '%s'", ticket->operation.c_str(), ticket->number, ticket->group.c_str()));
    });
}

// MARK: - Seeing

std::string Watch::where(const RankSlot::Text &text) const {
    std::string place = text.step < 0 ? "before the first step" : format("at step %" PRId64, text.step);
    if (text.phase[0]) place += format(", phase %s", text.phase);
    if (text.unit[0]) place += format(", %s", text.unit);
    return place;
}

std::string Watch::describe(int rank) const {
    const auto text = read(rank);
    const auto &slot = board->slot(rank);
    if (slot.state == RankSlot::absent) return "it has not started";
    return format("last, %s ago %s: ", seconds(now_ms() - slot.active).c_str(), where(text).c_str()) + text.last;
}

int64_t Watch::idle_ms() {
    const std::lock_guard lock(mutex);
    for (const auto &ticket : tickets)
        if (!ticket->finished_now()) return 0;
    return now_ms() - board->slot(rank).active;
}

// Ranks that are dead or show no life, one a line; where there are none, those that failed and said why.
std::string Watch::lost(int64_t now) const {
    std::string primary, secondary;
    for (int other = 0; other < board->ranks; ++other) {
        if (other == rank) continue;
        const auto &slot = board->slot(other);
        if (slot.state == RankSlot::failed)
            secondary += format("\n  rank %d failed %s: ", other, where(read(other)).c_str()) + read(other).failure;
        if (slot.state != RankSlot::working) continue;
        const auto facts = facts_of(slot);
        const int64_t silent = now - slot.beat;
        if (facts.is_dead() || facts.start != slot.process_start) {
            // It may have said why between the two looks.
            if (slot.state == RankSlot::working)
                primary += format("\n  rank %d (%s) is dead; ", other, process(slot).c_str()) + describe(other);
        } else if (silent > options.deadline_ms) {
            primary += format("\n  rank %d (%s) %s and has shown no life for %s; ", other, process(slot).c_str(),
                              facts.state == 'T' || facts.state == 't' ? "is stopped" : slot.told ? "hangs or its host is lost" : "hangs",
                              seconds(silent).c_str()) +
                       describe(other);
        }
    }
    return primary.empty() ? secondary : primary;
}

std::string Watch::overdue(const Ticket &ticket, int64_t now) {
    int64_t since = ticket.begun;
    std::string missing, names;
    for (int other : ticket.ranks) {
        if (other == rank) continue;
        const auto &slot = board->slot(other);
        uint64_t begun = ticket.number;
        const int known = slot.group_count;
        bool found = known == RankSlot::group_capacity;
        for (int place = 0; place < known && !found; ++place)
            if (slot.groups[place].key == ticket.key) {
                begun = slot.groups[place].begun;
                found = true;
            }
        // A rank that works is not late, however long its share takes; nor does one hang that has arrived just now.
        since = std::max<int64_t>(since, slot.active);
        if (found && begun >= ticket.number) continue;
        const char *state = slot.state == RankSlot::left ? "has ended" : slot.state == RankSlot::absent ? "has not started" : "has not arrived";
        names += (names.empty() ? "" : ", ") + std::to_string(other);
        missing += format("\n  rank %d (%s) %s; ", other, process(slot).c_str(), state) + describe(other);
    }
    if (now - since <= options.deadline_ms) return {};
    std::string message = format("%s, number %" PRIu64 " in group '%s', begun %s ago, is past its deadline of %s", ticket.operation.c_str(),
                                 ticket.number, ticket.group.c_str(), seconds(now - ticket.begun).c_str(),
                                 seconds(options.deadline_ms).c_str());
    return message + (missing.empty() ? ", though every rank has arrived: the connection between them hangs" : missing);
}

std::string Watch::trouble(int64_t now) {
    std::string what = lost(now);
    if (!what.empty()) {
        std::string waiting;
        for (const auto &ticket : tickets)
            if (!ticket->finished_now())
                waiting = format("; this rank waits in %s, number %" PRIu64 " in group '%s'", ticket->operation.c_str(), ticket->number,
                                 ticket->group.c_str());
        return "a rank is lost" + waiting + what;
    }
    for (auto ticket = tickets.begin(); ticket != tickets.end();) {
        if ((*ticket)->finished_now()) {
            ticket = tickets.erase(ticket);
            continue;
        }
        if (!(*ticket)->patient) what = overdue(**ticket, now);
        if (!what.empty()) return what;
        ++ticket;
    }
    for (const auto &weak : groups)
        if (auto group = weak.lock()) {
            what = group->problem();
            if (!what.empty()) return what;
        }
    return {};
}

void Watch::fail(std::string message) {
    // The mark by which the caller knows this kind of error.
    failure = format("[rank] rank %d of %d gives up %s: ", rank, board->ranks, where(read(rank)).c_str()) + message;
    has_failed = true;
    std::vector<std::shared_ptr<Group>> alive;
    for (const auto &group : groups)
        if (auto strong = group.lock()) alive.push_back(std::move(strong));
    // Each on its own: a communicator that is ended frees memory, which waits for the kernels of those that are not ended yet.
    for (auto &group : alive)
        aborting.emplace_back([group = std::move(group)] {
            try {
                group->abort();
            } catch (const std::exception &error) {
                fprintf(stderr, "a group could not be ended: %s\n", error.what());
            }
        });
}

void Watch::run() {
    const int64_t interval = look_interval(options.deadline_ms);
    Stillness stillness(options.deadline_ms);
    std::unique_lock lock(mutex);
    while (!stops) {
        const int64_t now = now_ms();
        const bool is_blind = stillness.blinds(now);
        if (!failure && !is_blind) {
            if (auto what = trouble(now); !what.empty()) {
                fail(std::move(what));
                failed_at = now;
            }
        }
        looked_at = now_ms();
        wakes.wait_for(lock, std::chrono::milliseconds(interval));
    }
    looked_at = 0;
}

void Watch::end_process(const std::string &message) {
    fprintf(stderr, "error: %s\n", message.c_str() + strlen("[rank] "));
    fflush(stderr);
    own().state = RankSlot::failed;
    _exit(options.exit_code);
}

// Ranks that have done nothing for a whole deadline, one a line.
std::string Watch::silent(int64_t now) const {
    std::string names;
    for (int other = 0; other < board->ranks; ++other) {
        const auto &slot = board->slot(other);
        if (other == rank || slot.state != RankSlot::working || now - slot.active <= options.deadline_ms) continue;
        names += format("\n  rank %d (%s) does nothing; ", other, process(slot).c_str()) + describe(other);
    }
    return names;
}

void Watch::guard() {
    const int64_t interval = look_interval(options.deadline_ms);
    Stillness stillness(options.deadline_ms);
    while (!is_over) {
        const int64_t now = now_ms();
        own().beat = now;
        const bool is_blind = stillness.blinds(now);
        if (options.exit_after_ms > 0 && !is_blind) {
            if (failed_at && now - failed_at > options.exit_after_ms) end_process(*failure);
            // The watch asks the device what has ended; in some calls to it a thread waits for kernels that wait for other ranks.
            const int64_t stuck = looked_at ? now - looked_at : 0;
            if (!failed_at && stuck > options.exit_after_ms) {
                auto what = lost(now);
                if (what.empty() && stuck > options.deadline_ms) what = silent(now);
                if (!what.empty())
                    end_process(format("[rank] rank %d of %d gives up %s: a rank is lost; this rank waits for its device", rank, board->ranks,
                                       where(read(rank)).c_str()) +
                                what);
            }
        }
        usleep(static_cast<useconds_t>(interval * 1000));
    }
}

void Watch::check() {
    if (!has_failed) return;
    const std::lock_guard lock(mutex);
    throw std::runtime_error(*failure);
}

std::string Watch::explain(const Ticket &ticket, const std::string &error) {
    // A connection breaks a moment before the other process is seen to be gone.
    const int64_t limit = now_ms() + std::min<int64_t>(2000, options.deadline_ms);
    while (!has_failed && now_ms() < limit) usleep(10'000);
    if (has_failed) {
        const std::lock_guard lock(mutex);
        return *failure;
    }
    std::string message = format("[rank] rank %d of %d %s: ", rank, board->ranks, where(read(rank)).c_str()) +
                          format("%s, number %" PRIu64 " in group '%s', failed: ", ticket.operation.c_str(), ticket.number,
                                 ticket.group.c_str()) +
                          error;
    for (int other : ticket.ranks)
        if (other != rank) message += format("\n  rank %d: ", other) + describe(other);
    return message;
}

// MARK: - Groups

namespace {

class WatchedPending : public Pending {
    std::shared_ptr<Watch> watch;
    Watch::TicketPointer ticket;
    PendingPointer inner;

  public:
    WatchedPending(std::shared_ptr<Watch> watch, Watch::TicketPointer ticket, PendingPointer inner)
        : watch(std::move(watch)), ticket(std::move(ticket)), inner(std::move(inner)) {}
    ~WatchedPending() override {
        if (!ticket->finished) watch->end(ticket);
    }
    void wait() override {
        explained([&] { inner->wait(); });
        if (!ticket->finished || ticket->finished()) watch->end(ticket);
    }
    bool done() override {
        bool done = false;
        explained([&] { done = inner->done(); });
        if (done) watch->end(ticket);
        return done;
    }

  private:
    void explained(const std::function<void()> &body) {
        try {
            body();
        } catch (const std::exception &error) {
            throw std::runtime_error(watch->explain(*ticket, error.what()));
        }
    }
};

class WatchedGroup : public Group {
    std::shared_ptr<Group> inner;
    std::shared_ptr<Watch> watch;
    std::string name;
    std::vector<int> ranks;
    uint64_t key = 0xcbf29ce484222325ull;
    bool patient;

    template <class Body> PendingPointer run(const char *operation, const Tensors &tensors, Body &&body) {
        // While a graph is captured nothing runs, and events must be left alone.
        if (inner->is_captured()) return body();
        int64_t bytes = 0;
        for (const auto &tensor : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
        auto ticket = watch->begin(name, key, ranks,
                                   format("%s of %zu tensor%s (%.*f MB)", operation, tensors.size(), tensors.size() == 1 ? "" : "s",
                                          bytes < 10'000'000 ? 3 : 0, static_cast<double>(bytes) / 1e6),
                                   patient);
        try {
            auto pending = body();
            watch->follow(ticket, pending->probe());
            return std::make_unique<WatchedPending>(watch, std::move(ticket), std::move(pending));
        } catch (const std::exception &error) {
            const auto message = watch->explain(*ticket, error.what());
            watch->end(ticket);
            throw std::runtime_error(message);
        }
    }

  public:
    WatchedGroup(std::shared_ptr<Group> inner, std::shared_ptr<Watch> watch, std::string name, std::vector<int> ranks, bool patient)
        : Group(inner->rank, inner->size), inner(std::move(inner)), watch(std::move(watch)), name(std::move(name)),
          ranks(std::move(ranks)), patient(patient) {
        for (unsigned char c : this->name) key = (key ^ c) * 0x100000001b3ull;
    }

    PendingPointer all_reduce(Tensors tensors, ct_merge reduction) override {
        return run("all-reduce", tensors, [&] { return inner->all_reduce(tensors, reduction); });
    }
    PendingPointer all_gather(Tensors inputs, Tensors outputs) override {
        return run("all-gather", outputs, [&] { return inner->all_gather(inputs, outputs); });
    }
    PendingPointer reduce_scatter(Tensors inputs, Tensors outputs, ct_merge reduction) override {
        return run("reduce-scatter", inputs, [&] { return inner->reduce_scatter(inputs, outputs, reduction); });
    }
    PendingPointer broadcast(Tensors tensors, int root) override {
        return run("broadcast", tensors, [&] { return inner->broadcast(tensors, root); });
    }
    PendingPointer all_to_all(at::Tensor input, at::Tensor output, std::vector<int64_t> input_rows,
                              std::vector<int64_t> output_rows) override {
        return run("all-to-all", {input}, [&] { return inner->all_to_all(input, output, input_rows, output_rows); });
    }
    PendingPointer exchange(std::vector<Message> sends, std::vector<Message> receives) override {
        Tensors tensors;
        for (const auto &message : sends) tensors.push_back(message.tensor);
        for (const auto &message : receives) tensors.push_back(message.tensor);
        return run("exchange", tensors, [&] { return inner->exchange(sends, receives); });
    }
    PendingPointer start_barrier() override {
        return run("barrier", {}, [&] { return inner->start_barrier(); });
    }
    void abort() override { inner->abort(); }
    std::string problem() override { return inner->problem(); }
    bool is_captured() override { return inner->is_captured(); }
};

} // namespace

std::shared_ptr<Group> watched(std::shared_ptr<Group> group, std::shared_ptr<Watch> watch, std::string name, std::vector<int> ranks,
                               bool patient) {
    watch->add(group);
    return std::make_shared<WatchedGroup>(std::move(group), std::move(watch), std::move(name), std::move(ranks), patient);
}

} // namespace ct

struct ct_board_impl {
    std::shared_ptr<Board> board;
};
struct ct_watch_impl {
    std::shared_ptr<Watch> watch;
};

extern "C" {

int ct_board_create(const char *path, int ranks, ct_board *out, ct_message *error) {
    return guarded(error, [&] { *out = new ct_board_impl{std::make_shared<Board>(path ? path : "", ranks, true)}; });
}
int ct_board_open(const char *path, int ranks, ct_board *out, ct_message *error) {
    return guarded(error, [&] { *out = new ct_board_impl{std::make_shared<Board>(path, ranks, false)}; });
}
void ct_board_free(ct_board board) { delete board; }

static Board &placed(ct_board board, int rank) {
    TORCH_CHECK(rank >= 0 && rank < board->board->ranks, "rank ", rank, " of ", board->board->ranks);
    return *board->board;
}
int ct_board_place(ct_board board, int rank, const char *node, bool elsewhere, ct_message *error) {
    return guarded(error, [&] { placed(board, rank).place(rank, node, elsewhere); });
}
int ct_board_report(ct_board board, int rank, uint8_t *out, size_t capacity, size_t *count, ct_message *error) {
    return guarded(error, [&] {
        const auto bytes = placed(board, rank).report(rank);
        TORCH_CHECK(bytes.size() <= capacity, "a rank's report of ", bytes.size(), " bytes");
        memcpy(out, bytes.data(), bytes.size());
        *count = bytes.size();
    });
}
int ct_board_take(ct_board board, int rank, const uint8_t *bytes, size_t count, ct_message *error) {
    return guarded(error, [&] { placed(board, rank).take(rank, bytes, count); });
}
int ct_board_lose(ct_board board, int rank, ct_message *error) {
    return guarded(error, [&] { placed(board, rank).lose(rank); });
}
int ct_board_keep(ct_board board, int rank, ct_message *error) {
    return guarded(error, [&] { placed(board, rank).keep(rank); });
}
int ct_board_facts(ct_board board, int rank, int64_t within_ms, bool *is_alive, bool *has_ended, ct_message *error) {
    return guarded(error, [&] {
        auto &own = placed(board, rank);
        *is_alive = own.is_alive(rank, within_ms);
        const int state = own.slot(rank).state;
        *has_ended = state == RankSlot::left || state == RankSlot::failed;
    });
}

int ct_watch_start(ct_board board, int rank, int64_t deadline_ms, int64_t exit_after_ms, int exit_code, ct_watch *out,
                   ct_message *error) {
    return guarded(error, [&] {
        *out = new ct_watch_impl{std::make_shared<Watch>(board->board, rank, WatchOptions{deadline_ms, exit_after_ms, exit_code})};
    });
}
void ct_watch_progress(ct_watch watch, int64_t step, const char *phase, const char *unit) {
    watch->watch->progress(step, phase, unit);
}
void ct_watch_tick(ct_watch watch) { watch->watch->tick(); }
int ct_watch_check(ct_watch watch, ct_message *error) {
    return guarded(error, [&] { watch->watch->check(); });
}
void ct_watch_leave(ct_watch watch, const char *failure) { watch->watch->leave(failure); }
int ct_watch_describe(ct_watch watch, int rank, ct_message *out, ct_message *error) {
    return guarded(error, [&] { *out = copy(watch->watch->describe(rank)); });
}
int64_t ct_watch_idle_ms(ct_watch watch) { return watch->watch->idle_ms(); }
void ct_watch_free(ct_watch watch) { delete watch; }

int ct_group_watch(ct_group group, ct_watch watch, const char *name, const int32_t *ranks, bool patient, ct_message *error) {
    return guarded(error, [&] {
        group->group = watched(group->group, watch->watch, name, std::vector<int>(ranks, ranks + group->group->size), patient);
    });
}

} // extern "C"
