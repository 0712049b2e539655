// What the 32 threads of a warp do together: exchanges, votes, products of fragments.
#pragma once

#include "numbers.h"
#include "scheduler.h"

namespace emulator {

inline unsigned lane() { return self->index % 32; }

// Every lane leaves `given`; the last one computes all lanes' results from them by `work(in, out)`. Only sync_warp
// orders memory: a shuffle or a vote does not, on a GPU either.
template <class Given, class Result, class Work>
Result exchange(const char* operation, const Given& given, Work work, const Location& where, bool orders = false) {
  static_assert(sizeof(Given) <= Warp::kSlot && sizeof(Result) <= Warp::kSlot);
  Warp* warp;
  bool differs;
  {
    const Unwatched _;
    warp = self->block->warps[self->index / 32].get();
    if (warp->barrier.waiting.empty()) warp->operation = operation;
    differs = std::strcmp(warp->operation, operation) != 0;
    std::memcpy(warp->in[lane()], &given, sizeof(Given));
    if (!differs && warp->barrier.waiting.size() == 31) work(warp->in, warp->out);
  }
  if (differs) fail(std::string(operation) + ": other lanes of the warp are at " + warp->operation, where);
  arrive_and_wait(warp->barrier, operation, where, orders);
  // The next exchange overwrites `out` once all lanes have come to it, so after all have read it here.
  const Unwatched _;
  Result result;
  std::memcpy(&result, warp->out[lane()], sizeof(Result));
  return result;
}

template <class T>
T take(const unsigned char (&slot)[Warp::kSlot]) {
  T value;
  std::memcpy(&value, slot, sizeof(T));
  return value;
}

template <class T>
struct Parcel {
  T value;
  unsigned source;
};

// Each lane gets the value of the lane it names.
template <class T>
T shuffle(const char* operation, T value, unsigned source, const Location& where) {
  return exchange<Parcel<T>, T>(
      operation, {value, source},
      [](auto& in, auto& out) {
        for (unsigned l = 0; l < 32; ++l) {
          const T moved = take<Parcel<T>>(in[take<Parcel<T>>(in[l]).source % 32]).value;
          std::memcpy(out[l], &moved, sizeof(T));
        }
      },
      where);
}

inline unsigned ballot(bool vote, const Location& where) {
  return exchange<bool, unsigned>(
      "ballot", vote,
      [](auto& in, auto& out) {
        unsigned votes = 0;
        for (unsigned l = 0; l < 32; ++l) votes |= unsigned(take<bool>(in[l])) << l;
        for (unsigned l = 0; l < 32; ++l) std::memcpy(out[l], &votes, sizeof votes);
      },
      where);
}

inline void sync_warp(const Location& where) {
  exchange<char, char>("sync_warp", 0, [](auto&, auto& out) { std::memset(out, 0, sizeof out); }, where, true);
}

struct Fragments {
  uint32_t a[4], b[2];
  float sum[4];
};
struct Sums {
  float sum[4];
};

// D (16, 8) += A (16, K) B (K, 8), fragments as in the PTX manual: lane 4g + t holds of a register's pair (row g or
// g + 8, columns from t on). K is 8 numbers of 32 bits or 16 of 16 bits; `value(word, half)` is one of them. Products
// and their sum are in double, rounded once: the GPU's own rounding is not known.
template <int kPerWord, class Value>
Sums multiply(const char* operation, const Fragments& fragments, Value value, const Location& where) {
  return exchange<Fragments, Sums>(
      operation, fragments,
      [value](auto& in, auto& out) {
        constexpr int kDepth = 8 * kPerWord;
        double a[16][kDepth], b[kDepth][8];
        for (int l = 0; l < 32; ++l) {
          const auto given = take<Fragments>(in[l]);
          const int g = l / 4, t = l % 4;
          for (int half = 0; half < kPerWord; ++half) {
            const int k = t * kPerWord + half;
            for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][k + r / 2 * kDepth / 2] = value(given.a[r], half);
            for (int r = 0; r < 2; ++r) b[k + r * kDepth / 2][g] = value(given.b[r], half);
          }
        }
        for (int l = 0; l < 32; ++l) {
          auto sums = take<Fragments>(in[l]);
          for (int r = 0; r < 4; ++r) {
            const int row = l / 4 + r / 2 * 8, column = l % 4 * 2 + r % 2;
            double sum = sums.sum[r];
            for (int k = 0; k < kDepth; ++k) sum += a[row][k] * b[k][column];
            sums.sum[r] = float(sum);
          }
          std::memcpy(out[l], sums.sum, sizeof sums.sum);
        }
      },
      where);
}

}  // namespace emulator
