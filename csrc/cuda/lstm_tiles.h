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

// In the order in which they are preferred: the less synchronisation the better.
enum class Family { kBlock, kCluster, kGrid, kStepwise };

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

  // Images of h in a block's shared memory: a step reads one and writes the other, but where that is in global memory.
  static constexpr int buffers(Family family) { return family == Family::kGrid ? 1 : 2; }

  TEXTCLF_HOST_DEVICE constexpr int warps() const { return unit_tiles * splits; }
  TEXTCLF_HOST_DEVICE constexpr int shared_chunks() const { return chunks > kept ? chunks - kept : 0; }

  // A row of h. Two rows that lanes of one quarter warp read, 16 bytes each, differ by half of the 128 bytes that the
  // banks give at once.
  TEXTCLF_HOST_DEVICE constexpr int row_bytes() const { return (total_chunks | 1) * kChunkBytes; }
  // h of the team's rows.
  TEXTCLF_HOST_DEVICE constexpr int image_bytes() const { return row_tiles * kTileRows * row_bytes(); }

  // Shared memory: weights; images of h; where there are splits, their sums, 8 floats a lane and row tile.
  TEXTCLF_HOST_DEVICE constexpr int64_t weight_bytes() const {
    return int64_t(warps()) * shared_chunks() * kWarpChunkBytes;
  }
  TEXTCLF_HOST_DEVICE constexpr int64_t images_at() const { return weight_bytes(); }
  TEXTCLF_HOST_DEVICE constexpr int64_t sums_at(int images) const {
    return images_at() + int64_t(images) * image_bytes();
  }
  TEXTCLF_HOST_DEVICE constexpr int64_t shared_bytes(int images) const {
    return sums_at(images) + (splits > 1 ? int64_t(warps()) * row_tiles * 32 * 32 : 0);
  }
};

// The backward's. A step's product, grad_h = grad_gates W_hh, has depth 4H and H columns: the transpose of the
// forward's. So a block that owns some units keeps the rows of W_hh that are their gates, multiplies their gates'
// gradients, which no other block needs, by all columns, and sends of the sums to each block those of its units. To
// send the gates' gradients themselves, as the forward sends h, would take 4 numbers a unit, and an image of all of
// them in every block.
//
// A warp has tiles of 32 columns for a part of the depth, in chunks as above: of each a lane holds 16 bytes for four
// neighbouring columns.
constexpr int kTileColumns = 32;
// As in the forward; what a lane has of its own cells are numbers as they are in memory, and so twice as many registers
// where those have 32 bits. A grid's addresses take some more.
TEXTCLF_HOST_DEVICE constexpr int backward_register_chunks(bool strict, int number_bytes, int row_tiles,
                                                           Family family) {
  const bool scarce = number_bytes == 4 && (row_tiles == 2 || family == Family::kGrid);
  return (strict ? 2 : 4 - row_tiles) - scarce;
}

struct BackwardTiles {
  int team;          // blocks
  int units;         // of a block; a multiple of 8
  int warp_tiles;    // of a warp; the last warps may have fewer
  int columns;       // warps that have different tiles
  int splits;        // warps that share tiles, each with a part of the depth
  int chunks;        // of a warp and tile; the last split may have fewer
  int total_chunks;  // of the depth: 4 gates of the block's units
  int row_tiles;     // of a team: 8 rows each
  int kept;          // chunks of a warp's first tile that are in registers, of those it has

  // Buffers of sums in a block's shared memory. A block that others write to has a second one; a grid's are in global
  // memory, and are copied.
  static constexpr int buffers(Family family) { return family == Family::kCluster ? 2 : 1; }

  TEXTCLF_HOST_DEVICE constexpr int warps() const { return columns * splits; }
  TEXTCLF_HOST_DEVICE constexpr int rows() const { return row_tiles * kTileRows; }
  TEXTCLF_HOST_DEVICE constexpr int shared_chunks() const {
    return warp_tiles * chunks - (chunks < kept ? chunks : kept);
  }

  // A row of the image: the gates' gradients of the block's units, a unit's four side by side.
  TEXTCLF_HOST_DEVICE constexpr int row_bytes() const { return (total_chunks | 1) * kChunkBytes; }
  TEXTCLF_HOST_DEVICE constexpr int image_bytes() const { return rows() * row_bytes(); }

  // Sums that a block gets in a step: of every split of every block, rows of its units. Four lanes of one quarter warp
  // write rows 0, 2, 4 and 6: they meet different banks.
  TEXTCLF_HOST_DEVICE constexpr int sums_row() const { return units + 4; }
  TEXTCLF_HOST_DEVICE constexpr int senders() const { return team * splits; }
  TEXTCLF_HOST_DEVICE constexpr int64_t sums_bytes() const { return int64_t(senders()) * rows() * sums_row() * 4; }

  // Shared memory: weights, the image, sums.
  TEXTCLF_HOST_DEVICE constexpr int64_t weight_bytes() const {
    return int64_t(warps()) * shared_chunks() * kWarpChunkBytes;
  }
  TEXTCLF_HOST_DEVICE constexpr int64_t sums_at() const { return weight_bytes() + image_bytes(); }
  TEXTCLF_HOST_DEVICE constexpr int64_t shared_bytes(int buffers) const { return sums_at() + buffers * sums_bytes(); }
};

}  // namespace textclf_fast::cuda
