#pragma once

#include "router/leadership.h"

namespace bottega::router {

// /bottega.internal.v1.Router/Session and /bottega.internal.v1.Cluster/Status.
std::vector<std::pair<std::string, Network::Handler>> Methods(
    std::shared_ptr<Leadership> leadership);

}  // namespace bottega::router
