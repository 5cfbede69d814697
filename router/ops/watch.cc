#include "router/ops/watch.h"

#include "core/service/table_codec.h"

namespace bottega::router {
namespace {

internal::v1::RouterMessage TableMessage(const RouterState& state) {
  internal::v1::RouterMessage message;
  *message.mutable_table() = EncodeTable(*state.table);
  return message;
}

// Who has a table of the router before us keeps it while the return window is open: in ours those
// that are not back yet would be missing, and it would break with them in the middle of their work.
bool MayHaveTable(const RouterState& state, MemberRecord& record) {
  record.table_due = record.brought_table && state.ReturnWindowOpen();
  return !record.table_due;
}

}  // namespace

void SendOrEnd(MemberRecord& record, const internal::v1::RouterMessage& message) {
  if (record.stream == nullptr) return;
  absl::Status sent = record.stream->Send(message);
  if (!sent.ok()) record.stream->Close(sent);  // its session's task sees the end
}

void SendTable(const RouterState& state, MemberRecord& record) {
  if (MayHaveTable(state, record)) SendOrEnd(record, TableMessage(state));
}

void PushTable(RouterState& state) {
  const internal::v1::RouterMessage message = TableMessage(state);
  for (auto& [id, record] : state.members) {
    if (MayHaveTable(state, record)) SendOrEnd(record, message);
  }
}

}  // namespace bottega::router
