#include "core/exchange/share.h"

#include <algorithm>
#include <cstring>

namespace bottega {
namespace {

// All exponent bits set: NaN or infinity. No branch in the loop, so that it vectorises.
template <class Word>
bool CopyFinite(const std::byte* src, std::byte* dst, size_t count, Word exponent) {
  std::memcpy(dst, src, count * sizeof(Word));
  Word bad = 0;
  for (size_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, src + i * sizeof(Word), sizeof word);
    bad |= static_cast<Word>((word & exponent) == exponent);
  }
  return bad == 0;
}

}  // namespace

ShareLimits ShareLimitsFor(const ExchangeShape& shape) {
  const size_t rows = limits::kPartBytesMax / std::max<size_t>(1, shape.row_bytes());
  const size_t most = std::min<size_t>(rows, limits::kCreditRows / 2);
  return {.entries = static_cast<uint32_t>(std::max<size_t>(shape.top_k, most))};
}

Cut CutShare(const EntryOf& of, absl::Span<const uint32_t> entries, const ShareLimits& limits,
             uint32_t free_rows, bool force) {
  Cut cut;
  while (cut.entries < entries.size() && cut.tokens < limits.tokens) {
    const uint32_t token = of.token(entries[cut.entries]);
    uint32_t end = cut.entries;
    while (end < entries.size() && of.token(entries[end]) == token) ++end;
    if (end > limits.entries || end > free_rows) {
      if (cut.tokens == 0 && force) return {end, 1};
      return cut;
    }
    cut.entries = end;
    ++cut.tokens;
  }
  return cut;
}

void WriteForward(const EntryOf& of, absl::Span<const uint32_t> entries, const ExchangeShape& shape,
                  FrameHeader header, absl::Span<std::byte> frame) {
  std::byte* const offsets = frame.data() + sizeof(FrameHeader);
  std::byte* const experts = offsets + (size_t{header.tokens} + 1) * sizeof(uint32_t);
  std::byte* const rows = frame.data() + ForwardRowsOffset(header.tokens, header.entries);
  // The padding is zero: the CRC covers it, and memory of an earlier frame must not travel.
  std::byte* const lists_end = experts + entries.size() * sizeof(uint16_t);
  std::memset(lists_end, 0, static_cast<size_t>(rows - lists_end));

  uint32_t t = 0;
  for (uint32_t i = 0; i < entries.size(); ++i) {
    const uint16_t expert = of.expert(entries[i]);
    std::memcpy(experts + i * sizeof expert, &expert, sizeof expert);
    if (i > 0 && of.token(entries[i]) == of.token(entries[i - 1])) continue;
    std::memcpy(offsets + t * sizeof i, &i, sizeof i);
    std::memcpy(rows + t * shape.row_bytes(),
                of.request.rows + size_t{of.token(entries[i])} * shape.row_bytes(),
                shape.row_bytes());
    ++t;
  }
  const uint32_t end = static_cast<uint32_t>(entries.size());
  std::memcpy(offsets + t * sizeof end, &end, sizeof end);
  SealFrame(header, frame);
}

bool CopyFiniteRow(const std::byte* src, std::byte* dst, const ExchangeShape& shape) {
  if (shape.row_type == DType::kBF16) {
    return CopyFinite<uint16_t>(src, dst, shape.hidden, 0x7f80);
  }
  return CopyFinite<uint32_t>(src, dst, shape.hidden, 0x7f800000);
}

}  // namespace bottega
