// A thread a column. The first kernel adds up each piece's runs of equal tokens; of a run that began in an earlier
// piece it leaves the sum in `carries`, which the second adds to where the run began.
#include "token_sums.h"

namespace textclf_fast::cuda {
namespace {

constexpr int kThreads = 128;

// A thread's piece and column.
template <class Number>
struct Part {
  int64_t column, piece, first, end, pieces;
  int direction;

  __device__ explicit Part(const TokenSums<Number>& p)
      : column(int64_t(blockIdx.y) * kThreads + threadIdx.x),
        piece(blockIdx.x),
        first(piece * kPiecePositions),
        end(first + kPiecePositions < p.positions ? first + kPiecePositions : p.positions),
        pieces(gridDim.x),
        direction(int(blockIdx.z)) {}
  // Whether the run that a sorted position is in began before it.
  __device__ static bool goes_on(const TokenSums<Number>& p, int64_t at) {
    return at > 0 && p.tokens[at - 1] == p.tokens[at];
  }
  __device__ StepValue<Number>* carry(const TokenSums<Number>& p, int64_t of) const {
    return p.carries + (direction * pieces + of) * p.width + column;
  }
  __device__ StepValue<Number>* sum(const TokenSums<Number>& p, int64_t token) const {
    return p.sums + (direction * p.rows + token) * p.width + column;
  }
};

template <class Number>
__global__ void __launch_bounds__(kThreads) sum_pieces(const __grid_constant__ TokenSums<Number> p) {
  const Part<Number> part(p);
  if (part.column >= p.width) return;
  const Number* values = p.values + part.direction * p.positions * p.width + part.column;
  bool carried = Part<Number>::goes_on(p, part.first);
  StepValue<Number> sum = 0;
  int64_t token = p.tokens[part.first];
#pragma unroll 4
  for (int64_t at = part.first; at < part.end; ++at) {
    sum += StepNumbers<Number>::value(values[p.order[at] * p.width]);
    const int64_t next = at + 1 < part.end ? p.tokens[at + 1] : -1;
    if (at + 1 < part.end && next == token) continue;
    if (carried) {
      *part.carry(p, part.piece) = sum;
    } else if (token >= 0 && token < p.rows) {
      *part.sum(p, token) = sum;
    }
    sum = 0;
    carried = false;
    token = next;
  }
}

template <class Number>
__global__ void __launch_bounds__(kThreads) add_carries(const __grid_constant__ TokenSums<Number> p) {
  const Part<Number> part(p);
  if (part.column >= p.width || part.end == p.positions || !Part<Number>::goes_on(p, part.end)) return;
  const int64_t token = p.tokens[part.end];
  const bool began_here = p.tokens[part.first] != token || !Part<Number>::goes_on(p, part.first);
  if (!began_here || token < 0 || token >= p.rows) return;
  StepValue<Number> sum = *part.sum(p, token);
  for (int64_t piece = part.piece + 1; piece < part.pieces && p.tokens[piece * kPiecePositions] == token; ++piece)
    sum += *part.carry(p, piece);
  *part.sum(p, token) = sum;
}

}  // namespace

template <class Number>
cudaError_t launch_token_sums(const TokenSums<Number>& sums, int directions, cudaStream_t stream) {
  const auto columns = unsigned((sums.width + kThreads - 1) / kThreads);
  const LaunchShape shape{{unsigned(sums.pieces()), columns, unsigned(directions)}, kThreads};
  const cudaError_t error = launch<sum_pieces<Number>>(shape, stream, sums);
  return error == cudaSuccess ? launch<add_carries<Number>>(shape, stream, sums) : error;
}

template cudaError_t launch_token_sums(const TokenSums<double>&, int, cudaStream_t);
template cudaError_t launch_token_sums(const TokenSums<float>&, int, cudaStream_t);
template cudaError_t launch_token_sums(const TokenSums<BFloat16>&, int, cudaStream_t);
template cudaError_t launch_token_sums(const TokenSums<Half>&, int, cudaStream_t);

}  // namespace textclf_fast::cuda
