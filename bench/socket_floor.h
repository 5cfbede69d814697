#pragma once

#include <cstddef>
#include <vector>

namespace bottega {

// What the kernel needs for the same round trips: a bare TCP socket on loopback, blocking, answered
// by a child that does nothing else.
void ServeSocket(int control);  // until the other end closes
int ConnectSocket(int control);
// Appends times in microseconds.
void SocketRoundTrips(int fd, size_t bytes, int rounds, std::vector<double>* times);

}  // namespace bottega
