// How threads share the steps of a direction.  Included once per instruction set, see simd.inl.
#pragma once

#include "tiles.inl"

constexpr int64_t kSpins = 2000;  // some 30 us, see run_phase
static TEXTCLF_INLINE void spin_pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

// Runs the parts of one phase of a team's job, see Team.  Builtins, as no std function may be compiled here (simd.inl).
template <class F>
static TEXTCLF_INLINE void run_phase(const Team& team, int64_t member, int64_t phase, const F& run) {
  if (team.parts == 1) return run(0);
  for (int64_t i = 0; i < team.parts; ++i) {
    const int64_t part = (member + i) % team.parts;
    int64_t expected = phase;
    if (!__atomic_compare_exchange_n(&team.claimed[part * Team::kStride], &expected, phase + 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
      continue;
    run(part);
    __atomic_fetch_add(team.done, 1, __ATOMIC_RELEASE);
  }
  // A step takes some microseconds; a thread that waits much longer shares its core with someone: let them run.
  for (int64_t spins = 0; __atomic_load_n(team.done, __ATOMIC_ACQUIRE) < (phase + 1) * team.parts; ++spins)
    if (spins < kSpins)
      spin_pause();
    else
      sched_yield();
}

// A part of a step: rows [row, row_end) and units (or whatever a backward panel group holds) [block, block_end).
struct Share {
  int64_t row, row_end, block, block_end;
};

// Rows or units, whichever lets the slowest part end sooner.  A part that reads `blocks` blocks of W_hh for r rows
// takes about blocks * max(r, 2.5): below two or three rows it waits for W_hh from the second-level cache.  Measured on
// two threads at H = 64 to 512: units win up to 4 rows, by up to 1.7 times, and rows from 8 on.  From the third-level
// cache W_hh comes at half that rate, which whole 64-byte vectors notice: 2 multiply-adds a cycle eat 128 bytes of it a
// row, and 24 come.  At H = 512 and 8 rows on Zen 5, 4.5 instead of 2.5 is 1.26 times as fast in inference, 1.1 times
// in training; at 32 rows, dense or not, 1.0 times.
//
// Whoever shares by rows reads all of W_hh in every step.  Where it comes from the third-level cache then, and the
// share of the units' would not, units win at any number of rows: at H = 512 on Intel's servers, whose cores have 2 MB
// of their own and share a slow one, 1.3 times at 32 rows and 1.9 at 8; in bfloat16 2 and 3.
static TEXTCLF_INLINE bool by_rows(const Team& team, int64_t alive, int64_t blocks) {
  if (team.units_fit_cache) return false;
  const int64_t twice_the_rows = kVectorBytes == 64 && team.exceeds_cache ? 9 : 5;
  const auto twice_the_time = [&](int64_t b, int64_t r) { return b * larger(2 * r, twice_the_rows); };
  return twice_the_time(blocks, divide_up(alive, team.parts)) <= twice_the_time(divide_up(blocks, team.parts), alive);
}
// Parts that share steps by rows do not depend on each other, and walk some on their own, as long as these have the
// same rows: the wait for the others costs some 5 % of a step at H = 128 and 16 rows a part.  Not too many, so that a
// thread that comes late finds parts to take.  The end of those from `step` on: alive(step) says how many rows one has.
constexpr int64_t kStepsAlone = 8;
template <class Alive>
static TEXTCLF_INLINE int64_t end_of_steps_alone(const Alive& alive, int64_t step, int64_t end) {
  end = smaller(end, step + kStepsAlone);
  const int64_t rows = alive(step);
  while (++step < end && alive(step) == rows) {
  }
  return step;
}
static TEXTCLF_INLINE Share share_step(const Team& team, int64_t part, int64_t alive, int64_t blocks) {
  if (by_rows(team, alive, blocks)) return {alive * part / team.parts, alive * (part + 1) / team.parts, 0, blocks};
  return {0, alive, blocks * part / team.parts, blocks * (part + 1) / team.parts};
}
