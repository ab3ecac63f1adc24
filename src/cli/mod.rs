//! The command's subcommands, a file each.

pub mod files;
//! The command's subcommands, one a file.
pub mod decode;
