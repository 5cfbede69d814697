#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "core/exchange/dispatch.h"
#include "core/exchange/exchange_layout.h"

namespace bottega {

// An entry of a dispatch: token * top_k + place in the token's list of experts.
struct EntryOf {
  const DispatchRequest& request;
  uint32_t top_k;
  uint32_t token(uint32_t entry) const { return entry / top_k; }
  uint16_t expert(uint32_t entry) const { return request.experts[entry]; }
};

// What one frame may carry: its rows there and, since every entry comes back as a row, the reply's
// rows stay within a part (limits::kPartBytesMax), but a token's experts stay together.
struct ShareLimits {
  uint32_t entries;
  uint32_t tokens = limits::kFrameTokensMax;
};
ShareLimits ShareLimitsFor(const ExchangeShape& shape);

// How many of `entries` (ascending; all for one worker) make the next frame, with at most
// `free_rows` entries: whole tokens only, at least one token if `force`. 0: does not fit.
struct Cut {
  uint32_t entries = 0;
  uint32_t tokens = 0;
};
Cut CutShare(const EntryOf& of, absl::Span<const uint32_t> entries, const ShareLimits& limits,
             uint32_t free_rows, bool force);

// What the header of a FORWARD says of its request and its two ends: all but the sender's own
// counts (sequence, epoch, parts, attempt, credits, time).
FrameHeader ForwardHeader(const DispatchRequest& request, const ExchangeShape& shape,
                          Incarnation self, const PeerInfo& to, const Cut& cut);

// Writes lists and rows of a FORWARD for `entries` and seals it; `frame` has ForwardBytes.
void WriteForward(const EntryOf& of, absl::Span<const uint32_t> entries, const ExchangeShape& shape,
                  FrameHeader header, absl::Span<std::byte> frame);

// Copies a row of `hidden` elements of R; false, with dst undefined, if one is NaN or infinite.
bool CopyFiniteRow(const std::byte* src, std::byte* dst, const ExchangeShape& shape);

}  // namespace bottega
