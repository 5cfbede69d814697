#include "router/ops/watch.h"

#include "core/service/table_codec.h"

namespace bottega::router {

void SendOrEnd(MemberRecord& record, const internal::v1::RouterMessage& message) {
  if (record.stream == nullptr) return;
  absl::Status sent = record.stream->Send(message);
  if (!sent.ok()) record.stream->Close(sent);  // its session's task sees the end
}

// Who has a table of the router before us keeps it while the return window is open: in ours those
// that are not back yet would be missing, and it would break with them in the middle of their work.
void SendTable(const RouterState& state, MemberRecord& record) {
  record.table_due = record.brought_table && state.ReturnWindowOpen();
  if (record.table_due) return;
  internal::v1::RouterMessage message;
  *message.mutable_table() = EncodeTable(*state.table);
  SendOrEnd(record, message);
}

void PushTable(RouterState& state) {
  for (auto& [id, record] : state.members) SendTable(state, record);
}

}  // namespace bottega::router
