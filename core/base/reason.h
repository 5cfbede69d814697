#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace bottega {

// Why a request or an operation was refused or failed, as a user sees it. Carried inside an
// absl::Status as a payload, through gRPC and to the HTTP error body. One table (reason.cc) maps it
// to HTTP status, `type`, `code` and whether a client may retry; errors, docs and tests are made
// from that table.
enum class Reason {
  kUnspecified,
  kInvalidValue,
  kUnsupportedParameter,
  kContextLengthExceeded,
  kRequestQuarantined,
  kInvalidApiKey,
  kModelNotFound,
  kRouteNotFound,
  kMethodNotAllowed,
  kLengthRequired,
  kBodyTooLarge,
  kUnsupportedMediaType,
  kHeadersTooLarge,
  kRequestTimeout,
  kRequestIdInUse,
  kQueueFull,
  kRateLimitExceeded,
  kCancelled,
  kInternalError,
  kNotSupported,
  kLoading,
  kDraining,
  kNoWorker,
  kExpertsUnavailable,
  kDeadlineExceeded,
  kModelRefused,  // a model directory that is not understood or damaged; CLI exit code 3
};

struct ReasonRow {
  Reason reason;
  std::string_view name;  // stable name, used as the gRPC payload
  int http_status;
  absl::StatusCode code;
  std::string_view type;        // conventions 1.5 `type`
  std::string_view error_code;  // conventions 1.5 `code`; empty: null
  bool retryable;
};

absl::Span<const ReasonRow> ReasonTable();
const ReasonRow& RowOf(Reason reason);

// A status with the reason's code and payload. `param` names the request field at fault, if one is.
absl::Status MakeError(Reason reason, std::string_view message, std::string_view param = "");

// The reason in the status' payload, else the closest one to its code.
Reason ReasonOf(const absl::Status& status);
std::string ParamOf(const absl::Status& status);

}  // namespace bottega
