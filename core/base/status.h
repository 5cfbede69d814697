#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Operating errors travel as absl::Status. These two macros are the only control flow hidden in
// macros.
#define BOTTEGA_CONCAT_INNER(a, b) a##b
#define BOTTEGA_CONCAT(a, b) BOTTEGA_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expr)                                         \
  do {                                                                \
    if (absl::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(BOTTEGA_CONCAT(status_or_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(status_or, lhs, expr) \
  auto status_or = (expr);                          \
  if (!status_or.ok()) return status_or.status();   \
  lhs = *std::move(status_or)

// The same inside a coroutine. `expr` holds no co_await: await into a named object first (one
// co_await per statement, docs/decisions/0001).
#define CO_RETURN_IF_ERROR(expr)                                         \
  do {                                                                   \
    if (absl::Status status_ = (expr); !status_.ok()) co_return status_; \
  } while (false)
