//! Drawings of a graph, from left to right.

mod layout;
mod mermaid;
mod svg;

pub use mermaid::mermaid;
pub use svg::svg;

use super::Role;

/// Returns the fill and line colours of a role.
fn colours(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Source => ("#e3eefc", "#3b6fb5"),
        Role::Mask => ("#def3ee", "#1f7a68"),
        Role::Synthesis => ("#efe6fa", "#7449ab"),
        Role::Score => ("#fdf1d8", "#a06c0c"),
        Role::Filter => ("#fce5e4", "#b2403f"),
        Role::Sink => ("#e5f4df", "#3d8230"),
    }
}
