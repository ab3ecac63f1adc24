//! The `freetumor` command.
fn main() {}
