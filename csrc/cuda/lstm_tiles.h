// How the persistent kernels cut a layer, in numbers that the plan and the kernels share. No CUDA header is needed.
//
// A team of blocks has a slice of the batch's rows and keeps all of one direction's W_hh on chip. A warp has a unit
// tile (8 hidden units, their four gates) for a part of the depth H, in chunks of 64 bytes: 16 numbers of 32 bits or 32
// of 16 bits. One lane holds of a chunk 16 bytes for each gate of one unit, so a warp's chunk is 32 * 64 = 2048 bytes.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace textclf_fast::cuda {

constexpr int kTileUnits = 8;
constexpr int kTileRows = 8;
constexpr int kChunkBytes = 64;
constexpr int kWarpChunkBytes = 32 * kChunkBytes;

// 512 threads of 128 registers take an SM's 65,536. What a lane needs besides weights: 8 sums a row tile, 8 gates of
// the coming step, states, rows, addresses; in strict float32 32 sums, of one row tile after the other, so that a
// second one would spare nothing. What is left for weights, in chunks of 16 registers, without a spill (ptxas -v); a
// team with one image, of a grid, has addresses more to keep. So registers hold 16 * 3 * 2 KiB = 96 KiB of a block's
// weights at most, and shared memory up to 227 KiB (sm_90), less h.
constexpr int kMaxWarps = 16;
TEXTCLF_HOST_DEVICE constexpr int register_chunks(bool strict, int row_tiles, int images) {
  return images + (strict ? 0 : 2 - row_tiles);
}
TEXTCLF_HOST_DEVICE constexpr int most_row_tiles(bool strict) { return strict ? 1 : 2; }

TEXTCLF_HOST_DEVICE constexpr int ceil_div(int64_t a, int64_t b) { return int((a + b - 1) / b); }

// A team's part of the work, and where it lies in a block's shared memory.
struct Tiles {
  int team;          // blocks
  int unit_tiles;    // of a block
  int splits;        // warps that share a unit tile, each with a part of the depth
  int chunks;        // of a warp; the last split may have fewer
  int total_chunks;  // of a row of W_hh
  int row_tiles;     // of a team: 8 rows each
  int kept;          // chunks of a warp that are in registers, of those it has

  TEXTCLF_HOST_DEVICE constexpr int warps() const { return unit_tiles * splits; }
  TEXTCLF_HOST_DEVICE constexpr int shared_chunks() const { return chunks > kept ? chunks - kept : 0; }

  // A row of h. Two rows that lanes of one quarter warp read, 16 bytes each, differ by half of the 128 bytes that the
  // banks give at once.
  TEXTCLF_HOST_DEVICE constexpr int row_bytes() const { return (total_chunks | 1) * kChunkBytes; }
  // h of the team's rows.
  TEXTCLF_HOST_DEVICE constexpr int image_bytes() const { return row_tiles * kTileRows * row_bytes(); }

  // Shared memory: weights; images of h; where there are splits, their sums, 8 floats a lane and row tile.
  TEXTCLF_HOST_DEVICE constexpr int64_t images_at() const {
    return int64_t(warps()) * shared_chunks() * kWarpChunkBytes;
  }
  TEXTCLF_HOST_DEVICE constexpr int64_t sums_at(int images) const {
    return images_at() + int64_t(images) * image_bytes();
  }
  TEXTCLF_HOST_DEVICE constexpr int64_t shared_bytes(int images) const {
    return sums_at(images) + (splits > 1 ? int64_t(warps()) * row_tiles * 32 * 32 : 0);
  }
};

}  // namespace textclf_fast::cuda
