//! Weights files: what PyTorch and safetensors write is read, what is hostile is refused.

mod fit;
mod hostile;
mod maker;
mod real;
mod safetensors;
