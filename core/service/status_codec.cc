#include "core/service/status_codec.h"

#include "absl/strings/cord.h"
#include "bottega/internal/v1/types.pb.h"

namespace bottega {

std::string EncodeStatus(const absl::Status& status) {
  internal::v1::WireStatus wire;
  wire.set_code(static_cast<int>(status.code()));
  wire.set_message(std::string(status.message().substr(0, kStatusMessageBytesMax)));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& value) {
    if (wire.details_size() >= static_cast<int>(kStatusDetailsMax) ||
        value.size() > kStatusMessageBytesMax) {
      return;
    }
    auto* detail = wire.add_details();
    detail->set_type_url(std::string(url));
    detail->set_value(std::string(value));
  });
  return wire.SerializeAsString();
}

absl::Status DecodeStatus(std::string_view bytes, absl::Status fallback) {
  internal::v1::WireStatus wire;
  if (!wire.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return fallback;
  if (wire.code() < 0 || wire.code() > 16) return fallback;
  absl::Status status(static_cast<absl::StatusCode>(wire.code()), wire.message());
  for (const auto& detail : wire.details()) {
    status.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return status;
}

}  // namespace bottega
