// What the programs of kernels read from a problem's file and write to a result's; and where they run: compiled by g++
// on the emulator, by nvcc on a GPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/lstm_plan.h"

namespace emulator {

#ifdef __CUDACC__

using Failure = std::runtime_error;
inline unsigned schedule = 0;  // a GPU has its own: a program's schedules are repetitions there

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw Failure(std::string("CUDA: ") + cudaGetErrorString(error));
}
// Until the GPU is done.
inline void finish() { check(cudaDeviceSynchronize()); }

// Memory of the GPU.
class Memory {
 public:
  explicit Memory(size_t bytes) {
    if (bytes) check(cudaMalloc(&at_, bytes));
  }
  Memory(const Memory&) = delete;
  ~Memory() { cudaFree(at_); }
  void* at(void* /*host*/) const { return at_; }
  void send(const void* host, size_t bytes) const {
    if (bytes) check(cudaMemcpy(at_, host, bytes, cudaMemcpyHostToDevice));
  }
  void fetch(void* host, size_t bytes) const {
    if (bytes) check(cudaMemcpy(host, at_, bytes, cudaMemcpyDeviceToHost));
  }

 private:
  void* at_ = nullptr;
};

inline textclf_fast::cuda::DeviceLimits limits() {
  const auto ask = [](cudaDeviceAttr attribute) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, attribute, 0));
    return value;
  };
  return {10 * ask(cudaDevAttrComputeCapabilityMajor) + ask(cudaDevAttrComputeCapabilityMinor),
          ask(cudaDevAttrMultiProcessorCount), ask(cudaDevAttrMaxSharedMemoryPerBlockOptin),
          ask(cudaDevAttrClusterLaunch) ? 8 : 1};
}

#else

inline void check(cudaError_t) {}
inline void finish() {}

// The host's memory is the device's.
class Memory {
 public:
  explicit Memory(size_t) {}
  void* at(void* host) const { return host; }
  void send(const void*, size_t) const {}
  void fetch(void*, size_t) const {}
};

// Of an H100.
inline textclf_fast::cuda::DeviceLimits limits() { return {90, 132, 227 << 10, 8}; }

#endif

// An array for kernels: at 16 bytes, as PyTorch's memory is, and past its end lies no byte of ours.
template <class T>
class Array {
 public:
  explicit Array(std::vector<T> given) : values(std::move(given)), memory_(bytes()) { send(); }
  // Where the kernels have it; null where there is none.
  T* data() { return values.empty() ? nullptr : static_cast<T*>(memory_.at(values.data())); }
  const T* data() const { return const_cast<Array*>(this)->data(); }
  // After a change of `values` here, or by a kernel there.
  void send() { memory_.send(values.data(), bytes()); }
  void fetch() { memory_.fetch(values.data(), bytes()); }
  void write(std::ofstream& file) {
    fetch();
    file.write(reinterpret_cast<const char*>(values.data()), std::streamsize(bytes()));
  }

  std::vector<T> values;

 private:
  size_t bytes() const { return values.size() * sizeof(T); }
  Memory memory_;
};

template <class T>
Array<T> read(std::ifstream& file, int64_t count, bool there = true) {
  std::vector<T> values(there ? size_t(count) : 0);
  file.read(reinterpret_cast<char*>(values.data()), std::streamsize(values.size() * sizeof(T)));
  return Array<T>(std::move(values));
}

template <class T>
Array<T> zeros(int64_t count) {
  return Array<T>(std::vector<T>(size_t(count)));
}

// Of NaN: not written is seen.
template <class T>
Array<T> result(int64_t count, bool there = true) {
  std::vector<T> values(there ? size_t(count) : 0);
  if (!values.empty()) std::memset(static_cast<void*>(values.data()), 0xff, values.size() * sizeof(T));
  return Array<T>(std::move(values));
}

// The forward's problem; the arrays follow.
struct Header {
  int64_t precision, rows, hidden, directions, steps, positions, gate_rows;
  int64_t ragged, indexed, with_states, with_output, with_saved;
};

}  // namespace emulator
