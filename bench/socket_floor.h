#pragma once

#include <cstddef>
#include <vector>

namespace bottega {

// What anything costs that sleeps until the other end has something: two processes that wake each
// other with a byte over a Unix socket.
void ServeWakeUps(int control);  // until the other end closes
// Appends times in microseconds.
void WakeUpRoundTrips(int control, int rounds, std::vector<double>* times);

// What the kernel needs for the same round trips: a bare TCP socket on loopback, blocking, answered
// by a child that does nothing else.
void ServeSocket(int control);  // until the other end closes
int ConnectSocket(int control);
// Appends times in microseconds.
void SocketRoundTrips(int fd, size_t bytes, int rounds, std::vector<double>* times);

}  // namespace bottega
