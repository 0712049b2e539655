// The emulator's own tests, one kernel a case: `cases NAME SCHEDULE` prints "right", "wrong", or what was reported.
// test_emulator.py says what is expected of each.
#include <cstdio>
#include <map>
#include <string>

#include "cuda/device.h"

using namespace textclf_fast::cuda;

namespace {

struct Params {
  float* data;  // what a case needs
  float* result;
  uint32_t* counter;
  int count;
};

// --- blocks and warps

// The sum of blockDim.x numbers, by way of shared memory.
template <bool kBarrier>
void block_sum(Params p) {
  float* parts = reinterpret_cast<float*>(dynamic_shared());
  float sum = p.data[threadIdx.x];
  for (int distance = 16; distance; distance /= 2) sum += shuffle_xor(sum, distance);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  if (kBarrier) sync_block();
  if (threadIdx.x != 0) return;
  sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += parts[w];
  *p.result = sum;
}

template <bool kBarrier>
bool sum_is_right(int count) {
  std::vector<float> data(256);
  float expected = 0, result = 0;
  for (int i = 0; i < 256; ++i) expected += data[size_t(i)] = float(i * 37 % 101);
  launch<block_sum<kBarrier>>({{1}, 256, size_t(count) * 4}, nullptr, Params{data.data(), &result, nullptr, 0});
  return result == expected;
}

void lanes(Params p) {
  const unsigned lane = threadIdx.x;
  unsigned sum = 1;  // an inclusive scan of ones
  for (int distance = 1; distance < 32; distance *= 2) {
    const unsigned other = shuffle_up(sum, distance);
    if (lane >= unsigned(distance)) sum += other;
  }
  const bool good =
      sum == lane + 1 && ballot(lane % 3 == 0) == 0x49249249u && shuffle(lane, 31 - int(lane)) == 31 - lane;
  p.result[lane] = good;
}

void unread_memory(Params p) { *p.result = reinterpret_cast<float*>(dynamic_shared())[1]; }

void barrier_in_two_places(Params) {
  if (threadIdx.x < 40) {
    sync_block();
  } else {
    sync_block();
  }
}

void barrier_for_some(Params) {
  if (threadIdx.x < 40) sync_block();
}

void lanes_disagree(Params) {
  if (threadIdx.x < 16) {
    sync_warp();
  } else {
    ballot(true);
  }
}

// A shuffle does not order memory: what a lane wrote is not for others to read. Right by luck, and TSan objects.
template <bool kBarrier>
void through_memory(Params p) {
  float* shared = reinterpret_cast<float*>(dynamic_shared());
  shared[threadIdx.x] = float(threadIdx.x);
  shuffle(0, 0);
  if (kBarrier) sync_warp();
  p.result[threadIdx.x] = shared[threadIdx.x ^ 1];
}

template <bool kBarrier>
bool through_memory_is_right() {
  std::vector<float> result(32);
  launch<through_memory<kBarrier>>({{1}, 32, 128}, nullptr, Params{nullptr, result.data(), nullptr, 0});
  bool good = true;
  for (unsigned i = 0; i < 32; ++i) good &= result[i] == float(i ^ 1);
  return good;
}

// Blocks of a usual launch may run in any order.
void blocks_in_order(Params p) {
  if (threadIdx.x == 0) *p.result = *p.result * 2 + float(blockIdx.x);
}

// --- products

using Mma = void (*)(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2]);

struct MmaParams {
  const uint32_t *a, *b;  // 4 and 2 registers of each lane
  float* d;
};

template <int kKind>
void mma_once(MmaParams p) {
  uint32_t a[4], b[2];
  float d[4];
  for (int r = 0; r < 4; ++r) a[r] = p.a[threadIdx.x * 4 + unsigned(r)];
  for (int r = 0; r < 2; ++r) b[r] = p.b[threadIdx.x * 2 + unsigned(r)];
  for (int r = 0; r < 4; ++r) d[r] = 1;
  if (kKind == 0) mma_bf16(d, a, b);
  if (kKind == 1) mma_half(d, a, b);
  if (kKind == 2) mma_tf32(d, a, b);
  for (int r = 0; r < 4; ++r) p.d[threadIdx.x * 4 + unsigned(r)] = d[r];
}

