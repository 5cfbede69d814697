#pragma once

namespace bottega {

// Bugs that the fabric must find, compiled in by its tests only: -DBOTTEGA_PLANTED_BUG=n. A fabric
// that does not find them proves nothing.
enum class PlantedBug {
  kNone = 0,
  kDroppedRetry = 1,  // a frame known to be lost is not sent again
  kNoFence = 2,       // frames of and for other incarnations, sessions and epochs are taken
  kNoCrc = 3,         // changed bytes are taken
};

#ifdef BOTTEGA_PLANTED_BUG
inline constexpr PlantedBug kPlantedBug = PlantedBug{BOTTEGA_PLANTED_BUG};
#else
inline constexpr PlantedBug kPlantedBug = PlantedBug::kNone;
#endif

}  // namespace bottega
