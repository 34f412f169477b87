#define DEVICE_UNDER_TEST "cuda"
#include "tests/kernels/device_cases.h"
