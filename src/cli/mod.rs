//! The command's subcommands, one a file.

pub mod decode;