// Where the PTX manual puts each element, written down from the matrix' side.
template <int kKind>
bool mma_is_right() {
  constexpr unsigned kPerWord = kKind == 2 ? 1 : 2, kDepth = 8 * kPerWord;
  float a[16][kDepth], b[kDepth][8];
  std::vector<uint32_t> a_words(128), b_words(64);
  const auto put = [&](uint32_t& word, unsigned half, float x) {
    if (kKind == 0) word |= uint32_t(to_bf16(x)) << 16 * half;
    if (kKind == 1) word |= uint32_t(to_half(x)) << 16 * half;
    if (kKind == 2) word = to_tf32(x);
  };
  for (unsigned row = 0; row < 16; ++row)
    for (unsigned k = 0; k < kDepth; ++k) {
      a[row][k] = float(int(row * 31 + k * 17) % 15 - 7);
      const unsigned lane = row % 8 * 4 + k / kPerWord % 4, reg = row / 8 + k / (kDepth / 2) * 2;
      put(a_words[lane * 4 + reg], k % kPerWord, a[row][k]);
    }
  for (unsigned k = 0; k < kDepth; ++k)
    for (unsigned column = 0; column < 8; ++column) {
      b[k][column] = float(int(k * 13 + column * 29) % 15 - 7);
      const unsigned lane = column * 4 + k / kPerWord % 4, reg = k / (kDepth / 2);
      put(b_words[lane * 2 + reg], k % kPerWord, b[k][column]);
    }
  std::vector<float> d(128);
  launch<mma_once<kKind>>({{1}, 32}, nullptr, MmaParams{a_words.data(), b_words.data(), d.data()});
  for (unsigned row = 0; row < 16; ++row)
    for (unsigned column = 0; column < 8; ++column) {
      double sum = 1;
      for (unsigned k = 0; k < kDepth; ++k) sum += double(a[row][k]) * b[k][column];
      if (d[(row % 8 * 4 + column / 2) * 4 + row / 8 * 2 + column % 2] != sum) return false;
    }
  return true;
}

void mma_unrounded(Params p) {
  float d[4] = {};
  mma_tf32(d, {as_bits(1.2345678f), 0, 0, 0}, {0, 0});
  p.result[0] = d[0];
}

bool numbers_are_right() {
  bool good = to_bf16(1.00390625f) == 0x3f80 && to_bf16(1.01171875f) == 0x3f82;  // ties to even
  good &= to_half(65520.0f) == 0x7c00 && to_half(65519.0f) == 0x7bff && to_half(0x1p-25f) == 0;
  good &= to_half(0x1.8p-25f) == 1 && to_half(-0x1p-14f) == 0x8400 && from_half(0x0001) == 0x1p-24f;
  good &= as_float(to_tf32(1.0f + 0x1p-11f)) == 1.0f + 0x1p-10f;  // away from zero
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto word = uint16_t(bits);
    if (from_half(word) == from_half(word)) good &= to_half(from_half(word)) == word;
    if (from_bf16(word) == from_bf16(word)) good &= to_bf16(from_bf16(word)) == word;
  }
  return good;
}

// --- copies

template <bool kWait>
void copy_in(Params p) {
  float* shared = reinterpret_cast<float*>(dynamic_shared());
  copy_async_16(shared + 4 * threadIdx.x, p.data + 4 * threadIdx.x);
  copy_async_commit();
  copy_async_16(shared + 128 + 4 * threadIdx.x, p.data + 4 * threadIdx.x);
  copy_async_commit();
  copy_async_wait<kWait ? 1 : 2>();
  sync_block();
  p.result[threadIdx.x] = shared[127 - threadIdx.x];  // the first group
  copy_async_wait<0>();
}

