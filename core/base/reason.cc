#include "core/base/reason.h"

#include "absl/strings/cord.h"
#include "core/base/check.h"

namespace bottega {
namespace {

// Debian's Abseil is built with its own string_view type, which does not convert from the
// standard's.
absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }

constexpr absl::string_view kReasonUrl = "bottega/reason";
constexpr absl::string_view kParamUrl = "bottega/param";

constexpr std::string_view kBadRequestType = "invalid_request_error";
constexpr std::string_view kUnavailableType = "unavailable_error";

using enum absl::StatusCode;
constexpr ReasonRow kTable[] = {
    {Reason::kUnspecified, "unspecified", 500, kUnknown, "server_error", "internal_error", true},
    {Reason::kInvalidValue, "invalid_value", 400, kInvalidArgument, kBadRequestType,
     "invalid_value", false},
    {Reason::kUnsupportedParameter, "unsupported_parameter", 400, kInvalidArgument, kBadRequestType,
     "unsupported_parameter", false},
    {Reason::kContextLengthExceeded, "context_length_exceeded", 400, kOutOfRange, kBadRequestType,
     "context_length_exceeded", false},
    {Reason::kRequestQuarantined, "request_quarantined", 400, kFailedPrecondition, kBadRequestType,
     "request_quarantined", false},
    {Reason::kInvalidApiKey, "invalid_api_key", 401, kUnauthenticated, "authentication_error",
     "invalid_api_key", false},
    {Reason::kModelNotFound, "model_not_found", 404, kNotFound, "not_found_error",
     "model_not_found", false},
    {Reason::kRouteNotFound, "route_not_found", 404, kNotFound, "not_found_error", "", false},
    {Reason::kMethodNotAllowed, "method_not_allowed", 405, kInvalidArgument, kBadRequestType, "",
     false},
    {Reason::kLengthRequired, "length_required", 411, kInvalidArgument, kBadRequestType, "", false},
    {Reason::kBodyTooLarge, "body_too_large", 413, kInvalidArgument, kBadRequestType, "", false},
    {Reason::kUnsupportedMediaType, "unsupported_media_type", 415, kInvalidArgument,
     kBadRequestType, "", false},
    {Reason::kHeadersTooLarge, "headers_too_large", 431, kInvalidArgument, kBadRequestType, "",
     false},
    {Reason::kRequestTimeout, "request_timeout", 408, kDeadlineExceeded, "timeout_error", "", true},
    {Reason::kRequestIdInUse, "request_id_in_use", 409, kAlreadyExists, "conflict_error",
     "request_id_in_use", true},
    {Reason::kQueueFull, "queue_full", 429, kResourceExhausted, "rate_limit_error", "queue_full",
     true},
    {Reason::kRateLimitExceeded, "rate_limit_exceeded", 429, kResourceExhausted, "rate_limit_error",
     "rate_limit_exceeded", true},
    {Reason::kCancelled, "cancelled", 499, kCancelled, kBadRequestType, "", false},
    {Reason::kInternalError, "internal_error", 500, kInternal, "server_error", "internal_error",
     true},
    {Reason::kNotSupported, "not_supported", 501, kUnimplemented, "not_implemented_error",
     "not_supported", false},
    {Reason::kLoading, "loading", 503, kUnavailable, kUnavailableType, "loading", true},
    {Reason::kDraining, "draining", 503, kUnavailable, kUnavailableType, "draining", true},
    {Reason::kNoWorker, "no_worker", 503, kUnavailable, kUnavailableType, "no_worker", true},
    {Reason::kExpertsUnavailable, "experts_unavailable", 503, kUnavailable, kUnavailableType,
     "experts_unavailable", true},
    {Reason::kDeadlineExceeded, "deadline_exceeded", 504, absl::StatusCode::kDeadlineExceeded,
     "timeout_error", "deadline_exceeded", true},
    {Reason::kModelRefused, "model_refused", 500, kFailedPrecondition, "server_error",
     "internal_error", false},
};

Reason ClosestTo(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return Reason::kInvalidValue;
    case absl::StatusCode::kOutOfRange:
      return Reason::kContextLengthExceeded;
    case absl::StatusCode::kUnauthenticated:
      return Reason::kInvalidApiKey;
    case absl::StatusCode::kNotFound:
      return Reason::kModelNotFound;
    case absl::StatusCode::kAlreadyExists:
      return Reason::kRequestIdInUse;
    case absl::StatusCode::kResourceExhausted:
      return Reason::kQueueFull;
    case absl::StatusCode::kCancelled:
      return Reason::kCancelled;
    case absl::StatusCode::kUnimplemented:
      return Reason::kNotSupported;
    case absl::StatusCode::kUnavailable:
      return Reason::kNoWorker;
    case absl::StatusCode::kDeadlineExceeded:
      return Reason::kDeadlineExceeded;
    default:
      return Reason::kInternalError;
  }
}

}  // namespace

absl::Span<const ReasonRow> ReasonTable() { return kTable; }

const ReasonRow& RowOf(Reason reason) {
  const ReasonRow& row = kTable[static_cast<size_t>(reason)];
  CHECK(row.reason == reason);
  return row;
}

absl::Status MakeError(Reason reason, std::string_view message, std::string_view param) {
  const ReasonRow& row = RowOf(reason);
  absl::Status status(row.code, ToAbsl(message));
  status.SetPayload(kReasonUrl, absl::Cord(ToAbsl(row.name)));
  if (!param.empty()) status.SetPayload(kParamUrl, absl::Cord(ToAbsl(param)));
  return status;
}

Reason ReasonOf(const absl::Status& status) {
  if (auto payload = status.GetPayload(kReasonUrl)) {
    for (const ReasonRow& row : kTable) {
      if (*payload == ToAbsl(row.name)) return row.reason;
    }
  }
  return ClosestTo(status.code());
}

std::string ParamOf(const absl::Status& status) {
  auto payload = status.GetPayload(kParamUrl);
  return payload ? std::string(*payload) : std::string();
}

}  // namespace bottega
