#pragma once

#include <fmt/format.h>
#include <ucs/type/status.h>

#include "absl/status/status.h"

// The one place where a UCX status becomes ours. For ucx_transport.cc only.
#define RETURN_IF_UCX_ERROR(expr, what)                                                         \
  do {                                                                                          \
    if (ucs_status_t ucs_ = (expr); ucs_ != UCS_OK) {                                           \
      return absl::UnavailableError(fmt::format("UCX: {}: {}", what, ucs_status_string(ucs_))); \
    }                                                                                           \
  } while (false)
