// The end of a run in words, in JSON, and as a manifest for an independent judge.
#pragma once

#include <string>

#include "tools/stress/options.h"
#include "tools/stress/runner.h"

namespace wbfat::tools {

std::string text_report(const StressOptions& options, const Outcome& outcome);
std::string json_report(const StressOptions& options, const Outcome& outcome);

// One line a file: `xxh3(16 hex digits) size name`. Throws std::system_error.
void write_manifest(const std::string& path, const Outcome& outcome);
// Compares; prints one line per difference and a verdict. Returns an exit code.
int verify_manifest(const VerifyOptions& options);

}  // namespace wbfat::tools
