#pragma once

#include <prometheus/registry.h>

#include <cstdint>
#include <map>
#include <string>

#include "core/transport/transport.h"

namespace bottega {

// Copies what a transport counts into bottega_exchange_bytes_total and bottega_exchange_endpoints.
// For a scrape hook of each role that has a transport.
void CopyTransportMetrics(const Transport& transport, prometheus::Registry& registry);

// How many endpoints are up, by kind; for heartbeats.
std::map<std::string, uint32_t> EndpointsUp(const Transport& transport);

}  // namespace bottega
