// The cells of the persistent backward: what a thread reads of a step, computes and passes on.
#pragma once

#include "lstm_backward.h"
#include "lstm_rows.h"

namespace textclf_fast::cuda {

// Two numbers that lie side by side, as they are in memory: what is asked for ahead is not touched, and so not waited
// for, before it is used.
template <class Product>
struct alignas(8 / Product::kPerWord) NumberPair {
  using Number = typename Product::Number;
  static constexpr int kWords = 2 / Product::kPerWord;
  uint32_t words[kWords];

  __device__ static NumberPair of(float a, float b) {
    if constexpr (kWords == 2) {
      return {{as_bits(a), as_bits(b)}};
    } else {
      const Number numbers[2] = {Product::number(a), Product::number(b)};
      return {{Product::word(numbers)}};
    }
  }
  __device__ Number number(int i) const {
    if constexpr (kWords == 2) {
      return as_float(words[i]);
    } else {
      return {uint16_t(words[0] >> 16 * i)};
    }
  }
  __device__ float value(int i) const { return Product::value(number(i)); }
};

// The cells of which this thread computes the gradients: pairs of neighbouring units of one row, those numbered thread,
// thread + threads ... What they pass from step to step stays in registers.
template <class Product, int kPairs>
struct OwnCells {
  using Number = typename Product::Number;
  using Pair = NumberPair<Product>;
  static constexpr uint32_t kNoCells = 0xffffffff;

  // What a step reads, asked for before the product of the step before.
  struct Saved {
    Pair gate[4], before, grad_output;
  };

  const PersistentBackward<Number>& p;
  int direction, first_row, first_unit;
  uint32_t place[kPairs];  // row in the team * 2^16 + first unit in the block; kNoCells: no cells
  float grad_c[kPairs][2];
  Pair c[kPairs];
  Saved saved[kPairs];

  __device__ OwnCells(const PersistentBackward<Number>& problem, int its_direction, int its_row, int its_unit)
      : p(problem), direction(its_direction), first_row(its_row), first_unit(its_unit) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int number = int(threadIdx.x) + k * int(blockDim.x), pairs = p.tiles.units / 2;
      const int row = number / pairs, unit = number % pairs * 2;
      const bool there = row < p.tiles.rows() && first_row + row < p.rows && first_unit + unit < p.hidden;
      place[k] = there ? uint32_t(row) << 16 | uint32_t(unit) : kNoCells;
      const Pair given = there ? load_or_zero(p.grad_c_n, state_at(k), k) : Pair{};
      grad_c[k][0] = given.value(0);
      grad_c[k][1] = given.value(1);
    }
  }

  // now: the step to come; walked: rows that were alive before it; before: the forward's step before it.
  __device__ void load(const StepRows& now, int walked, const StepRows& before) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      if (row(k) >= now.alive) continue;
      const int64_t at = cell_at(k, now.position);
      const Number* gates = p.activations + gate_at(at, k);
#pragma unroll
      for (int q = 0; q < 4; ++q, gates += p.hidden) saved[k].gate[q] = load_pair(gates, k);
      if (row(k) >= walked) c[k] = load_pair(p.cells + at, k);
      if (row(k) < before.alive) {
        saved[k].before = load_pair(p.cells + cell_at(k, before.position), k);
      } else {
        saved[k].before = load_or_zero(p.c0, state_at(k), k);
      }
      saved[k].grad_output =
          load_or_zero(p.grad_output, (int64_t(now.position + row(k)) * gridDim.y + direction) * p.hidden + unit(k), k);
    }
  }

  // The gradients of a step's gates, to the image and to global memory; and of the states of rows that are done.
  __device__ void advance(const StepRows& now, int walked, const float* sums, unsigned char* image) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const bool alive = row(k) < now.alive;
      if (!alive && row(k) >= walked) continue;
      float grad_h[2];
      if (row(k) < walked) {
        add_up(grad_h, k, sums);
      } else {
        grad_h_n(grad_h, k);
      }
      if (!alive) {
        finish(k, grad_h);
        continue;
      }
      const int64_t at = cell_at(k, now.position);
      const Pair by_cells = load_or_zero(p.grad_cells, at, k);
      float gates[4][2];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float i = saved[k].gate[0].value(n), f = saved[k].gate[1].value(n);
        const float g = saved[k].gate[2].value(n), o = saved[k].gate[3].value(n);
        const float tanh_c = tangent<Product>(c[k].value(n)), dh = grad_h[n] + saved[k].grad_output.value(n);
        const float dc = grad_c[k][n] + by_cells.value(n) + dh * o * (1.0f - tanh_c * tanh_c);
        gates[0][n] = dc * g * i * (1.0f - i);
        gates[1][n] = dc * saved[k].before.value(n) * f * (1.0f - f);
        gates[2][n] = dc * i * (1.0f - g * g);
        gates[3][n] = dh * tanh_c * o * (1.0f - o);
        grad_c[k][n] = dc * f;
      }
      c[k] = saved[k].before;
      publish(gates, reinterpret_cast<uint4*>(image + row(k) * p.tiles.row_bytes() +
                                              (place[k] & 0xffff) * int(4 * sizeof(Number))));
      if (!p.grad_gates) continue;
      Number* to = p.grad_gates + gate_at(at, k);
