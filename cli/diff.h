#pragma once

namespace bottega {

// `bottega diff A B`: two hash traces (attention-worker/hash_trace.h), the first stage of each
// sequence at which they part. Exit code 0 equal, 1 different, 2 wrong usage or unreadable.
int RunDiff(int argc, const char* const* argv);

}  // namespace bottega
