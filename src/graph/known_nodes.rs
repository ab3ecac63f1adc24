//! The nodes of a file while they are built and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::digest::StageDigests;
use super::edge::Role;
use super::registry::BuiltNode;
use super::spec::NodeSpec;
use super::wiring::Wiring;
use crate::mask::Organ;

/// The nodes by their index in the file, with the parts that are built already.
pub(super) struct KnownNodes<'a, 't> {
    pub(super) specs: &'a [NodeSpec<'t>],
    pub(super) wiring: &'a Wiring,
    pub(super) parts: Vec<Option<BuiltNode>>,
    /// Digests of built synthesis and score stages.
    pub(super) digests: BTreeMap<usize, StageDigests>,
    /// Every node before a node, itself included.
    pub(super) before: Vec<BTreeSet<usize>>,
}

impl KnownNodes<'_, '_> {
    /// Nodes of a role before a node, in the order of the way.
    pub(super) fn upstream(&self, at: usize, role: Role) -> impl Iterator<Item = usize> + '_ {
        let order = self.wiring.order.iter().copied();
        order.filter(move |&other| self.wiring.roles[other] == Some(role) && self.before[at].contains(&other))
    }

    /// Nodes of a role, in the order of the file.
    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = usize> + '_ {
        (0..self.specs.len()).filter(move |&at| self.wiring.roles[at] == Some(role))
    }

    /// The organs that a mask may give; `None` where it was not built.
    pub(super) fn organs_of_mask(&self, at: usize) -> Option<Arc<[Organ]>> {
        match &self.parts[at] {
            Some(BuiltNode::Mask(mask)) => Some(mask.organs()),
            _ => None,
        }
    }

    /// The organs that may come in, and whether all masks before the node are known.
    pub(super) fn organs_before(&self, at: usize) -> (Arc<[Organ]>, bool) {
        let mut organs: Vec<Organ> = Vec::new();
        let mut complete = self.before[at].iter().all(|&other| self.wiring.roles[other].is_some());
        for mask in self.upstream(at, Role::Mask) {
            let Some(given) = self.organs_of_mask(mask) else {
                complete = false;
                continue;
            };
            for organ in given.iter() {
                if !organs.iter().any(|known| known.name == organ.name) {
                    organs.push(organ.clone());
                }
            }
        }
        complete &= !organs.is_empty();
        (organs.into(), complete)
    }

    /// The score stages between a synthesis and a filter, each after those it takes from.
    pub(super) fn scores_between(&self, synthesis: usize, filter: usize) -> Vec<usize> {
        self.upstream(filter, Role::Score).filter(|&score| self.before[score].contains(&synthesis)).collect()
    }
}
