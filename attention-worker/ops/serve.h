#pragma once

#include <memory>

#include "attention-worker/sequence.h"
#include "bottega/internal/v1/attention.pb.h"
#include "core/base/task.h"
#include "core/service/network.h"

namespace bottega {

class AttentionServer;

// Attention.Serve: one gateway's stream, until it ends; then its sequences are cancelled.
Task<void> ServeGateway(AttentionServer* server, std::unique_ptr<ByteStream> bytes);

// The message's values, checked: InvalidArgument names the field and what is allowed.
absl::StatusOr<SequenceSpec> SpecOf(const internal::v1::Submit& submit, OwnerId owner,
                                    int32_t vocab_size, Time now);
internal::v1::GeneratedToken ToProto(const TokenEvent& event);
internal::v1::Ended ToProto(const EndEvent& event);

}  // namespace bottega
