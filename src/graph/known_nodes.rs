//! The nodes of a graph while they are built and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::digest::StageDigests;
use super::edge::Role;
use super::registry::BuiltNode;
use super::spec::NodeSpec;
use super::wiring::Wiring;
use crate::mask::Organ;

/// The nodes by their index in the file, with those that are built already.
pub(super) struct KnownNodes<'a, 't> {
    pub(super) specs: &'a [NodeSpec<'t>],
    pub(super) wiring: &'a Wiring,
    /// Built nodes; `None` for a node that is not built or failed.
    pub(super) nodes: Vec<Option<BuiltNode>>,
    /// Digests of built synthesis and score stages.
    pub(super) digests: BTreeMap<usize, StageDigests>,
    /// The ancestors of each node, itself included.
    pub(super) ancestors: Vec<BTreeSet<usize>>,
}

impl KnownNodes<'_, '_> {
    /// Iterates over the ancestors of a node with a role, in topological order.
    pub(super) fn upstream(&self, at: usize, role: Role) -> impl Iterator<Item = usize> + '_ {
        let order = self.wiring.order.iter().copied();
        order.filter(move |&other| self.wiring.roles[other] == Some(role) && self.ancestors[at].contains(&other))
    }

    /// Iterates over the nodes with a role, in the order of the file.
    pub(super) fn with_role(&self, role: Role) -> impl Iterator<Item = usize> + '_ {
        (0..self.specs.len()).filter(move |&at| self.wiring.roles[at] == Some(role))
    }

    /// Returns the organs that a mask may find; `None` if the mask was not built.
    pub(super) fn organs_of_mask(&self, at: usize) -> Option<Arc<[Organ]>> {
        match &self.nodes[at] {
            Some(BuiltNode::Mask(mask)) => Some(mask.organs()),
            _ => None,
        }
    }

    /// Returns the organs of all masks upstream of a node, and whether all these masks are built.
    pub(super) fn organs_before(&self, at: usize) -> (Arc<[Organ]>, bool) {
        let mut organs: Vec<Organ> = Vec::new();
        let mut complete = self.ancestors[at].iter().all(|&other| self.wiring.roles[other].is_some());
        for mask in self.upstream(at, Role::Mask) {
            let Some(found) = self.organs_of_mask(mask) else {
                complete = false;
                continue;
            };
            for organ in found.iter() {
                if !organs.iter().any(|known| known.name == organ.name) {
                    organs.push(organ.clone());
                }
            }
        }
        complete &= !organs.is_empty();
        (organs.into(), complete)
    }

    /// Returns the score stages between a synthesis and a filter, each after its inputs.
    pub(super) fn scores_between(&self, synthesis: usize, filter: usize) -> Vec<usize> {
        self.upstream(filter, Role::Score).filter(|&score| self.ancestors[score].contains(&synthesis)).collect()
    }
}
