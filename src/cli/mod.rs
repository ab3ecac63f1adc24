//! The command's subcommands, a file each.

pub mod files;
pub mod graph;
pub mod schema;
pub mod validate;
//! The command's subcommands, one a file.

pub mod decode;
