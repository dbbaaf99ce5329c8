"""What a machine has to compute with: GPUs of NVIDIA and AMD, and the processor."""
