// How many threads had better take a call whose steps are short: learned from such calls.  Knows no torch.
//
// A step of one or two rows takes a microsecond or less, in which its threads wait for each other once.  Whether two of
// them beat one depends on how far apart their cores are at the time (60 or 280 ns on the same virtual machine, from
// one second to the next), how many other threads want those cores (two cores on which PyTorch believes to have four
// threads: 4 times as long as on one), and how many threads there are to wait for.  None of that can be asked for; the
// clock says it.  The bits are the same on any of these numbers of threads: nobody notices but by the time.
#pragma once

#include <atomic>
#include <cstdint>

namespace textclf_fast::cpu {

// The calls of one kind.  Any thread may use it at any time: what they lose between them are measurements.
class ThreadChoice {
 public:
  static constexpr int kMost = 4;  // candidates
  // A trial is some calls, one after the other, of which the first does not count: it finds threads asleep and caches
  // cold.
  static constexpr uint32_t kTrial = 4;
  // Calls from one trial of another candidate to the next: few once the choice has changed, twice as many each time
  // that it is confirmed; in the end trials are not in a p99.
  static constexpr uint32_t kLeastPeriod = 32, kPeriod = 512;
  // Who takes so many times as long is tried half as often each time, so many times.
  static constexpr float kFar = 2;
  static constexpr uint32_t kSeldom = 4;

  // Candidates for a call that could have `most` threads: all of them, 4, 2 and 1.  Writes and counts those there are.
  static int candidates(int64_t most, int64_t (&threads)[kMost]);

  // Which of `count` candidates is next, and whether its time counts.
  struct Next {
    int candidate;
    bool counts;
  };
  Next choose(int count);
  // What it has taken, in seconds a step.
  void record(int candidate, float seconds);
  void forget();

 private:
  std::atomic<uint32_t> calls_{0}, trials_{0};
  std::atomic<uint32_t> trial_at_{0}, period_{kLeastPeriod};  // the call that the next trial begins with
  std::atomic<int> best_{0};
  std::atomic<float> seconds_[kMost] = {};  // 0: not known
  std::atomic<uint32_t> far_[kMost] = {};   // trials in a row that took far longer
};

// The choice for a kind of call, by whatever makes its steps take longer or shorter; kinds that share a place in the
// table (of 256) take turns in it, each from the beginning.
struct ThreadChoiceKey {
  int64_t kernel, hidden, input, projected, rows, directions, steps, most;
};
ThreadChoice& thread_choice(const ThreadChoiceKey& key);

// Whether calls learn at all: not where the environment has TEXTCLF_FAST_LEARN_THREADS=0, nor in tests.
bool learns_threads();

}  // namespace textclf_fast::cpu
