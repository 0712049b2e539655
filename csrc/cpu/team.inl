// How threads share the steps of a direction.  Included once per instruction set, see simd.inl.
#pragma once

#include "tiles.inl"

static TEXTCLF_INLINE void spin_pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}
// One of many waits for another thread.  A step takes some microseconds; whoever waits much longer, some 30 us, shares
// its core with someone: let them run.
static TEXTCLF_INLINE void wait_once(int64_t waits) {
  if (waits < 2000)
    spin_pause();
  else
    sched_yield();
}

// Takes a part of a phase for this thread, unless another has it.  Builtins, as no std function may be compiled here
// (simd.inl).
static TEXTCLF_INLINE bool claim(const Team& team, int64_t part, int64_t phase) {
  int64_t& claimed = team.progress[part].claimed;
  // Read first: an exchange takes the line from its thread, whether it succeeds or not.
  return __atomic_load_n(&claimed, __ATOMIC_RELAXED) == phase &&
         __atomic_compare_exchange_n(&claimed, &phase, phase + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
static TEXTCLF_INLINE bool is_finished(const Team& team, int64_t part, int64_t phase) {
  return __atomic_load_n(&team.progress[part].finished, __ATOMIC_ACQUIRE) > phase;
}
static TEXTCLF_INLINE void finish(const Team& team, int64_t part, int64_t phase) {
  __atomic_store_n(&team.progress[part].finished, phase + 1, __ATOMIC_RELEASE);
}

// A thread of a team.
struct Member {
  int64_t number;
  // Bit i: of the parts i, i + 64 and so on the last one that it came to was taken by itself.  While whose they are is
  // away, it does not wait for that one.
  uint64_t away = 0;

  static constexpr int64_t kPatience = 200;  // waits, some 3 us, before another's part is taken: cores may be far apart

  TEXTCLF_INLINE void awaits(const Team& team, int64_t part, int64_t phase) const {
    for (int64_t waits = 0; !is_finished(team, part, phase); ++waits) wait_once(waits);
  }
  // The same, unless nobody has taken it: then it is the caller's.
  TEXTCLF_INLINE bool takes_or_awaits(const Team& team, int64_t part, int64_t phase) {
    const uint64_t bit = uint64_t(1) << part % 64;
    const int64_t patience = away & bit ? 0 : kPatience;
    for (int64_t waits = 0; !is_finished(team, part, phase); ++waits) {
      if (waits >= patience && claim(team, part, phase)) {
        away |= bit;
        return true;
      }
      wait_once(waits);
    }
    away &= ~bit;
    return false;
  }
};

// Runs the parts of one phase of a team's job, see Team.
template <class F>
static TEXTCLF_INLINE void run_phase(const Team& team, Member& member, int64_t phase, const F& run) {
  if (team.parts == 1) return run(0);
  const int64_t own = member.number;
  bool taken = claim(team, own, phase);
  for (int64_t i = 0; i < team.parts; ++i) {
    const int64_t part = (own + i) % team.parts;
    if (i > 0) taken = member.takes_or_awaits(team, part, phase);
    if (!taken) continue;
    run(part);
    finish(team, part, phase);
  }
  member.awaits(team, own, phase);
}

// Steps that two parts take side by side, each a phase.  What passes between cores takes 60 ns each way, and five times
// that between distant ones: a step that waits for the other's flag, and then for its numbers, waits for some of the
// 0.8 us that it takes at H = 128.  So a part begins with what needs only its own.
//   run(part, step, await): the part; it calls await() before it reads what the other gave out in the step before.
template <class Run>
struct LinkedSteps {
  const Team& team;
  Member& member;
  int64_t first_phase;
  const Run& run;

  void operator()(int64_t steps) const {
    const int64_t own = member.number;
    for (int64_t step = 0; step < steps; ++step)
      if (claim(team, own, first_phase + step)) run_part(own, step);
    if (claim(team, 1 - own, first_phase + steps - 1)) run_part(1 - own, steps - 1);
  }

 private:
  void run_part(int64_t part, int64_t step) const {
    const int64_t phase = first_phase + step;
    member.awaits(team, part, phase - 1);
    run(part, step, [&] {
      if (step == 0 || !member.takes_or_awaits(team, 1 - part, phase - 1)) return;
      run_part(1 - part, step - 1);
    });
    finish(team, part, phase);
  }
};

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
