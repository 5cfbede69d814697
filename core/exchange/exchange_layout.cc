#include "core/exchange/exchange_layout.h"

#include <cstring>

#include "core/base/crc32c.h"
#include "core/exchange/planted_bug.h"

namespace bottega {
namespace {

// CRC of the frame with its own field zero.
uint32_t FrameCrc(const FrameHeader& header, absl::Span<const std::byte> frame) {
  FrameHeader blank = header;
  blank.crc = 0;
  const uint32_t crc = Crc32c(&blank, sizeof blank);
  return ExtendCrc32c(crc, frame.data() + sizeof blank, frame.size() - sizeof blank);
}

absl::Status Misfit(const char* what) { return absl::OutOfRangeError(what); }

// What a header may say, whatever its kind. `shape` bounds everything, so that sizes computed from
// the counts cannot overflow.
absl::Status CheckCounts(const FrameHeader& header, const ExchangeShape& shape) {
  if (header.row_type != static_cast<uint8_t>(shape.row_type)) return Misfit("row type");
  if (header.hidden != shape.hidden) return Misfit("hidden");
  if (header.layer >= shape.layers) return Misfit("layer");
  if (header.sequence == 0) return Misfit("sequence");
  if (header.parts > limits::kPartsMax || header.part >= header.parts) return Misfit("part");
  if (header.attempt < 1 || header.attempt > limits::kAttemptsMax) return Misfit("attempt");
  if (header.phase > static_cast<uint8_t>(FramePhase::kPrefill)) return Misfit("phase");
  if (header.reason > static_cast<uint8_t>(FrameReason::kTrial)) return Misfit("reason");
  if (header.tokens < 1 || header.tokens > limits::kFrameTokensMax) return Misfit("tokens");
  if (header.entries < header.tokens || header.entries > header.tokens * shape.top_k) {
    return Misfit("entries");
  }
  if (header.zero != 0) return Misfit("reserved");
  for (uint64_t reserved : header.reserved) {
    if (reserved != 0) return Misfit("reserved");
  }
  return absl::OkStatus();
}

// The lists of a FORWARD: every token at least one expert, ascending, of this layer.
absl::Status CheckLists(const FrameView& view, const ExchangeShape& shape) {
  if (view.offsets.front() != 0 || view.offsets.back() != view.experts.size()) {
    return Misfit("offsets do not span the entries");
  }
  for (size_t t = 0; t + 1 < view.offsets.size(); ++t) {
    const uint32_t begin = view.offsets[t], end = view.offsets[t + 1];
    if (begin >= end || end > view.experts.size() || end - begin > shape.top_k) {
      return Misfit("a token's list of experts");
    }
    for (uint32_t i = begin; i < end; ++i) {
      if (view.experts[i] >= shape.experts) return Misfit("expert");
      if (i > begin && view.experts[i] <= view.experts[i - 1]) return Misfit("order of experts");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBody(absl::Span<const std::byte> bytes, const ExchangeShape& shape,
                       FrameView* view) {
  const FrameHeader& header = view->header;
  switch (view->kind()) {
    case FrameKind::kForward: {
      if (bytes.size() != ForwardBytes(header.tokens, header.entries, shape.row_bytes())) {
        return Misfit("length of a FORWARD");
      }
      const std::byte* offsets = bytes.data() + sizeof(FrameHeader);
      const std::byte* experts = offsets + (size_t{header.tokens} + 1) * sizeof(uint32_t);
      view->offsets = {reinterpret_cast<const uint32_t*>(offsets), size_t{header.tokens} + 1};
      view->experts = {reinterpret_cast<const uint16_t*>(experts), header.entries};
      view->rows = bytes.data() + ForwardRowsOffset(header.tokens, header.entries);
      return CheckLists(*view, shape);
    }
    case FrameKind::kReply:
      if (bytes.size() != ReplyBytes(header.entries, shape.row_bytes())) {
        return Misfit("length of a REPLY");
      }
      view->rows = bytes.data() + sizeof(FrameHeader);
      return absl::OkStatus();
    case FrameKind::kNack:
    case FrameKind::kProbe:
    case FrameKind::kAlive:
      if (bytes.size() != sizeof(FrameHeader)) return Misfit("length of a bare header");
      return absl::OkStatus();
  }
  return Misfit("kind");
}

}  // namespace

std::string_view Name(FrameReason reason) {
  switch (reason) {
    case FrameReason::kNone:
      return "none";
    case FrameReason::kBusy:
      return "busy";
    case FrameReason::kNotHeld:
      return "not_held";
    case FrameReason::kCorrupt:
      return "corrupt";
    case FrameReason::kDraining:
      return "draining";
    case FrameReason::kExpired:
      return "expired";
    case FrameReason::kQueued:
      return "queued";
    case FrameReason::kNotQueued:
      return "not_queued";
    case FrameReason::kTrial:
      return "trial";
  }
  return "unknown";
}

absl::StatusOr<FrameView> CheckFrame(absl::Span<const std::byte> bytes, const ExchangeShape& shape,
                                     Incarnation self, KnownPair known) {
  if (bytes.size() < sizeof(FrameHeader) || bytes.size() > limits::kFrameBytesMax) {
    return absl::InvalidArgumentError("length of a frame");
  }
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kFrameAlignment != 0) {
    return absl::InvalidArgumentError("alignment of a frame");
  }
  FrameView view;
  std::memcpy(&view.header, bytes.data(), sizeof view.header);
  const FrameHeader& header = view.header;
  if (header.magic != kFrameMagic) return absl::InvalidArgumentError("magic");
  if (header.version != kFrameVersion) return absl::InvalidArgumentError("version");
  if (header.frame_bytes != bytes.size()) return absl::InvalidArgumentError("frame_bytes");
  constexpr bool kFenced = kPlantedBug != PlantedBug::kNoFence;
  if (kFenced && header.receiver != self.value) return absl::FailedPreconditionError("receiver");
  const bool ours = known(Incarnation{header.sender}, header.session_key);
  if (kFenced && !ours) {
    return absl::PermissionDeniedError("no pair of ours");
  }
  if (kPlantedBug != PlantedBug::kNoCrc && FrameCrc(header, bytes) != header.crc)
    return absl::DataLossError("CRC");
  if (absl::Status status = CheckCounts(header, shape); !status.ok()) return status;
  if (absl::Status status = CheckBody(bytes, shape, &view); !status.ok()) return status;
  return view;
}

FrameHeader UncheckedHeader(absl::Span<const std::byte> bytes) {
  FrameHeader header{};
  std::memcpy(&header, bytes.data(), std::min(bytes.size(), sizeof header));
  return header;
}

void SealFrame(FrameHeader header, absl::Span<std::byte> frame) {
  header.magic = kFrameMagic;
  header.version = kFrameVersion;
  header.frame_bytes = static_cast<uint32_t>(frame.size());
  header.crc = FrameCrc(header, frame);
  std::memcpy(frame.data(), &header, sizeof header);
}

FrameHeader AnswerTo(const FrameHeader& forward, FrameKind kind, FrameReason reason) {
  FrameHeader answer = forward;
  answer.kind = static_cast<uint8_t>(kind);
  answer.reason = static_cast<uint8_t>(reason);
  std::swap(answer.sender, answer.receiver);
  answer.remaining_us = 0;
  return answer;
}

}  // namespace bottega
