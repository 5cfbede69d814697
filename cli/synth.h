#pragma once

namespace bottega {

// `bottega synth OUT --shape enggpt2|qwen3-30b-a3b|FILE.json --layers N --weights int4 --seed S`
int RunSynth(int argc, const char* const* argv);

}  // namespace bottega
