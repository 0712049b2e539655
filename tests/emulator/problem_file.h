// What tests/emulated_lstm.py writes for a program, and reads from it: arrays, one after the other.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <vector>

struct Header {
  int64_t precision, rows, hidden, directions, steps, positions, gate_rows;
  int64_t ragged, indexed, with_states, with_output, with_saved;
};

template <class T>
std::vector<T> read(std::ifstream& file, int64_t count, bool there = true) {
  std::vector<T> values(there ? size_t(count) : 0);
  file.read(reinterpret_cast<char*>(values.data()), std::streamsize(values.size() * sizeof(T)));
  return values;
}

template <class T>
const T* pointer(const std::vector<T>& values) {
  return values.empty() ? nullptr : values.data();
}

// At 16 bytes, as PyTorch's memory is, and of NaN: not written is seen. Past the end lies no byte of ours.
template <class T>
struct Result {
  explicit Result(int64_t count, bool there = true) : values(there ? size_t(count) : 0) {
    if (!values.empty()) std::memset(static_cast<void*>(values.data()), 0xff, values.size() * sizeof(T));
  }
  T* data() { return values.empty() ? nullptr : values.data(); }
  void write(std::ofstream& file) const {
    file.write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size() * sizeof(T)));
  }
  std::vector<T> values;
};
