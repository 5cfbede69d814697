#include "core/exchange/share.h"

#include <algorithm>
#include <cstring>

namespace bottega {
namespace {

// Not finite is: all exponent bits set. With the other bits cut off, adding one to the exponent
// then carries into the sign's place and nowhere else, so a 64-bit word holds several elements, and
// the loop over a block of fixed size vectorises.
struct ExponentBits {
  uint64_t mask, one, carry;
};
constexpr ExponentBits kBF16Bits = {0x7f807f807f807f80, 0x0080008000800080, 0x8000800080008000};
constexpr ExponentBits kF32Bits = {0x7f8000007f800000, 0x0080000000800000, 0x8000000080000000};

bool CopyFinite(const std::byte* src, std::byte* dst, size_t bytes, const ExponentBits& bits) {
  constexpr size_t kWords = 16;
  constexpr size_t kBlock = kWords * sizeof(uint64_t);
  uint64_t carried[kWords] = {};
  uint64_t words[kWords];
  auto take = [&](size_t count) {
    std::memcpy(words, src, count);
    std::memcpy(dst, src, count);
    for (size_t i = 0; i < kWords; ++i) carried[i] |= (words[i] & bits.mask) + bits.one;
    src += count;
    dst += count;
  };
  size_t left = bytes;
  for (; left >= kBlock; left -= kBlock) take(kBlock);
  if (left > 0) {
    std::memset(words, 0, sizeof words);
    take(left);
  }
  uint64_t all = 0;
  for (uint64_t word : carried) all |= word;
  return (all & bits.carry) == 0;
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

FrameHeader ForwardHeader(const DispatchRequest& request, const ExchangeShape& shape,
                          Incarnation self, const PeerInfo& to, const Cut& cut) {
  FrameHeader header{};
  header.kind = static_cast<uint8_t>(FrameKind::kForward);
  header.row_type = static_cast<uint8_t>(shape.row_type);
  header.sender = self.value;
  header.receiver = to.incarnation.value;
  header.session_key = to.session_key;
  header.request_key = request.request_key;
  header.layer = request.layer.value;
  header.micro_batch = request.micro_batch;
  header.phase = static_cast<uint8_t>(request.phase);
  header.tokens = cut.tokens;
  header.entries = cut.entries;
  header.hidden = shape.hidden;
  return header;
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
  return CopyFinite(src, dst, shape.row_bytes(),
                    shape.row_type == DType::kBF16 ? kBF16Bits : kF32Bits);
}

}  // namespace bottega
