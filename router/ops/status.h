#pragma once

#include "router/state.h"

namespace bottega::router {

// What `bottega status` shows.
internal::v1::StatusReply Status(const RouterState& state);

}  // namespace bottega::router
