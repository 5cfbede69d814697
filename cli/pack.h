#pragma once

namespace bottega {

// `bottega pack DIR OUT --weights f32|bf16|int8|int4`
int RunPack(int argc, const char* const* argv);

}  // namespace bottega
