#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "core/model/packed_model.h"
#include "gateway/text.h"

namespace bottega {

// A packed model as the gateway sees it: its tokenizer, template, end tokens and defaults; no
// weights. `served_name` empty: the name of the directory that was packed.
absl::StatusOr<ModelText> LoadModelText(const PackedModel& model, std::string served_name,
                                        const std::string& root);

}  // namespace bottega
