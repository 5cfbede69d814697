#include "router/ops/watch.h"

#include "core/service/table_codec.h"

namespace bottega::router {

void SendOrEnd(MemberRecord& record, const internal::v1::RouterMessage& message) {
  if (record.stream == nullptr) return;
  absl::Status sent = record.stream->Send(message);
  if (!sent.ok()) record.stream->Close(sent);  // its session's task sees the end
}

void PushTable(RouterState& state) {
  internal::v1::RouterMessage message;
  *message.mutable_table() = EncodeTable(*state.table);
  for (auto& [id, record] : state.members) SendOrEnd(record, message);
}

}  // namespace bottega::router
