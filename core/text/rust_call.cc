#include "core/text/rust_call.h"

#include "core/base/reason.h"

namespace bottega::text {

absl::Status StatusOf(bottega_text_status status, const OwnedBytes& message) {
  switch (status) {
    case BOTTEGA_TEXT_OK:
      return absl::OkStatus();
    case BOTTEGA_TEXT_REFUSED:
      return MakeError(Reason::kModelRefused, message.view());
    case BOTTEGA_TEXT_INVALID:
    case BOTTEGA_TEXT_LIMIT:
      return MakeError(Reason::kInvalidValue, message.view());
    case BOTTEGA_TEXT_PANIC:
      break;
  }
  return MakeError(Reason::kInternalError, message.view());
}

}  // namespace bottega::text
