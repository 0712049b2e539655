// Threads, blocks and the order in which they run. A CUDA thread is a fiber; the threads of all blocks that are on the
// GPU together (one block, a cluster, or the whole grid of a cooperative launch) take turns on one thread of the
// system, and a turn ends where a thread has to wait for others. So a run is a function of its schedule.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.h"

namespace emulator {

using Location = std::source_location;

// Who goes on where several could: the first thread, the last, or one by chance (a seed from 2 on). The blocks that
// are not on the GPU together run one after the other in the same order.
enum Schedule : unsigned { kInOrder = 0, kReversed = 1 };
inline unsigned schedule = kInOrder;

// Which threads could go on.
class Ready {
 public:
  void reset(size_t threads) { words_.assign((threads + 63) / 64, 0); }
  void add(size_t thread) { words_[thread / 64] |= uint64_t(1) << thread % 64; }
  // Takes one out; -1 if there is none.
  int64_t take(std::mt19937& chance) {
    const size_t count = words_.size();
    if (schedule == kInOrder) {
      for (size_t w = 0; w < count; ++w)
        if (words_[w]) return take_at(w, std::countr_zero(words_[w]));
    } else if (schedule == kReversed) {
      for (size_t w = count; w-- > 0;)
        if (words_[w]) return take_at(w, 63 - std::countl_zero(words_[w]));
    } else {
      const size_t start = chance() % count;
      for (size_t k = 0; k < count; ++k) {
        const size_t w = (start + k) % count;
        if (!words_[w]) continue;
        const int turn = int(chance() % 64);  // the first from a bit chosen by chance
        return take_at(w, (std::countr_zero(std::rotr(words_[w], turn)) + turn) % 64);
      }
    }
    return -1;
  }

 private:
  int64_t take_at(size_t word, int bit) {
    words_[word] &= ~(uint64_t(1) << bit);
    return int64_t(word * 64 + size_t(bit));
  }
  std::vector<uint64_t> words_;
};

struct Block;

struct PendingCopy {
  void* to;
  const void* from;
  unsigned char seen[16];  // what was there when the copy was asked for
};

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  unsigned index = 0;          // in its block
  size_t rank = 0;             // among all on the GPU
  const char* waits_for = "";  // what, and where it was asked for
  Location where;
  bool left = false;                                  // the kernel
  std::vector<std::vector<PendingCopy>> copy_groups;  // cp.async: committed, not yet waited for
  std::vector<PendingCopy> open_copies;               // not yet committed
};

// All of `expected` threads have to come before one goes on. They must do so from one line of the source.
struct Barrier {
  explicit Barrier(unsigned threads) : expected(threads) { waiting.reserve(threads); }
  unsigned expected;
  std::vector<size_t> waiting;
  Location first;
  unsigned generation = 0;
  char edges[2];  // for TSan: a thread still leaving one generation sees nothing of the next
};

// The threads of a warp meet here to exchange values: each leaves its own in `in`, the last one computes `out`.
struct Warp {
  static constexpr size_t kSlot = 48;
  Barrier barrier{32};
  const char* operation = "";
  alignas(16) unsigned char in[32][kSlot];
  alignas(16) unsigned char out[32][kSlot];
};

struct Index3 {
  unsigned x = 1, y = 1, z = 1;
};

struct Group;

struct Block {
  Group* group;
  Index3 index;
  unsigned rank;  // in its group
  Barrier barrier;
  std::unique_ptr<unsigned char[]> shared;  // of the size asked for, to the byte
  size_t shared_bytes;
  std::vector<std::unique_ptr<Warp>> warps;
  unsigned threads_begun = 0, threads_left = 0;
};

// What is on the GPU together.
struct Group {
  Index3 grid;
  unsigned threads;      // of a block
  unsigned cluster = 1;  // blocks of one
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Barrier>> cluster_barriers;
  std::vector<std::unique_ptr<Thread>> all;
  std::vector<size_t> spinning;  // threads that wait for a number in memory to change
  uint64_t progress = 0;         // counts what could end such a wait
  uint64_t progress_seen = ~uint64_t(0);
  Ready ready;
  std::mt19937 chance;
  Fiber launcher;
  void (*body)(const void*) = nullptr;
  const void* arguments = nullptr;
  std::string error;
};

