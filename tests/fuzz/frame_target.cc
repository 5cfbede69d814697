// Frames of the exchange: header, lists of experts, lengths. Every input is checked as it is and
// once more with its CRC made right, as a peer gone mad would send it.
#include <cstdlib>
#include <cstring>
#include <memory>

#include "core/exchange/exchange_layout.h"
#include "tests/fuzz/fuzz_target.h"

namespace bottega {
namespace {

constexpr Incarnation kSelf{7};
constexpr ExchangeShape kShape{
    .layers = 3, .experts = 16, .top_k = 4, .hidden = 24, .row_type = DType::kBF16};

struct Free {
  void operator()(std::byte* p) const { std::free(p); }
};

// Exactly `bytes` long, aligned as a transport's frames are.
std::unique_ptr<std::byte, Free> AlignedCopy(std::span<const std::byte> bytes) {
  void* block = nullptr;
  if (posix_memalign(&block, kFrameAlignment, bytes.empty() ? 1 : bytes.size()) != 0) std::abort();
  if (!bytes.empty()) std::memcpy(block, bytes.data(), bytes.size());
  return std::unique_ptr<std::byte, Free>(static_cast<std::byte*>(block));
}

FrameHeader Header(FrameKind kind, uint32_t tokens, uint32_t entries) {
  FrameHeader header{};
  header.kind = static_cast<uint8_t>(kind);
  header.row_type = static_cast<uint8_t>(kShape.row_type);
  header.receiver = kSelf.value;
  header.sequence = 1;
  header.parts = header.attempt = 1;
  header.tokens = tokens;
  header.entries = entries;
  header.hidden = kShape.hidden;
  return header;
}

std::string Sealed(const FrameHeader& header, std::string body) {
  std::string frame(sizeof(FrameHeader), '\0');
  frame += body;
  SealFrame(header, {reinterpret_cast<std::byte*>(frame.data()), frame.size()});
  return frame;
}

std::vector<std::string> Seeds() {
  const uint32_t offsets[] = {0, 2, 3, 6};
  const uint16_t experts[] = {1, 5, 5, 0, 9, 15};
  std::string forward(ForwardBytes(3, 6, kShape.row_bytes()) - sizeof(FrameHeader), 'r');
  std::memcpy(forward.data(), offsets, sizeof offsets);
  std::memcpy(forward.data() + sizeof offsets, experts, sizeof experts);
  const std::string reply(6 * kShape.row_bytes(), 'r');
  return {Sealed(Header(FrameKind::kForward, 3, 6), forward),
          Sealed(Header(FrameKind::kReply, 3, 6), reply),
          Sealed(Header(FrameKind::kNack, 3, 6), ""), Sealed(Header(FrameKind::kProbe, 3, 6), ""),
          Sealed(Header(FrameKind::kAlive, 3, 6), "")};
}

// Uses everything that an accepted frame points to.
void Use(const FrameView& view) {
  unsigned sum = 0;
  size_t rows = 0;
  if (view.kind() == FrameKind::kForward) {
    rows = view.header.tokens;
    for (size_t t = 0; t + 1 < view.offsets.size(); ++t) {
      for (uint32_t i = view.offsets[t]; i < view.offsets[t + 1]; ++i) {
        if (view.experts[i] >= kShape.experts) std::abort();
      }
    }
  } else if (view.kind() == FrameKind::kReply) {
    rows = view.header.entries;
  }
  for (size_t i = 0; i < rows * kShape.row_bytes(); ++i)
    sum += std::to_integer<unsigned>(view.rows[i]);
  volatile unsigned kept = sum;
  (void)kept;
}

bool Check(std::span<const std::byte> frame) {
  const auto view = CheckFrame({frame.data(), frame.size()}, kShape, kSelf,
                               [](Incarnation, uint64_t) { return true; });
  if (view.ok()) Use(*view);
  return view.ok();
}

bool Run(std::span<const std::byte> input) {
  const auto block = AlignedCopy(input);
  bool accepted = Check({block.get(), input.size()});
  if (input.size() < sizeof(FrameHeader)) return accepted;
  FrameHeader header;
  std::memcpy(&header, block.get(), sizeof header);
  header.receiver = kSelf.value;
  SealFrame(header, {block.get(), input.size()});
  accepted |= Check({block.get(), input.size()});
  return accepted;
}

}  // namespace

FuzzTarget FrameTarget() { return {"exchange_frame", Seeds, Run}; }

}  // namespace bottega
