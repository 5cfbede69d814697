#pragma once

#include "attention-worker/config.h"
#include "core/service/options.h"

namespace bottega {

// The attention worker's options beside its process' own; `bottega serve` takes them too.
void AddAttentionOptions(OptionTable& table, AttentionConfig* config, ByteCount* kv_cache);

// The program `bottega-attention`: options, process, server, until a signal. Returns the exit code.
int RunAttentionProgram(int argc, const char* const* argv);

}  // namespace bottega
