#pragma once
// What ranks show one another while they work, and what one of them does when another is late or dead.
#include "group.hpp"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <thread>

namespace ct {

// One rank's place on the board: memory that all ranks of a host map, written by that rank alone. It can be read whatever has
// become of its process. A rank of another host has its place too, filled with what that host reports.
struct RankSlot {
    enum State : int32_t { absent = 0, working = 1, left = 2, failed = 3 };
    static constexpr int group_capacity = 64;

    // Odd while the text below is written.
    std::atomic<uint32_t> version;
    std::atomic<int32_t> state, pid;
    std::atomic<uint64_t> process_start; // in the kernel's ticks: a process id may be given twice
    // Milliseconds of the host's monotonic clock: the last sign of life, and the last thing done.
    std::atomic<int64_t> beat, active;
    struct Text {
        int64_t step;
        char phase[32], unit[64], last[192], failure[512];
    } text;
    // Operations that it began, by group.
    std::atomic<int32_t> group_count;
    struct {
        std::atomic<uint64_t> key, begun;
    } groups[group_capacity];
    // Of a rank on another host: the kernel's letter for its process, as that host told it, '?' before it told any. 0: of this host.
    std::atomic<int32_t> told;
    // The address of its host where ranks are on several; empty else.
    char node[64];
};

class Board {
    void *memory;
    const size_t bytes;

  public:
    const int ranks;
    // In memory of this process (path empty), or in a file that the first rank creates and the others open.
    Board(const std::string &path, int ranks, bool creates);
    ~Board();
    Board(const Board &) = delete;
    RankSlot &slot(int rank) const { return static_cast<RankSlot *>(memory)[rank]; }
    RankSlot::Text read(int rank) const;

    // Says where a rank is, before it starts.
    void place(int rank, const std::string &node, bool elsewhere);
    // What another host must know of a rank of this one, as bytes: times as ages, since clocks differ.
    std::vector<uint8_t> report(int rank) const;
    // Such a report of a rank of another host. Throws where it is none.
    void take(int rank, const uint8_t *bytes, size_t count);
    // A rank of another host is gone, without a last word.
    void lose(int rank);
    // Nothing can be heard of a rank of another host, through no fault of its own: it is not to be taken for lifeless.
    void keep(int rank);
    // Whether a rank of this host works and has shown life within the time.
    bool is_alive(int rank, int64_t within_ms) const;
};

struct WatchOptions {
    int64_t deadline_ms;
    // After trouble was found: how long this process may take to end by itself before it is ended; 0: it never is.
    int64_t exit_after_ms;
    int exit_code;
};

// A rank's own progress, published, and its eye on the others.
class Watch {
  public:
    // An operation that was begun.
    struct Ticket {
        std::string operation, group;
        std::vector<int> ranks;
        uint64_t key, number;
        int64_t begun;
        bool patient = false;
        std::function<bool()> finished; // may be empty: then only its waiter tells
        bool finished_now() const { return finished && finished(); }
    };
    using TicketPointer = std::shared_ptr<Ticket>;

    Watch(std::shared_ptr<Board> board, int rank, WatchOptions options);
    ~Watch();

    void progress(int64_t step, const char *phase, const char *unit);
    // Something was done that no operation shows.
    void tick();
    TicketPointer begin(const std::string &group, uint64_t key, const std::vector<int> &ranks, std::string operation, bool patient);
    // How to tell that it has ended; the watch looks at tickets from its own thread.
    void follow(const TicketPointer &ticket, std::function<bool()> finished);
    void end(const TicketPointer &ticket);
    // Throws what went wrong, if anything has.
    void check();
    // What to say of an operation that ended in an error.
    std::string explain(const Ticket &ticket, const std::string &error);
    void leave(const char *failure);
    std::string describe(int rank) const;
    int64_t idle_ms();

    void add(std::weak_ptr<Group> group);
    const WatchOptions options;

  private:
    const std::shared_ptr<Board> board;
    const int rank;
    std::mutex mutex;
    std::condition_variable wakes;
    bool stops = false;
    std::atomic<bool> is_over{false};
    std::list<TicketPointer> tickets;
    std::vector<std::weak_ptr<Group>> groups;
    std::optional<std::string> failure;
    std::atomic<bool> has_failed{false};
    // When trouble was found, and when the watch last had looked: 0 for never.
    std::atomic<int64_t> failed_at{0}, looked_at{0};
    std::thread thread, guardian;
    std::vector<std::thread> aborting;

    RankSlot &own() const { return board->slot(rank); }
    void write(const std::function<void(RankSlot::Text &)> &body);
    void run();
    // Ends the process where nothing else does: it calls nobody who could wait for a device or for another thread.
    void guard();
    std::string silent(int64_t now) const;
    [[noreturn]] void end_process(const std::string &message);
    // What is wrong now; empty for nothing.
    std::string trouble(int64_t now);
    std::string overdue(const Ticket &ticket, int64_t now);
    std::string lost(int64_t now) const;
    std::string where(const RankSlot::Text &text) const;
    RankSlot::Text read(int rank) const { return board->read(rank); }
    void fail(std::string message);
};

// `group`, with every operation announced to `watch`.
std::shared_ptr<Group> watched(std::shared_ptr<Group> group, std::shared_ptr<Watch> watch, std::string name, std::vector<int> ranks,
                               bool patient);

} // namespace ct
