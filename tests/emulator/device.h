// csrc/cuda/device.h for g++: what that header declares for nvcc, on the emulator.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>

#include "async_copy.h"
#include "launch.h"
#include "warp.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
using dim3 = emulator::Index3;
using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;

namespace emulator {

template <unsigned (*kRead)()>
struct BuiltIn {
  operator unsigned() const { return kRead(); }
};

}  // namespace emulator

// One dimension of threads is all that our kernels use.
inline const struct {
  emulator::BuiltIn<[] { return emulator::self->index; }> x;
} threadIdx;
inline const struct {
  emulator::BuiltIn<[] { return emulator::self->block->index.x; }> x;
  emulator::BuiltIn<[] { return emulator::self->block->index.y; }> y;
  emulator::BuiltIn<[] { return emulator::self->block->index.z; }> z;
} blockIdx;
inline const struct {
  emulator::BuiltIn<[] { return emulator::group->threads; }> x;
} blockDim;
inline const struct {
  emulator::BuiltIn<[] { return emulator::group->grid.x; }> x;
  emulator::BuiltIn<[] { return emulator::group->grid.y; }> y;
} gridDim;

namespace textclf_fast::cuda {

using emulator::Location;

inline unsigned char* dynamic_shared() { return emulator::self->block->shared.get(); }

inline void sync_block(const Location& where = Location::current()) {
  emulator::arrive_and_wait(emulator::self->block->barrier, "sync_block", where);
}
inline void sync_warp(const Location& where = Location::current()) { emulator::sync_warp(where); }

template <class T>
T shuffle(T value, int lane, const Location& where = Location::current()) {
  return emulator::shuffle("shuffle", value, unsigned(lane), where);
}
template <class T>
T shuffle_xor(T value, int mask, const Location& where = Location::current()) {
  return emulator::shuffle("shuffle_xor", value, emulator::lane() ^ unsigned(mask), where);
}
template <class T>
T shuffle_up(T value, int distance, const Location& where = Location::current()) {
  const unsigned lane = emulator::lane();
  return emulator::shuffle("shuffle_up", value, lane < unsigned(distance) ? lane : lane - unsigned(distance), where);
}
inline unsigned ballot(bool vote, const Location& where = Location::current()) { return emulator::ballot(vote, where); }

inline void copy_async_16(void* shared, const void* global, const Location& where = Location::current()) {
  emulator::copy_async_16(shared, global, where);
}
inline void copy_async_commit() { emulator::copy_async_commit(); }
template <int kPending>
void copy_async_wait(const Location& where = Location::current()) {
  emulator::copy_async_wait(kPending, where);
}

inline uint16_t to_bf16(float x) { return emulator::bf16_bits(x); }
inline float from_bf16(uint16_t bits) { return emulator::bf16_value(bits); }
inline uint16_t to_half(float x) { return emulator::half_bits(x); }
inline float from_half(uint16_t bits) { return emulator::half_value(bits); }
inline uint32_t to_tf32(float x) { return emulator::tf32_bits(x); }
inline float as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t as_bits(float x) { return std::bit_cast<uint32_t>(x); }

inline float fast_exp(float x) { return std::exp(x); }
inline float fast_reciprocal(float x) { return 1.0f / x; }

namespace detail {

template <int kPerWord, class Value>
void multiply(const char* name, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Value value,
              const Location& where) {
  emulator::Fragments fragments;
  std::memcpy(fragments.a, a, sizeof a);
  std::memcpy(fragments.b, b, sizeof b);
  std::memcpy(fragments.sum, d, sizeof d);
  const auto result = emulator::multiply<kPerWord>(name, fragments, value, where);
  std::memcpy(d, result.sum, sizeof d);
}

}  // namespace detail

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     const Location& where = Location::current()) {
  detail::multiply<2>(
      "mma_bf16", d, a, b, [](uint32_t word, int half) { return from_bf16(uint16_t(word >> 16 * half)); }, where);
}
inline void mma_half(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     const Location& where = Location::current()) {
  detail::multiply<2>(
      "mma_half", d, a, b, [](uint32_t word, int half) { return from_half(uint16_t(word >> 16 * half)); }, where);
}
// The GPU takes the upper 19 bits of a word; here others are an error, as they mean that a rounding was forgotten.
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     const Location& where = Location::current()) {
  for (const uint32_t word : {a[0], a[1], a[2], a[3], b[0], b[1]})
    if (word & 0x1fff && !std::isnan(as_float(word)))
      emulator::fail("mma_tf32: a number is not rounded to tf32", where);
  detail::multiply<1>("mma_tf32", d, a, b, [](uint32_t word, int) { return as_float(word); }, where);
}

inline unsigned cluster_rank() { return emulator::self->block->rank % emulator::group->cluster; }

inline void sync_cluster(const Location& where = Location::current()) {
  emulator::arrive_and_wait(*emulator::group->cluster_barriers[emulator::self->block->rank / emulator::group->cluster],
                            "sync_cluster", where);
}

template <class T>
void store_cluster(T* local, unsigned rank, const T& value, const Location& where = Location::current()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 16);
  const emulator::Block& own = *emulator::self->block;
  const auto offset = size_t(reinterpret_cast<unsigned char*>(local) - own.shared.get());
  if (offset % sizeof(T) || offset + sizeof(T) > own.shared_bytes)
    emulator::fail("store_cluster: not in shared memory", where);
  if (rank >= emulator::group->cluster) emulator::fail("store_cluster: no such block in the cluster", where);
  const unsigned first = own.rank - own.rank % emulator::group->cluster;
  const emulator::Block& other = *emulator::group->blocks[first + rank];
  bool there;
  {
    const emulator::Unwatched _;
    there = other.threads_begun > 0 && other.threads_left == 0;
  }
  if (!there)
    emulator::fail("store_cluster: the other block has not begun, or has left: sync_cluster is missing", where);
  *reinterpret_cast<T*>(other.shared.get() + offset) = value;
}

inline void add_release(uint32_t* counter, uint32_t value) {
  std::atomic_ref(*counter).fetch_add(value, std::memory_order_release);
  const emulator::Unwatched _;
  ++emulator::group->progress;
}

// Returns once *counter is `target`, or beyond: counters may wrap around.
inline void wait_acquire(const uint32_t* counter, uint32_t target, const Location& where = Location::current()) {
  while (int32_t(std::atomic_ref(*const_cast<uint32_t*>(counter)).load(std::memory_order_acquire) - target) < 0)
    emulator::spin(where);
}

struct LaunchShape {
  dim3 grid;
  unsigned threads;  // of a block
  size_t shared_bytes = 0;
  unsigned cluster = 1;      // blocks, along x
  bool cooperative = false;  // all blocks are on the GPU together
};

template <auto kKernel, class Params>
cudaError_t launch(const LaunchShape& shape, cudaStream_t, const Params& params) {
  emulator::run(
      {shape.grid, shape.threads, shape.shared_bytes, shape.cluster, shape.cooperative},
      [](const void* arguments) { kKernel(*static_cast<const Params*>(arguments)); }, &params);
  return cudaSuccess;
}

}  // namespace textclf_fast::cuda
