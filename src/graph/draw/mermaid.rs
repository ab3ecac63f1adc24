//! Mermaid flowcharts, which code hosts and editors render.

use std::fmt::Write;

use super::colours;
use crate::graph::{Node, Role};

/// Returns the graph as a Mermaid flowchart.
///
/// ```
/// use freetumor::graph::{Node, Role, draw::mermaid};
/// let node = Node { name: "archive".into(), kind: "folder".into(), role: Role::Source, inputs: vec![] };
/// assert!(mermaid(&[node]).starts_with("flowchart LR\n  n0[\"<b>archive</b><br/>folder\"]:::source\n"));
/// ```
pub fn mermaid(nodes: &[Node]) -> String {
    let mut text = String::from("flowchart LR\n");
    // Writing to a String cannot fail.
    for (index, node) in nodes.iter().enumerate() {
        // Ids are numbers because `end` is a keyword.
        let (name, kind) = (escape(&node.name), escape(&node.kind));
        let _ = writeln!(text, "  n{index}[\"<b>{name}</b><br/>{kind}\"]:::{}", node.role.name());
    }
    for (index, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            let _ = writeln!(text, "  n{} -- {} --> n{index}", input.from, input.edge);
        }
    }
    for role in Role::ALL.into_iter().filter(|role| nodes.iter().any(|node| node.role == *role)) {
        let (fill, line) = colours(role);
        let _ = writeln!(text, "  classDef {} fill:{fill},stroke:{line},color:#1b1f24", role.name());
    }
    text
}

fn escape(text: &str) -> String {
    text.chars()
        .map(
            |c| if c.is_ascii_alphanumeric() || "-_. ".contains(c) { c.to_string() } else { format!("#{};", c as u32) },
        )
        .collect()
}
