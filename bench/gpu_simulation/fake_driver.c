// A CUDA driver and runtime without a GPU: one H100 that accepts every call and computes nothing.
//
// Preloaded (LD_PRELOAD), its functions stand before those of libcudart, and its name (SONAME libcuda.so.1) in
// the driver's place. "Device" memory is host memory, so that tensors can be made and copied; a kernel's launch
// does nothing. Enough for FakeTensors of device cuda: devices, streams, events and autograd's threads are real
// torch code. The compute capability comes from FAKE_GPU_CAPABILITY (90: an H100).
//
// Build: gcc -shared -fPIC -O1 -Wl,-soname,libcuda.so.1 -I CUDA_INCLUDE fake_driver.c -o libcuda.so.1

#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int capability(void) {
    const char *text = getenv("FAKE_GPU_CAPABILITY");
    return text ? atoi(text) : 90;
}

static size_t gibibytes(void) {
    const char *text = getenv("FAKE_GPU_GIB");
    return (size_t)(text ? atoi(text) : 80) << 30;
}

// ------------------------------------------------------------------------------------------- device

cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device ? cudaErrorInvalidDevice : cudaSuccess; }
cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
cudaError_t cudaPeekAtLastError(void) { return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int device) {
    snprintf(id, length, "0000:00:00.0");
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    if (device) return cudaErrorInvalidDevice;
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "simulated GPU");
    properties->major = capability() / 10, properties->minor = capability() % 10;
    properties->totalGlobalMem = gibibytes();
    properties->multiProcessorCount = 132;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->regsPerMultiprocessor = properties->regsPerBlock = 65536;
    properties->sharedMemPerBlock = 49152;
    properties->sharedMemPerBlockOptin = 232448;
    properties->sharedMemPerMultiprocessor = 233472;
    properties->l2CacheSize = 50 << 20;
    for (int i = 0; i < 3; i++) {
        properties->maxThreadsDim[i] = i < 2 ? 1024 : 64;
        properties->maxGridSize[i] = i ? 65535 : 2147483647;
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = capability() / 10; break;
        case cudaDevAttrComputeCapabilityMinor: *value = capability() % 10; break;
        case cudaDevAttrMultiProcessorCount: *value = 132; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        default: *value = 0;
    }
    return cudaSuccess;
}

// ------------------------------------------------------------------------------------------- memory

cudaError_t cudaMalloc(void **pointer, size_t size) {
    *pointer = aligned_alloc(512, (size + 511) / 512 * 512);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaMallocAsync(void **pointer, size_t size, cudaStream_t stream) { return cudaMalloc(pointer, size); }
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) { return cudaMalloc(pointer, size); }
cudaError_t cudaFree(void *pointer) { free(pointer); return cudaSuccess; }
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) { free(pointer); return cudaSuccess; }
cudaError_t cudaFreeHost(void *pointer) { free(pointer); return cudaSuccess; }
cudaError_t cudaHostRegister(void *pointer, size_t size, unsigned flags) { return cudaSuccess; }
cudaError_t cudaHostUnregister(void *pointer) { return cudaSuccess; }
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    memcpy(to, from, size);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    memcpy(to, from, size);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
    memset(to, value, size);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = *total = gibibytes();
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    memset(attributes, 0, sizeof *attributes);
    attributes->type = cudaMemoryTypeUnregistered;
    return cudaSuccess;
}

// ------------------------------------------------------------------------- streams, events, launches

static void *handle(void) { return malloc(16); }
cudaError_t cudaStreamCreate(cudaStream_t *stream) { *stream = handle(); return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    return cudaStreamCreate(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { *event = handle(); return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    *milliseconds = 1;
    return cudaSuccess;
}
cudaError_t cudaLaunchKernel(
    const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    return cudaSuccess;
}

// -------------------------------------------- the driver's own functions: what torch looks up when it loads

#define ACCEPTS(name) int name(void) { return 0; }
ACCEPTS(cuCtxSetCurrent) ACCEPTS(cuDevicePrimaryCtxRetain) ACCEPTS(cuFuncGetAttribute) ACCEPTS(cuFuncSetAttribute)
ACCEPTS(cuFuncSetCacheConfig) ACCEPTS(cuLaunchCooperativeKernel) ACCEPTS(cuLaunchKernel) ACCEPTS(cuLinkAddData_v2)
ACCEPTS(cuLinkComplete) ACCEPTS(cuLinkCreate_v2) ACCEPTS(cuModuleGetFunction) ACCEPTS(cuModuleLoad)
ACCEPTS(cuModuleLoadData) ACCEPTS(cuModuleLoadDataEx) ACCEPTS(cuModuleUnload) ACCEPTS(cuPointerGetAttribute)
ACCEPTS(cuOccupancyMaxActiveBlocksPerMultiprocessor) ACCEPTS(cuTensorMapEncodeTiled) ACCEPTS(cuInit)
int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    return cudaDeviceGetAttribute(value, (enum cudaDeviceAttr)attribute, device);
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0, *active = 1; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "simulated"; return 0; }
int cuDriverGetVersion(int *version) { *version = CUDART_VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }

static int accept_call(void) { return 0; }

cudaError_t cudaGetDriverEntryPointByVersion(
    const char *symbol, void **function, unsigned version, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *result) {
    *function = dlsym(RTLD_DEFAULT, symbol);
    if (!*function) *function = (void *)accept_call;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

// ------------------------------------------------------- the rest of what torch links to: accepted, no more

#define ALIAS(name) __asm__(".globl " #name "\n.set " #name ", accept_call");
ALIAS(cudaDeviceEnablePeerAccess) ALIAS(cudaDeviceGetDefaultMemPool) ALIAS(cudaMemPoolGetAttribute)
ALIAS(cudaMemPoolSetAccess) ALIAS(cudaMemPoolSetAttribute) ALIAS(cudaMemPoolTrimTo) ALIAS(cudaFuncGetAttributes)
ALIAS(cudaFuncSetAttribute) ALIAS(cudaLaunchKernelExC) ALIAS(cudaLaunchHostFunc) ALIAS(cudaProfilerStart)
ALIAS(cudaProfilerStop) ALIAS(cudaLibraryLoadData) ALIAS(cudaLibraryUnload) ALIAS(cudaLibraryGetKernel)
ALIAS(cudaKernelSetAttributeForDevice) ALIAS(cudaStreamGetCaptureInfo)