#pragma unroll
      for (int q = 0; q < 4; ++q, to += p.hidden) store_pair(to, Pair::of(gates[q][0], gates[q][1]), k);
    }
  }

  // Rows that were never alive pass their states' gradients on.
  __device__ void finish_empty_rows(int alive_once) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      if (place[k] == kNoCells || row(k) < alive_once) continue;
      float grad_h[2];
      grad_h_n(grad_h, k);
      finish(k, grad_h);
    }
  }

 private:
  __device__ int row(int k) const { return int(place[k] >> 16); }  // past all rows where there are no cells
  __device__ int unit(int k) const { return first_unit + int(place[k] & 0xffff); }
  __device__ int64_t state_at(int k) const {
    return (int64_t(direction) * p.rows + first_row + row(k)) * p.hidden + unit(k);
  }
  __device__ int64_t cell_at(int k, int position) const {
    return (int64_t(direction) * p.positions + position + row(k)) * p.hidden + unit(k);
  }
  __device__ int64_t gate_at(int64_t cell, int k) const { return (cell - unit(k)) * 4 + unit(k); }

  __device__ Pair load_pair(const Number* at, int k) const {
    if (p.in_pairs) return *reinterpret_cast<const Pair*>(at);
    return Pair::of(Product::value(at[0]), unit(k) + 1 < p.hidden ? Product::value(at[1]) : 0.0f);
  }
  __device__ Pair load_or_zero(const Number* array, int64_t at, int k) const {
    return array ? load_pair(array + at, k) : Pair{};
  }
  __device__ void store_pair(Number* at, const Pair& pair, int k) const {
    if (p.in_pairs) {
      *reinterpret_cast<Pair*>(at) = pair;
    } else {
      at[0] = pair.number(0);
      if (unit(k) + 1 < p.hidden) at[1] = pair.number(1);
    }
  }

  __device__ void grad_h_n(float (&grad_h)[2], int k) const {
    const Pair given = load_or_zero(p.grad_h_n, state_at(k), k);
    grad_h[0] = given.value(0);
    grad_h[1] = given.value(1);
  }

  // In order of the senders: the same bits every time.
  __device__ void add_up(float (&grad_h)[2], int k, const float* sums) const {
    const BackwardTiles& tiles = p.tiles;
    sums += row(k) * tiles.sums_row() + int(place[k] & 0xffff);
    const int stride = tiles.rows() * tiles.sums_row(), senders = tiles.senders();
    grad_h[0] = grad_h[1] = 0.0f;
#pragma unroll 4
    for (int sender = 0; sender < senders; ++sender, sums += stride) {
      const float2 its = *reinterpret_cast<const float2*>(sums);
      grad_h[0] += its.x;
      grad_h[1] += its.y;
    }
  }

  // As the products read them: a unit's four gates side by side.
  __device__ static void publish(const float (&gates)[4][2], uint4* at) {
    uint32_t words[2][4 / Product::kPerWord];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const Number numbers[4] = {Product::number(gates[0][n]), Product::number(gates[1][n]),
                                 Product::number(gates[2][n]), Product::number(gates[3][n])};
#pragma unroll
      for (int w = 0; w < 4 / Product::kPerWord; ++w) words[n][w] = Product::word(numbers + w * Product::kPerWord);
    }
    if constexpr (Product::kPerWord == 2) {
      at[0] = {words[0][0], words[0][1], words[1][0], words[1][1]};
    } else {
      at[0] = {words[0][0], words[0][1], words[0][2], words[0][3]};
      at[1] = {words[1][0], words[1][1], words[1][2], words[1][3]};
    }
  }

  __device__ void finish(int k, const float (&grad_h)[2]) const {
    store_pair(p.grad_h0 + state_at(k), Pair::of(grad_h[0], grad_h[1]), k);
    store_pair(p.grad_c0 + state_at(k), Pair::of(grad_c[k][0], grad_c[k][1]), k);
  }
};

}  // namespace textclf_fast::cuda
