// A simulated libacl_op_compiler.so. Old-style operators that are compiled at run time are counted:
// nothing of ours may need one.
#include <cstdio>
#include <mutex>
#include <string>

namespace {
std::mutex lock_;
std::string compiled;  // "name\n" for each

int compile(const char* name) {
  std::lock_guard<std::mutex> guard(lock_);
  compiled += std::string(name) + "\n";
  return 0;
}
}  // namespace

extern "C" {
// Their names; returns the length that the whole text has.
size_t simulation_compiled(char* text, size_t size) {
  std::lock_guard<std::mutex> guard(lock_);
  std::snprintf(text, size, "%s", compiled.c_str());
  return compiled.size();
}
int aclopCompileAndExecute(const char* name, ...) { return compile(name); }
int aclopCompileAndExecuteV2(const char* name, ...) { return compile(name); }
int aclSetCompileopt(...) { return 0; }
int aclrtGetSysParamOpt(...) { return 0; }
int aclrtCtxSetSysParamOpt(...) { return 0; }
int aclopSetCompileFlag(...) { return 0; }
}
