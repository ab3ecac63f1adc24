//! SVG drawings of graphs.

use std::fmt::Write;

use super::colours;
use super::layout::{Layout, text_width};
use crate::graph::{Node, Port};

const NAME: f64 = 14.0;
const KIND: f64 = 11.5;
const LABEL: f64 = 11.0;

/// Returns the graph as an SVG picture, boxes coloured by role, edges labeled by type.
///
/// ```
/// use freetumor::graph::{Node, Role, draw::svg};
/// let node = Node { name: "archive".into(), kind: "folder".into(), role: Role::Source, inputs: vec![] };
/// let picture = svg("liver", &[node]);
/// assert!(picture.starts_with("<svg xmlns=") && picture.contains(">archive</text>"));
/// ```
pub fn svg(title: &str, nodes: &[Node]) -> String {
    let under = |node: &Node| format!("{} · {}", node.role.name(), node.kind);
    let box_width = |node: &Node| text_width(&node.name, NAME * 1.06).max(text_width(&under(node), KIND)) + 30.0;
    let layout = Layout::of(nodes, LABEL, box_width);
    let (width, height) = (layout.width.max(text_width(title, 17.0) + 60.0).ceil(), layout.height.ceil());
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\">"
    );
    let _ = writeln!(text, "<title>{}</title>", escape(title));
    text.push_str(
        "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0 0.6 L7.4 4 L0 7.4 z\" fill=\"#6b7480\"/></marker></defs>\n",
    );
    let _ = writeln!(text, "<rect width=\"{width}\" height=\"{height}\" rx=\"10\" fill=\"#ffffff\"/>");
    let _ = writeln!(
        text,
        "<text x=\"24\" y=\"36\" font-size=\"17\" font-weight=\"600\" fill=\"#1b1f24\">{}</text>",
        escape(title)
    );
    for wire in &layout.wires {
        let _ = writeln!(
            text,
            "<path d=\"{}\" fill=\"none\" stroke=\"#6b7480\" stroke-width=\"1.5\" marker-end=\"url(#tip)\"{}/>",
            path(&wire.points),
            if wire.port == Port::Rejected { " stroke-dasharray=\"5 4\"" } else { "" }
        );
    }
    let mut labeled: Vec<(usize, Port)> = Vec::new();
    for wire in &layout.wires {
        let (Some(edge), false) =
            (nodes[wire.from].role.output_edge(wire.port), labeled.contains(&(wire.from, wire.port)))
        else {
            continue;
        };
        labeled.push((wire.from, wire.port));
        let [x, y] = wire.points[0];
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"{LABEL}\" fill=\"#4b535d\">{edge}</text>",
            x + 7.0,
            y - 5.0
        );
    }
    for (node, rect) in nodes.iter().zip(&layout.boxes) {
        let (fill, line) = colours(node.role);
        let middle = rect.left + rect.width / 2.0;
        let _ = writeln!(
            text,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"9\" fill=\"{fill}\" stroke=\"{line}\" \
             stroke-width=\"1.4\"/>",
            rect.left, rect.top, rect.width, rect.height
        );
        let _ = writeln!(
            text,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" font-size=\"{NAME}\" font-weight=\"600\" fill=\"#1b1f24\" \
             text-anchor=\"middle\">{}</text>",
            rect.top + 24.0,
            escape(&node.name)
        );
        let _ = writeln!(
            text,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" font-size=\"{KIND}\" fill=\"{line}\" text-anchor=\"middle\">{}</text>",
            rect.top + 41.0,
            escape(&under(node))
        );
    }
    text.push_str("</svg>\n");
    text
}

/// Returns the path data: a straight piece, then a curve and a straight piece for every bend, then a curve to the end.
fn path(points: &[[f64; 2]]) -> String {
    let mut text = format!("M{:.1} {:.1}", points[0][0], points[0][1]);
    for (index, pair) in points.windows(2).enumerate() {
        let ([x0, y0], [x1, y1]) = (pair[0], pair[1]);
        if index % 2 == 0 {
            let _ = write!(text, " L{x1:.1} {y1:.1}");
        } else {
            let half = (x0 + x1) / 2.0;
            let _ = write!(text, " C{half:.1} {y0:.1} {half:.1} {y1:.1} {x1:.1} {y1:.1}");
        }
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
