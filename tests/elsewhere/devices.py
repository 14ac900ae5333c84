"""Devices that are not here, to compile for: JAX's `topologies`, without a driver.

Needs JAX's plugin for CUDA and libtpu (`.ci/elsewhere`), neither of which is asked for a
device. Facts of the GPU are of its data sheet; XLA decides by them.
"""

import os

# Before libtpu is loaded: no question to the cloud's metadata, several processes at once.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")

import jax
from jax.experimental import topologies

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  memory_bandwidth: 3352000000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84933000000
  cuda_compute_capability {
    major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES
  }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  name: "NVIDIA H100 80GB HBM3"
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def h100(n: int) -> list:
    """GPUs of one host."""
    jax.config.update("jax_platforms", "cpu")  # or the plugin looks for a driver
    shape = f"1x1x{n}"
    options = dict(target_config=H100, topology=shape)
    return topologies.get_topology_desc(shape, "cuda", **options).devices


def tpu(slice_: str) -> list:
    """The first TPU of a slice, "v5e:2x2"."""
    return _tpus(slice_)[:1]


def v5e(shape: str) -> list:
    """TPUs of a slice, "4x4"."""
    return _tpus(f"v5e:{shape}")


def _tpus(slice_: str) -> list:
    jax.config.update("jax_platforms", "cpu")
    return topologies.get_topology_desc(slice_, "tpu").devices
