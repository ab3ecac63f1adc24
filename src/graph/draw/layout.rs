//! A layered layout from left to right, with few crossings and without overlaps.
//!
//! The method of Sugiyama, Tagawa and Toda: columns by longest path, a bend for each column that an edge passes, order within columns by
//! barycentres, heights by least squares.

use crate::graph::{Node, Port, Role};

/// The boxes and wires of a drawing, in pixels.
pub(super) struct Layout {
    /// Boxes in the order of the nodes.
    pub(super) boxes: Vec<Box>,
    /// Edges in the order of the nodes' inputs.
    pub(super) wires: Vec<Wire>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A node's box.
pub(super) struct Box {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Box {
    fn middle(&self) -> f64 {
        self.top + self.height / 2.0
    }
}

/// An edge: from its port along a short straight piece, which has the label, then through the bends to its end.
pub(super) struct Wire {
    pub(super) from: usize,
    pub(super) port: Port,
    /// Start, end of the straight piece, left and right of each bend, end.
    pub(super) points: Vec<[f64; 2]>,
}

const MARGIN: f64 = 24.0;
const TITLE: f64 = 34.0;
const HEIGHT: f64 = 54.0;
/// Clearance between two boxes in a column, and between a box and an edge that passes it.
const CLEAR: f64 = 26.0;
/// Width of the curves between two columns.
const CURVES: f64 = 58.0;
/// Distance of the two outputs of a quality test from its middle.
const PORT: f64 = 15.0;

/// Estimates the width in pixels of a string at a font size, for a proportional font; slightly too wide.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let width = |c: char| match c {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | '.' | '-' | ' ' => 0.38,
        'm' | 'w' | 'M' | 'W' => 0.92,
        c if c.is_ascii_uppercase() => 0.72,
        _ => 0.6,
    };
    size * text.chars().map(width).sum::<f64>()
}

/// An element of a column: a node, or a bend of an edge that passes.
struct Slot {
    column: usize,
    height: f64,
    /// Connected slots of the previous column.
    before: Vec<usize>,
    /// Connected slots of the next column.
    after: Vec<usize>,
}

impl Layout {
    pub(super) fn of(nodes: &[Node], label_size: f64, box_width: impl Fn(&Node) -> f64) -> Self {
        let columns = columns_of(nodes);
        let mut slots: Vec<Slot> = columns
            .iter()
            .map(|&column| Slot { column, height: HEIGHT, before: Vec::new(), after: Vec::new() })
            .collect();
        let mut chains: Vec<(usize, usize, Port, Vec<usize>)> = Vec::new();
        for (to, node) in nodes.iter().enumerate() {
            for input in &node.inputs {
                let mut chain = vec![input.from];
                for column in columns[input.from] + 1..columns[to] {
                    slots.push(Slot { column, height: 2.0, before: Vec::new(), after: Vec::new() });
                    chain.push(slots.len() - 1);
                }
                chain.push(to);
                for pair in chain.windows(2) {
                    slots[pair[0]].after.push(pair[1]);
                    slots[pair[1]].before.push(pair[0]);
                }
                chains.push((input.from, to, input.port, chain));
            }
        }
        let order = order_of(&slots);
        let middles = heights_of(&slots, &order);
        let left_of_column = |widths: &[f64], gaps: &[f64], column: usize| {
            MARGIN + widths[..column].iter().sum::<f64>() + gaps[..column].iter().sum::<f64>()
        };
        let count = order.len();
        let mut widths = vec![0f64; count];
        let mut stubs = vec![0f64; count];
        for (index, node) in nodes.iter().enumerate() {
            let column = columns[index];
            widths[column] = widths[column].max(box_width(node));
            for port in [Port::Main, Port::Rejected] {
                let label = node.role.output_edge(port).map_or(0.0, |edge| text_width(edge.name(), label_size) + 14.0);
                if chains.iter().any(|(from, _, used, _)| (*from, *used) == (index, port)) {
                    stubs[column] = stubs[column].max(label);
                }
            }
        }
        let gaps: Vec<f64> = stubs.iter().map(|stub| stub + CURVES).collect();
        let top = |slot: usize| MARGIN + TITLE + middles[slot] - slots[slot].height / 2.0;
        let boxes: Vec<Box> = (0..nodes.len())
            .map(|index| Box {
                left: left_of_column(&widths, &gaps, columns[index]),
                top: top(index),
                width: widths[columns[index]],
                height: HEIGHT,
            })
            .collect();
        let wires: Vec<Wire> = chains
            .iter()
            .map(|(from, to, port, chain)| {
                let start = &boxes[*from];
                let both = [Port::Main, Port::Rejected]
                    .iter()
                    .all(|port| chains.iter().any(|(other, _, used, _)| (other, used) == (from, port)));
                let offset = match (nodes[*from].role, port, both) {
                    (Role::Filter, Port::Main, true) => -PORT,
                    (Role::Filter, Port::Rejected, true) => PORT,
                    _ => 0.0,
                };
                let y = start.middle() + offset;
                let right = start.left + start.width;
                let mut points = vec![[right, y], [right + stubs[columns[*from]], y]];
                for &bend in &chain[1..chain.len() - 1] {
                    let column = slots[bend].column;
                    let left = left_of_column(&widths, &gaps, column);
                    let y = MARGIN + TITLE + middles[bend];
                    points.push([left, y]);
                    points.push([left + widths[column] + stubs[column], y]);
                }
                points.push([boxes[*to].left, boxes[*to].middle()]);
                Wire { from: *from, port: *port, points }
            })
            .collect();
        let lowest = (0..slots.len()).map(|slot| top(slot) + slots[slot].height).fold(MARGIN + TITLE, f64::max);
        let last = count.saturating_sub(1);
        let width = left_of_column(&widths, &gaps, last) + widths.get(last).copied().unwrap_or(0.0) + MARGIN;
        Self { boxes, wires, width, height: lowest + MARGIN }
    }
}