template <bool kWait>
bool copy_is_right() {
  std::vector<float> data(128 + 4), result(32);
  float* aligned = data.data();
  while (reinterpret_cast<uintptr_t>(aligned) % 16) ++aligned;
  for (int i = 0; i < 128; ++i) aligned[i] = float(i);
  launch<copy_in<kWait>>({{1}, 32, 1024}, nullptr, Params{aligned, result.data(), nullptr, 0});
  bool good = true;
  for (int i = 0; i < 32; ++i) good &= result[size_t(i)] == float(127 - i);
  return good;
}

void copy_of_what_changes(Params) {
  float* shared = reinterpret_cast<float*>(dynamic_shared());
  if (threadIdx.x != 0) return;
  for (int i = 0; i < 8; ++i) shared[i] = 0;
  copy_async_16(shared + 4, shared);
  copy_async_commit();
  shared[1] = 1;
  copy_async_wait<0>();
}

void copy_never_waited_for(Params) {
  copy_async_16(dynamic_shared() + threadIdx.x * 16, dynamic_shared() + (threadIdx.x + 32) * 16);
}

// --- clusters and grids

// A number goes round among the blocks: each adds one to what its neighbour had.
template <bool kBegin, bool kStep>
void cluster_ring(Params p) {
  uint32_t* shared = reinterpret_cast<uint32_t*>(dynamic_shared());
  const unsigned blocks = 4, rank = cluster_rank();
  shared[threadIdx.x] = 1;  // two halves: read one, write the neighbour's other
  if (kBegin) sync_cluster();
  for (unsigned step = 0; step < 6; ++step) {
    const unsigned from = step % 2 * blockDim.x, to = blockDim.x - from;
    store_cluster(shared + to + threadIdx.x, (rank + 1) % blocks, shared[from + (threadIdx.x + 1) % blockDim.x] + rank);
    if (kStep) sync_cluster();
  }
  p.result[blockIdx.x * blockDim.x + threadIdx.x] = float(shared[threadIdx.x]);
}

template <bool kBegin, bool kStep>
bool cluster_ring_is_right() {
  std::vector<float> result(8 * 32);
  launch<cluster_ring<kBegin, kStep>>({{8}, 32, 256, 4}, nullptr, Params{nullptr, result.data(), nullptr, 0});
  bool good = true;
  for (unsigned block = 0; block < 8; ++block) {
    unsigned expected = 1;
    for (unsigned step = 1; step <= 6; ++step) expected += (block % 4 + 24 - step) % 4;
    for (unsigned i = 0; i < 32; ++i) good &= result[block * 32 + i] == float(expected);
  }
  return good;
}

// The same through global memory, with a barrier of our own making.
template <bool kAcquire>
void grid_ring(Params p) {
  const unsigned blocks = gridDim.x, half = blocks * blockDim.x;
  for (unsigned step = 0; step < 6; ++step) {
    const unsigned from = step % 2 * half, to = half - from, next = (blockIdx.x + 1) % blocks;
    p.data[to + next * blockDim.x + threadIdx.x] =
        p.data[from + blockIdx.x * blockDim.x + threadIdx.x] + float(blockIdx.x);
    sync_block();
    if (threadIdx.x == 0) {
      add_release(p.counter, 1);
      if (kAcquire) wait_acquire(p.counter, (step + 1) * blocks);
    }
    sync_block();
  }
}

template <bool kAcquire>
bool grid_ring_is_right(unsigned blocks) {
  std::vector<float> data(2 * blocks * 32, 1);
  uint32_t counter = 0;
  launch<grid_ring<kAcquire>>({{blocks}, 32, 0, 1, true}, nullptr, Params{data.data(), nullptr, &counter, 0});
  bool good = true;
  for (unsigned block = 0; block < blocks; ++block) {
    float expected = 1;
    for (unsigned step = 1; step <= 6; ++step) expected += float((block + 6 * blocks - step) % blocks);
    for (unsigned i = 0; i < 32; ++i) good &= data[block * 32 + i] == expected;
  }
  return good;
}

