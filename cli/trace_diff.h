#pragma once

#include <cstdint>
#include <vector>

#include "cli/trace_reader.h"

namespace bottega {

struct TraceCount {
  uint64_t sequences = 0;
  uint64_t entries = 0;  // (sequence, position, layer, stage)
};

// The first place at which a sequence's rows differ.
struct TraceParting {
  uint64_t sequence = 0;
  TracePlace place;
  uint32_t hash_a = 0, hash_b = 0;
};

struct TraceDiff {
  std::vector<TraceParting> partings;  // one a sequence that differs, ascending sequence
  TraceCount both;
  TraceCount differing;       // of those in both
  TraceCount only_a, only_b;  // sequences: those the other trace has nothing of
};

// Compares what both traces have. A trace that contradicts itself at a place differs there unless
// the other does so in the same way.
TraceDiff CompareTraces(const Trace& a, const Trace& b);

// Places at which one trace has two results.
struct TraceContradictions {
  std::vector<TraceParting> first;  // one a sequence, ascending sequence
  uint64_t places = 0;
};
TraceContradictions FindContradictions(const Trace& trace);

}  // namespace bottega