/// Returns the column of each node: after all its inputs; sources next to the first node that reads them.
fn columns_of(nodes: &[Node]) -> Vec<usize> {
    let mut columns = vec![0; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        columns[index] = node.inputs.iter().map(|input| columns[input.from] + 1).max().unwrap_or(0);
    }
    for index in 0..nodes.len() {
        if nodes[index].inputs.is_empty() {
            let consumers =
                nodes.iter().enumerate().filter(|(_, node)| node.inputs.iter().any(|input| input.from == index));
            columns[index] = consumers.map(|(consumer, _)| columns[consumer] - 1).min().unwrap_or(0);
        }
    }
    columns
}

/// Returns the slots of each column from top to bottom, with few crossings.
fn order_of(slots: &[Slot]) -> Vec<Vec<usize>> {
    let count = slots.iter().map(|slot| slot.column + 1).max().unwrap_or(0);
    let mut order: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (index, slot) in slots.iter().enumerate() {
        order[slot.column].push(index);
    }
    let mut best = order.clone();
    for round in 0..16 {
        let forwards = round % 2 == 0;
        let columns: Vec<usize> =
            if forwards { (1..count).collect() } else { (0..count.saturating_sub(1)).rev().collect() };
        for column in columns {
            let adjacent = &order[if forwards { column - 1 } else { column + 1 }];
            let position = |slot: &usize| adjacent.iter().position(|other| other == slot).unwrap_or(0) as f64;
            let mut keyed: Vec<(f64, usize, usize)> = order[column]
                .iter()
                .enumerate()
                .map(|(at, &slot)| {
                    let neighbours = if forwards { &slots[slot].before } else { &slots[slot].after };
                    let sum: f64 = neighbours.iter().map(position).sum();
                    (if neighbours.is_empty() { at as f64 } else { sum / neighbours.len() as f64 }, at, slot)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            order[column] = keyed.into_iter().map(|(_, _, slot)| slot).collect();
        }
        if crossings(slots, &order) < crossings(slots, &best) {
            best.clone_from(&order);
        }
    }
    best
}

fn crossings(slots: &[Slot], order: &[Vec<usize>]) -> usize {
    let mut count = 0;
    for pair in order.windows(2) {
        let position = |slot: usize| pair[1].iter().position(|&other| other == slot).unwrap_or(0);
        let edges: Vec<(usize, usize)> = pair[0]
            .iter()
            .enumerate()
            .flat_map(|(at, &slot)| slots[slot].after.iter().map(move |&after| (at, position(after))))
            .collect();
        for (index, first) in edges.iter().enumerate() {
            count += edges[..index]
                .iter()
                .filter(|second| {
                    (first.0 < second.0) != (first.1 < second.1) && first.0 != second.0 && first.1 != second.1
                })
                .count();
        }
    }
    count
}

/// Returns the middle of each slot: near the middles of its neighbours, in order and with clearance.
fn heights_of(slots: &[Slot], order: &[Vec<usize>]) -> Vec<f64> {
    let mut middles = vec![0.0; slots.len()];
    for column in order {
        place(slots, column, &mut middles, |_, _| 0.0);
    }
    for round in 0..400 {
        let columns: Vec<usize> =
            if round % 2 == 0 { (0..order.len()).collect() } else { (0..order.len()).rev().collect() };
        for column in columns {
            place(slots, &order[column], &mut middles, |slot, middles| {
                let neighbours = slots[slot].before.iter().chain(&slots[slot].after);
                let (sum, count) =
                    neighbours.fold((0.0, 0.0), |(sum, count), &other| (sum + middles[other], count + 1.0));
                if count == 0.0 { middles[slot] } else { sum / count }
            });
        }
    }
    let top = (0..slots.len()).map(|slot| middles[slot] - slots[slot].height / 2.0).fold(f64::INFINITY, f64::min);
    middles.iter().map(|middle| middle - top).collect()
}

/// Moves the slots of a column as near to their target as their order and clearance allow: least squares under
/// `middle[i + 1] - middle[i] >= clearance`, by pooling neighbours that would collide.
fn place(slots: &[Slot], column: &[usize], middles: &mut [f64], target: impl Fn(usize, &[f64]) -> f64) {
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(column.len());
    for (at, &slot) in column.iter().enumerate() {
        if at > 0 {
            offset += (slots[column[at - 1]].height + slots[slot].height) / 2.0 + CLEAR;
        }
        offsets.push(offset);
    }
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (at, &slot) in column.iter().enumerate() {
        pools.push((target(slot, middles) - offsets[at], 1));
        while let [.., (first, n), (second, m)] = pools[..]
            && first >= second
        {
            pools.truncate(pools.len() - 2);
            pools.push(((first * n as f64 + second * m as f64) / (n + m) as f64, n + m));
        }
    }
    let positions = pools.iter().flat_map(|&(position, count)| std::iter::repeat_n(position, count));
    for ((&slot, offset), position) in column.iter().zip(&offsets).zip(positions) {
        middles[slot] = position + offset;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::{Edge, NodeInput};

    /// Returns random graphs in which every node has up to three earlier nodes as inputs.
    fn graphs() -> impl Strategy<Value = Vec<Node>> {
        prop::collection::vec(prop::collection::btree_set(0usize..1000, 0..4), 1..14).prop_map(|picks| {
            let node = |(index, picks): (usize, &std::collections::BTreeSet<usize>)| {
                let from: std::collections::BTreeSet<usize> =
                    picks.iter().filter(|_| index > 0).map(|pick| pick % index.max(1)).collect();
                let input = |from| NodeInput { from, port: Port::Main, edge: Edge::Scan };
                Node {
                    name: format!("node_{index}"),
                    kind: "kind".into(),
                    role: Role::Score,
                    inputs: from.into_iter().map(input).collect(),
                }
            };
            picks.iter().enumerate().map(node).collect()
        })
    }

    proptest! {
        #[test]
        fn layout_has_no_overlaps(nodes in graphs()) {
            let layout = Layout::of(&nodes, 11.0, |node| text_width(&node.name, 14.0) + 30.0);
            let boxes = &layout.boxes;
            for (index, a) in boxes.iter().enumerate() {
                prop_assert!(a.left >= 0.0 && a.top >= 0.0);
                prop_assert!(a.left + a.width <= layout.width && a.top + a.height <= layout.height);
                for b in &boxes[..index] {
                    let apart = a.left + a.width <= b.left || b.left + b.width <= a.left
                        || a.top + a.height + CLEAR - 1e-6 <= b.top || b.top + b.height + CLEAR - 1e-6 <= a.top;
                    prop_assert!(apart);
                }
            }
            let consumers = nodes.iter().enumerate().flat_map(|(to, node)| node.inputs.iter().map(move |_| to));
            for (wire, to) in layout.wires.iter().zip(consumers) {
                prop_assert!(boxes[wire.from].left < boxes[to].left, "edges run from left to right");
                // The straight pieces that pass a column keep clear of its boxes.
                for piece in wire.points[2..wire.points.len() - 1].chunks(2) {
                    for other in boxes {
                        let outside = other.left + other.width <= piece[0][0] || piece[1][0] <= other.left;
                        let clear = piece[0][1] < other.top || other.top + other.height < piece[0][1];
                        prop_assert!(outside || clear);
                    }
                }
            }
        }
    }
}
