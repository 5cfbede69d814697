#pragma once

#include "router/leadership.h"

namespace bottega::router {

// What `bottega status` shows; of a standby only that it is one.
internal::v1::StatusReply Status(const Leadership& leadership);

}  // namespace bottega::router
