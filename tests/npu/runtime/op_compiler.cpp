// A simulated libacl_op_compiler.so. Old-style operators that are compiled at run time are counted:
// nothing of ours may need one.
#include <atomic>

namespace {
std::atomic<int> compiled{0};
}

extern "C" {
int simulation_compiled() { return compiled; }
int aclopCompileAndExecute(...) {
  compiled += 1;
  return 0;
}
int aclopCompileAndExecuteV2(...) {
  compiled += 1;
  return 0;
}
int aclSetCompileopt(...) { return 0; }
int aclrtGetSysParamOpt(...) { return 0; }
int aclrtCtxSetSysParamOpt(...) { return 0; }
int aclopSetCompileFlag(...) { return 0; }
}
