// A CPU build of torch has no guard for device cuda, and ends the process where a FakeTensor of that device is indexed,
// read or differentiated. This one guards nothing: there is no device to choose. Loaded by tests/simulated_cuda.py.
#include <c10/core/impl/DeviceGuardImplInterface.h>

C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>);