inline Group* group = nullptr;
inline Thread* self = nullptr;      // whose turn it is
inline uint64_t switches = 0;       // in this process so far
inline char launch_edge, end_edge;  // for TSan: what came before a launch, and what it leaves

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline std::string place(const Location& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

// Ends the launch, with a message that tells who did what.
[[noreturn]] inline void fail(const std::string& what, const Location& where) {
  throw Failure(what + " at " + place(where) + ", thread " + std::to_string(self->index) + " of block (" +
                std::to_string(self->block->index.x) + ", " + std::to_string(self->block->index.y) + ")");
}

// The next thread that could go on; null if there is none. Threads that wait for memory are asked again when nobody
// else is left, and once more only if something happened meanwhile.
inline Thread* next_thread() {
  int64_t rank = group->ready.take(group->chance);
  if (rank < 0 && !group->spinning.empty() && group->progress_seen != group->progress) {
    group->progress_seen = group->progress;
    for (const size_t r : group->spinning) group->ready.add(r);
    group->spinning.clear();
    rank = group->ready.take(group->chance);
  }
  return rank < 0 ? nullptr : group->all[size_t(rank)].get();
}

// Ends this thread's turn.
inline void end_turn(const char* waits_for, const Location& where) {
  Thread* me;
  Fiber* to;
  {
    const Unwatched _;
    me = self;
    me->waits_for = waits_for;
    me->where = where;
    Thread* next = next_thread();
    if (next == me) return;
    ++switches;
    to = next ? &next->fiber : &group->launcher;
    self = next;
  }
  switch_fiber(me->fiber, *to);
}

// orders: what a thread wrote before, all see after.
inline void arrive_and_wait(Barrier& barrier, const char* name, const Location& where, bool orders = true) {
  void* edge;
  bool elsewhere = false;
  {
    const Unwatched _;
    edge = &barrier.edges[barrier.generation & 1];
    if (barrier.waiting.empty()) barrier.first = where;
    elsewhere = barrier.first.line() != where.line();
    if (!elsewhere) {
      barrier.waiting.push_back(self->rank);
      if (barrier.waiting.size() == barrier.expected) {
        for (const size_t rank : barrier.waiting) group->ready.add(rank);
        barrier.waiting.clear();
        ++barrier.generation;
        ++group->progress;
      }
    }
  }
  if (elsewhere) fail(std::string(name) + ": others wait at " + place(barrier.first) + ", and one came", where);
  if (orders) release(edge);
  end_turn(name, where);
  if (orders) acquire(edge);
}

// A thread that finds memory unchanged waits for others to run.
inline void spin(const Location& where) {
  {
    const Unwatched _;
    group->spinning.push_back(self->rank);
  }
  end_turn("a change in memory", where);
}

inline void thread_main() {
  arrived_first(group->launcher);
  acquire(&launch_edge);
  {
    const Unwatched _;
    ++self->block->threads_begun;
  }
  std::string error;
  try {
    group->body(group->arguments);
    if (!self->copy_groups.empty() || !self->open_copies.empty())
      error = "a thread left the kernel with copies that it never waited for";
  } catch (const std::exception& e) {
    error = e.what();
  }
  release(&end_edge);
  Thread* me;
  Fiber* to;
  {
    const Unwatched _;
    me = self;
    me->left = true;
    ++me->block->threads_left;
    ++group->progress;
    if (!error.empty()) group->error = error;
    Thread* next = error.empty() ? next_thread() : nullptr;
    to = next ? &next->fiber : &group->launcher;
    self = next;
  }
  switch_fiber(me->fiber, *to, /*last=*/true);
}

// Runs all threads to the end. Raises Failure where one went wrong or some would wait for ever.
inline void run_group(Group& g) {
  {
    const Unwatched _;
    group = &g;
    g.chance.seed(schedule);
    g.ready.reset(g.all.size());
    for (size_t rank = 0; rank < g.all.size(); ++rank) {
      prepare(g.all[rank]->fiber, rank, thread_main);
      g.ready.add(rank);
    }
#ifdef __SANITIZE_THREAD__
    g.launcher.tsan = __tsan_get_current_fiber();
#endif
    self = next_thread();
  }
  switch_fiber(g.launcher, self->fiber);
  const Unwatched _;
  for (const auto& thread : g.all) dispose(thread->fiber);
  group = nullptr;
  self = nullptr;
  for (const auto& thread : g.all) {
    if (!g.error.empty() || thread->left) continue;
    g.error = "deadlock: thread " + std::to_string(thread->index) + " of block (" +
              std::to_string(thread->block->index.x) + ", " + std::to_string(thread->block->index.y) +
              ") waits for ever for " + thread->waits_for + " at " + place(thread->where);
  }
  if (!g.error.empty()) throw Failure(g.error);
}

}  // namespace emulator
