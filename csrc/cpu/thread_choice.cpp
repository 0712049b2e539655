#include "thread_choice.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

namespace textclf_fast::cpu {
namespace {

constexpr size_t kTable = 256;
constexpr auto kRelaxed = std::memory_order_relaxed;

struct Place {
  std::atomic<uint64_t> kind{0};
  ThreadChoice choice;
};
Place table[kTable];

// Mixes the bits of all numbers (the steps of splitmix64: S. Vigna, 2015).
uint64_t hash(const ThreadChoiceKey& key) {
  uint64_t h = 0;
  // Twice as many steps are another kind: what a call takes besides its steps counts for less.
  for (const int64_t part : {key.kernel, key.hidden, key.input, key.projected, key.rows, key.directions,
                             int64_t(std::bit_width(uint64_t(key.steps))), key.most}) {
    h += uint64_t(part) + 0x9e3779b97f4a7c15;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9;
    h = (h ^ (h >> 27)) * 0x94d049bb133111eb;
    h ^= h >> 31;
  }
  return h | 1;  // 0 is nobody's
}

std::atomic<bool> learns{[] {
  const char* set = std::getenv("TEXTCLF_FAST_LEARN_THREADS");
  return !(set && std::strcmp(set, "0") == 0);
}()};

}  // namespace

int ThreadChoice::candidates(int64_t most, int64_t (&threads)[kMost]) {
  int count = 0;
  threads[count++] = most;
  for (const int64_t fewer : {4, 2, 1})
    if (fewer < most) threads[count++] = fewer;
  return count;
}

ThreadChoice::Next ThreadChoice::choose(int count) {
  const uint32_t call = calls_.fetch_add(1, kRelaxed), first = kTrial * uint32_t(count);
  if (call < first) {
    trial_at_.store(first, kRelaxed);  // where the first choice is made, as behind a trial
    return {int(call / kTrial), call % kTrial != 0};
  }
  const int32_t in_trial = int32_t(call - trial_at_.load(kRelaxed)) + (trials_.load(kRelaxed) ? 0 : int32_t(kTrial));
  // (Another kind with more candidates, which had this place until now, may have left its best here.)
  int best = std::min(best_.load(kRelaxed), count - 1);
  if (in_trial < 0) return {best, true};
  const uint32_t trial = trials_.load(kRelaxed), others = uint32_t(count) - 1;
  const int other = (best + 1 + int(trial % others)) % count;
  const uint32_t far = far_[other].load(kRelaxed);
  const bool skipped = trial / others % (uint32_t(1) << far) != 0;
  if (in_trial < int32_t(kTrial) && !skipped) return {other, in_trial != 0};

  // What the trial has shown.
  const float least = seconds_[best].load(kRelaxed), found = seconds_[other].load(kRelaxed);
  if (!skipped) far_[other].store(found > kFar * least ? std::min(far + 1, kSeldom) : 0, kRelaxed);
  const int before = best;
  for (int i = 0; i < count; ++i)
    if (seconds_[i].load(kRelaxed) < seconds_[best].load(kRelaxed)) best = i;
  const uint32_t period = best == before ? std::min(2 * period_.load(kRelaxed), kPeriod) : kLeastPeriod;
  best_.store(best, kRelaxed), period_.store(period, kRelaxed);
  trials_.store(trial + 1, kRelaxed), trial_at_.store(call + period, kRelaxed);
  return {best, skipped};
}

void ThreadChoice::record(int candidate, float seconds) {
  std::atomic<float>& known = seconds_[candidate];
  const float before = known.load(kRelaxed);
  // Less is believed at once.  More could be somebody else's interruption: a quarter of it, and no more than twice.
  float after = seconds;
  if (before > 0 && seconds > before) after = before + ((seconds < 2 * before ? seconds : 2 * before) - before) / 4;
  known.store(after, kRelaxed);
}

void ThreadChoice::forget() {
  for (auto* number : {&calls_, &trials_, &trial_at_}) number->store(0, kRelaxed);
  period_.store(kLeastPeriod, kRelaxed), best_.store(0, kRelaxed);
  for (auto& seconds : seconds_) seconds.store(0, kRelaxed);
  for (auto& far : far_) far.store(0, kRelaxed);
}

ThreadChoice& thread_choice(const ThreadChoiceKey& key) {
  const uint64_t kind = hash(key);
  Place& place = table[(kind >> 1) % kTable];  // its lowest bit is always set
  if (place.kind.load(kRelaxed) != kind) {
    place.choice.forget();
    place.kind.store(kind, kRelaxed);
  }
  return place.choice;
}

bool learns_threads() { return learns.load(kRelaxed); }

}  // namespace textclf_fast::cpu

// For Python (textclf_fast/_libraries.py), through ctypes.
extern "C" __attribute__((visibility("default"))) void textclf_fast_learn_threads(int on) {
  using namespace textclf_fast::cpu;
  for (Place& place : table) place.choice.forget();
  learns = on;
}