void waits_for_nobody(Params p) { wait_acquire(p.counter, 1); }

// --- launches

void nothing(Params) {}

bool launch_nothing(const LaunchShape& shape) { return launch<nothing>(shape, nullptr, Params{}) == cudaSuccess; }

template <auto kKernel>
bool launch_once(unsigned threads, unsigned blocks = 1) {
  std::vector<float> result(1024);
  uint32_t counter = 0;
  launch<kKernel>({{blocks}, threads, 4096}, nullptr, Params{nullptr, result.data(), &counter, 0});
  for (unsigned i = 0; i < threads; ++i)
    if (!(result[i] == 1)) return false;
  return true;
}

const std::map<std::string, bool (*)()> kCases = {
    {"block_sum", [] { return sum_is_right<true>(8); }},
    {"block_sum_without_barrier", [] { return sum_is_right<false>(8); }},
    {"block_sum_out_of_bounds", [] { return sum_is_right<true>(7); }},
    {"lanes", [] { return launch_once<lanes>(32); }},
    {"unread_memory", [] { return launch_once<unread_memory>(32); }},
    {"barrier_in_two_places", [] { return launch_once<barrier_in_two_places>(64); }},
    {"barrier_for_some", [] { return launch_once<barrier_for_some>(64); }},
    {"lanes_disagree", [] { return launch_once<lanes_disagree>(32); }},
    {"through_memory", [] { return through_memory_is_right<true>(); }},
    {"through_memory_without_barrier", [] { return through_memory_is_right<false>(); }},
    {"blocks_in_order",
     [] {
       float result = 0;
       launch<blocks_in_order>({{4}, 32}, nullptr, Params{nullptr, &result, nullptr, 0});
       return result == 11;
     }},
    {"mma_bf16", [] { return mma_is_right<0>(); }},
    {"mma_half", [] { return mma_is_right<1>(); }},
    {"mma_tf32", [] { return mma_is_right<2>(); }},
    {"mma_unrounded", [] { return launch_once<mma_unrounded>(32); }},
    {"numbers", numbers_are_right},
    {"copy_async", [] { return copy_is_right<true>(); }},
    {"copy_async_read_early", [] { return copy_is_right<false>(); }},
    {"copy_of_what_changes", [] { return launch_once<copy_of_what_changes>(32); }},
    {"copy_never_waited_for", [] { return launch_once<copy_never_waited_for>(32); }},
    {"cluster_ring", [] { return cluster_ring_is_right<true, true>(); }},
    {"cluster_ring_without_beginning", [] { return cluster_ring_is_right<false, true>(); }},
    {"cluster_ring_without_steps", [] { return cluster_ring_is_right<true, false>(); }},
    {"grid_ring", [] { return grid_ring_is_right<true>(5); }},
    {"grid_ring_without_wait", [] { return grid_ring_is_right<false>(5); }},
    {"waits_for_nobody", [] { return launch_once<waits_for_nobody>(32); }},
    {"too_many_threads", [] { return launch_nothing({{1}, 1056}); }},
    {"no_whole_warps", [] { return launch_nothing({{1}, 40}); }},
    {"too_much_shared_memory", [] { return launch_nothing({{1}, 32, (227 << 10) + 16}); }},
    {"too_many_blocks_together", [] { return launch_nothing({{133}, 32, 0, 1, true}); }},
    {"too_large_a_cluster", [] { return launch_nothing({{32}, 32, 0, 16}); }},
    {"grid_is_no_multiple", [] { return launch_nothing({{6}, 32, 0, 4}); }},
};

}  // namespace

int main(int count, char** words) {
  if (count != 3 || !kCases.count(words[1])) return 2;
  emulator::schedule = unsigned(std::atoi(words[2]));
  try {
    std::puts(kCases.at(words[1])() ? "right" : "wrong");
  } catch (const emulator::Failure& failure) {
    std::puts(failure.what());
  }
}
