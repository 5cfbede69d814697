#pragma once

#include "core/model/config.h"
#include "core/model/json_fields.h"

namespace bottega {

// What config.json may say besides the shapes: refuses, through `fields`, every field that is set
// to something the graph does not implement, and lists in config.unknown_fields what is set and not
// known at all. config.model_type is read already.
void RefuseUnsupported(const nlohmann::json& root, JsonFields& fields, ModelConfig& config);

}  // namespace bottega
