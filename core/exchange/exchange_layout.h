#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/limits.h"
#include "core/base/strong_id.h"
#include "core/tensor/dtype.h"

namespace bottega {

// The bytes that attention workers and expert workers exchange. This is their only owner: whoever
// builds or reads a frame goes through this file. Little-endian, versioned, guarded by CRC32C.
//
//   FORWARD  header | offsets u32[tokens + 1] | experts u16[entries] | 0 to a multiple of 64 |
//            rows R[tokens][hidden]
//   REPLY    header | rows R[entries][hidden], unweighted, in the entry order of its FORWARD
//   NACK     header; `reason` says why the FORWARD was not served
//   PROBE    header of a FORWARD that is overdue: is it still queued?
//   ALIVE    header; the answer to a PROBE, `reason` kQueued or kNotQueued
//
// An entry is one (token, expert) pair. offsets is a CSR index: the experts of token t are
// experts[offsets[t] .. offsets[t + 1]), ascending and distinct, at least one.
inline constexpr uint32_t kFrameMagic = 0x58475442;  // "BTGX"
inline constexpr uint16_t kFrameVersion = 1;
inline constexpr size_t kFrameAlignment = 64;  // of the frame in memory, and of its rows

enum class FrameKind : uint8_t { kForward = 1, kReply = 2, kNack = 3, kProbe = 4, kAlive = 5 };

enum class FramePhase : uint8_t { kDecode = 0, kPrefill = 1 };  // decode is served first

enum class FrameReason : uint8_t {
  kNone = 0,
  kBusy = 1,       // NACK: past the pair's credits, or no memory
  kNotHeld = 2,    // NACK: an expert is not here; `epoch` is the worker's
  kCorrupt = 3,    // NACK: the CRC did not match
  kDraining = 4,   // NACK: takes no new work
  kExpired = 5,    // NACK: remaining_us passed in the queue
  kQueued = 6,     // ALIVE
  kNotQueued = 7,  // ALIVE: never came, or was answered before this
  // FORWARD: workers died under these rows; they wait until their asker knows that they are
  // computed next, and nobody else's such rows beside them. ALIVE: now? PROBE: yes.
  kTrial = 8,
};
std::string_view Name(FrameReason reason);

// Every answer repeats identity, shape and epoch of the frame it answers (a NACK's epoch is its
// sender's own), with sender and receiver swapped.
struct FrameHeader {
  uint32_t magic;
  uint16_t version;
  uint8_t kind;      // FrameKind
  uint8_t row_type;  // DType of rows: R
  uint32_t crc;      // CRC32C of the whole frame with this field 0
  uint32_t frame_bytes;

  uint64_t sender;       // incarnations
  uint64_t receiver;     //
  uint64_t session_key;  // of the pair
  uint64_t request_key;  // the attention worker's name for the step
  uint64_t sequence;     // of the FORWARD, unique for its sender's incarnation; never 0
  uint64_t epoch;        // of the sender's table

  uint16_t layer;
  uint16_t micro_batch;
  uint16_t part;   // of the dispatch, resends included; stays at kPartsMax - 1 past that
  uint16_t parts;  // so far, this one included

  uint8_t attempt;  // 1..kAttemptsMax
  uint8_t reason;   // FrameReason
  uint8_t phase;    // FramePhase
  uint8_t zero;
  uint32_t tokens;
  uint32_t entries;
  uint32_t hidden;

  // FORWARD: until the answer is worthless; 0: no limit. REPLY: predicted time of what other pairs
  // have queued at its sender.
  uint32_t remaining_us;
  uint32_t credits;  // rows: FORWARD: in flight with this frame; answers: granted to the pair

  uint64_t reserved[4];  // 0
};
static_assert(sizeof(FrameHeader) == 128);
static_assert(sizeof(FrameHeader) % kFrameAlignment == 0);
static_assert(offsetof(FrameHeader, crc) == 8);
static_assert(offsetof(FrameHeader, sender) == 16);
static_assert(offsetof(FrameHeader, layer) == 64);
static_assert(offsetof(FrameHeader, attempt) == 72);
static_assert(offsetof(FrameHeader, tokens) == 76);
static_assert(offsetof(FrameHeader, remaining_us) == 88);
static_assert(std::is_trivially_copyable_v<FrameHeader> &&
              std::has_unique_object_representations_v<FrameHeader>);
static_assert(std::endian::native == std::endian::little, "frames are little-endian");

// What both ends of a pair agreed on before the first frame.
struct ExchangeShape {
  uint32_t layers = 0;
  uint32_t experts = 0;  // per layer
  uint32_t top_k = 0;
  uint32_t hidden = 0;
  DType row_type = DType::kBF16;

  size_t row_bytes() const { return size_t{hidden} * SizeOf(row_type); }
};

constexpr size_t ForwardRowsOffset(size_t tokens, size_t entries) {
  const size_t index = sizeof(FrameHeader) + (tokens + 1) * 4 + entries * 2;
  return (index + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment;
}
constexpr size_t ForwardBytes(size_t tokens, size_t entries, size_t row_bytes) {
  return ForwardRowsOffset(tokens, entries) + tokens * row_bytes;
}
constexpr size_t ReplyBytes(size_t entries, size_t row_bytes) {
  return sizeof(FrameHeader) + entries * row_bytes;
}

// A frame that passed CheckFrame; points into the frame.
struct FrameView {
  FrameHeader header;
  absl::Span<const uint32_t> offsets;  // FORWARD: [tokens + 1]
  absl::Span<const uint16_t> experts;  // FORWARD: [entries]
  const std::byte* rows = nullptr;     // FORWARD: [tokens, hidden]; REPLY: [entries, hidden]

  FrameKind kind() const { return static_cast<FrameKind>(header.kind); }
  FrameReason reason() const { return static_cast<FrameReason>(header.reason); }
};

// Is `session_key` that of the pair we have with this incarnation?
using KnownPair = absl::FunctionRef<bool(Incarnation sender, uint64_t session_key)>;

// All that can be known about a frame without state: nothing of it may be used before this said ok.
// Pure; reads nothing outside `bytes` whatever they hold; does not read rows but for the CRC.
// Order and codes (they name the reason in dropped_frames_total):
//   InvalidArgument     too short, misaligned, not a frame, other version
//   FailedPrecondition  meant for another incarnation of us
//   PermissionDenied    not from a pair of ours: wrong incarnation or session key
//   DataLoss            CRC
//   OutOfRange          counts, ids, lengths or row type that do not fit `shape` or the limits
absl::StatusOr<FrameView> CheckFrame(absl::Span<const std::byte> bytes, const ExchangeShape& shape,
                                     Incarnation self, KnownPair known);

// The header of a frame that failed with DataLoss: a hint whom to ask again, never more.
FrameHeader UncheckedHeader(absl::Span<const std::byte> bytes);

// Sets magic, version, frame_bytes and, last, the CRC. The rest of the frame must be written.
void SealFrame(FrameHeader header, absl::Span<std::byte> frame);

// The header of an answer of `kind` to `forward`: identity kept, ends swapped.
FrameHeader AnswerTo(const FrameHeader& forward, FrameKind kind, FrameReason reason);

}  // namespace bottega
