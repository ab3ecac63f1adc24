//! Weights files: files of PyTorch and safetensors, and hostile files.

mod builder;
mod fit;
mod hostile;
mod pytorch;
mod safetensors;
