#define DEVICE_UNDER_TEST "cpu"
#include "tests/kernels/device_cases.h"
