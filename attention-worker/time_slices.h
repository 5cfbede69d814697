#pragma once

#include <array>
#include <cstdint>

#include "core/base/time.h"

namespace bottega {

// A prefill step runs in pieces, none of which can be interrupted. Each has a work, in a unit that
// its time is proportional to. The last one, of decode steps too, is cut likewise.
enum class Piece : uint8_t {
  kProject,     // a layer up to K and V; tokens
  kAttend,      // of some tokens; tokens times positions that they see times kv heads
  kProjectOut,  // tokens
  kFfn,         // the rest of the layer, with the exchange; tokens
  kHead,        // rows of logits
};
inline constexpr int kPieces = 5;

// How long prefill may keep decode steps waiting: a slice, which ends where the next piece would
// no longer fit its budget. The budget is 2/3 of what a decode step takes, so that a token gap
// stays, with some air, below twice what it is without prefill, or as told. What pieces cost is
// learned from the last ones.
class TimeSlices {
 public:
  explicit TimeSlices(Duration budget) : told_(budget) {}  // 0: by the decode steps

  void DecodeTook(Duration took);
  Duration budget() const;

  void BeginSlice(Time now) { slice_ = now; }
  Time slice_began() const { return slice_; }
  // Of the slice that began last; the first piece of one always fits.
  bool Fits(Piece piece, int64_t work, Time now) const;
  void BeginPiece(Piece piece, int64_t work, Time now);
  void EndPiece(Time now);

  // So many tokens that a layer of a step of them fits a slice, but for its attention, which is cut
  // into pieces of its own; no fewer than would be much slower a token, and at most `most`.
  int32_t StepTokens(int32_t most) const;
  // So much work of a piece that can be cut that the loop, and with it what others take for a sign
  // of life, waits for it no longer than 50 ms, if 16 units take no longer.
  int64_t Most(Piece piece) const;

 private:
  Duration Predicted(Piece piece, int64_t work) const;

  const Duration told_;
  Duration decode_{};                   // of a decode step, smoothed; 0: none yet
  std::array<double, kPieces> cost_{};  // ns a unit of work
  Time slice_{};
  Piece piece_ = Piece::kProject;
  int64_t work_ = 0;  // of the piece under way; 0: none
  Time began_{};
};

}  // namespace bottega
