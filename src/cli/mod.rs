//! The command's subcommands, a file each.

pub mod files;
