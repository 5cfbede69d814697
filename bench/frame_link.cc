#include "bench/frame_link.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "core/base/check.h"

namespace bottega {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kWindow = 16;      // messages in flight
constexpr uint64_t kCreditEvery = 4;  // of them to an acknowledgement
constexpr size_t kCreditBytes = 64;

enum class Purpose : uint32_t { kEcho = 1, kStream = 2, kCredit = 3 };

// The first bytes of every frame.
struct Tag {
  Purpose purpose;
  uint32_t end;       // 1: the last frame of its message
  uint64_t sequence;  // of the message
};

Tag TagOf(absl::Span<const std::byte> frame) {
  Tag tag;
  CHECK(frame.size() >= sizeof tag);
  std::memcpy(&tag, frame.data(), sizeof tag);
  return tag;
}

class Sender {
 public:
  Sender(FrameLink& link, Purpose purpose, size_t bytes)
      : link_(link),
        purpose_(purpose),
        // As the dispatcher cuts shares: whole rows.
        part_(std::min(bytes, link.frame_bytes_max() / kRowBytes * kRowBytes)),
        rows_(bytes, std::byte{7}) {}

  void Send(uint64_t sequence) {
    for (absl::Span<std::byte> rest = absl::MakeSpan(rows_); !rest.empty();) {
      const absl::Span<std::byte> frame = rest.subspan(0, part_);
      rest.remove_prefix(frame.size());
      const Tag tag = {purpose_, rest.empty(), sequence};
      std::memcpy(frame.data(), &tag, sizeof tag);
      link_.Send(frame);
    }
  }

 private:
  FrameLink& link_;
  const Purpose purpose_;
  const size_t part_;
  std::vector<std::byte> rows_;
};

}  // namespace

void Respond(FrameLink& link, absl::Span<const std::byte> frame) {
  const Tag tag = TagOf(frame);
  if (tag.purpose == Purpose::kEcho) return link.Send(frame);
  CHECK(tag.purpose == Purpose::kStream);
  if (tag.end == 0 || (tag.sequence + 1) % kCreditEvery != 0) return;
  std::byte credit[kCreditBytes] = {};
  const Tag answer = {Purpose::kCredit, 1, tag.sequence};
  std::memcpy(credit, &answer, sizeof answer);
  link.Send(credit);
}

double StreamRate(FrameLink& link, size_t bytes, size_t messages) {
  const uint64_t count = (messages + kCreditEvery - 1) / kCreditEvery * kCreditEvery;
  Sender sender(link, Purpose::kStream, bytes);
  uint64_t sent = 0, credited = 0;
  const auto fill = [&] {
    while (sent < count && sent - credited < kWindow) sender.Send(sent++);
  };
  const Clock::time_point begin = Clock::now();
  link.Run(fill, [&](absl::Span<const std::byte> frame) {
    const Tag tag = TagOf(frame);
    CHECK(tag.purpose == Purpose::kCredit && tag.sequence + 1 == credited + kCreditEvery);
    credited += kCreditEvery;
    if (credited == count) return link.Stop();
    fill();
  });
  CHECK(credited == count);  // else the peer was lost
  const std::chrono::duration<double> took = Clock::now() - begin;
  return static_cast<double>(count * bytes) / took.count() * 1e-9;
}

void RoundTrips(FrameLink& link, size_t bytes, int rounds, std::vector<double>* times) {
  Sender sender(link, Purpose::kEcho, bytes);
  uint64_t round = 0;
  size_t back = 0;
  Clock::time_point sent;
  const auto send = [&] {
    back = 0;
    sent = Clock::now();
    sender.Send(round);
  };
  link.Run(send, [&](absl::Span<const std::byte> frame) {
    CHECK(TagOf(frame).sequence == round);
    back += frame.size();
    if (back < bytes) return;
    times->push_back(std::chrono::duration<double, std::micro>(Clock::now() - sent).count());
    if (++round == static_cast<uint64_t>(rounds)) return link.Stop();
    send();
  });
  CHECK(round == static_cast<uint64_t>(rounds));  // else the peer was lost
}

}  // namespace bottega
