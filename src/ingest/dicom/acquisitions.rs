//! Separation of parallel slices of one patient and matrix into acquisitions and reconstructions.
//!
//! A separation is proposed by the elements of [`ELEMENTS`] and by the instance numbers, and accepted only if it turns slices that
//! contradict each other (two different images at one position, uneven gaps) into even stacks. Slices that are an even stack stay one scan,
//! unless a setting of the scan, or an element that alternates from slice to slice, shows two. An assignment with two solutions is a fault;
//! so are slices that are numbered in two passes, unless their elements and pixels show one acquisition.

use std::collections::{BTreeMap, BTreeSet};

use super::copies::SliceComparison;
use super::decoder::Decoder;
use super::geometry::{self, EvenStack, FEWEST_SLICES, SAME_POSITION_MM, SlicePose};
use super::keys::{ELEMENTS, Meaning};
use super::numbering::{NumberedSlice, interleaved_fault, interleaved_passes, is_monotone, repeated_numbers, runs};
use super::passes::are_neighbours_consistent;
use super::slice::Slice;
use super::stack::{Stack, pose};
use crate::error::Fault;

/// Maximum relative deviation of a gap from the step of a stack.
const SAME_STEP: f64 = 0.2;

/// Separates slices into stacks, and removes the copies of each.
pub(super) fn separate_acquisitions(slices: Vec<Slice>, decoder: &Decoder) -> Vec<Stack> {
    let mut group = Group::new(&slices, decoder);
    let stacks = group.separate().and_then(|parts| group.stacks(parts));
    stacks.unwrap_or_else(|fault| vec![Stack { slices: slices.clone(), fault: Some(fault), ..Stack::default() }])
}

/// Indices of slices in ascending order along the normal, and the names of the elements that separate them from others.
#[derive(Clone)]
struct Part {
    slices: Vec<usize>,
    separated_by: Vec<&'static str>,
}

/// The slices to separate.
struct Group<'a> {
    slices: &'a [Slice],
    /// Position of each slice along the normal.
    along_mm: Vec<f64>,
    comparison: SliceComparison<'a>,
}

impl<'a> Group<'a> {
    fn new(slices: &'a [Slice], decoder: &'a Decoder) -> Self {
        let normal = slices.first().and_then(pose).map_or([0.0; 3], SlicePose::normal);
        let along = |slice: &Slice| pose(slice).map_or(0.0, |pose| geometry::dot(pose.position_mm, normal));
        Self { slices, along_mm: slices.iter().map(along).collect(), comparison: SliceComparison::new(slices, decoder) }
    }

    fn separate(&mut self) -> Result<Vec<Part>, Fault> {
        let mut all: Vec<usize> = (0..self.slices.len()).collect();
        all.sort_by(|&a, &b| {
            let path = |index: usize| &self.slices[index].path;
            self.along_mm[a].total_cmp(&self.along_mm[b]).then_with(|| path(a).cmp(path(b)))
        });
        // A file with the same elements is a copy for every separation.
        let copies = self.copies(&all, |a, b| (a.keys, a.number) == (b.keys, b.number))?;
        let slices: Vec<usize> = all.into_iter().filter(|index| !copies.contains_key(index)).collect();
        let mut parts = match self.solve(&slices, 0)? {
            Some(parts) => parts,
            None => match self.with_gaps(&slices)? {
                Some(parts) => parts,
                None => vec![Part { slices, separated_by: Vec::new() }],
            },
        };
        for (copy, original) in copies {
            let part = parts.iter_mut().find(|part| part.slices.contains(&original));
            part.into_iter().for_each(|part| part.slices.push(copy));
        }
        Ok(parts)
    }

    /// Returns the stacks of the parts, with the copies that each part contains.
    fn stacks(&mut self, parts: Vec<Part>) -> Result<Vec<Stack>, Fault> {
        let is_part = parts.len() > 1;
        let mut stacks = Vec::new();
        for mut part in parts {
            part.slices.sort_by(|&a, &b| self.along_mm[a].total_cmp(&self.along_mm[b]));
            let copies = self.copies(&part.slices, |_, _| true)?;
            let (copies, slices): (Vec<usize>, Vec<usize>) =
                part.slices.iter().partition(|index| copies.contains_key(index));
            let fault = self.numbering_fault(&slices)?;
            let clones = |indices: Vec<usize>| indices.into_iter().map(|index| self.slices[index].clone()).collect();
            stacks.push(Stack {
                slices: clones(slices),
                copies: clones(copies),
                is_part,
                separated_by: part.separated_by,
                fault,
            });
        }
        Ok(stacks)
    }

    /// Returns the fault of slices, in order of their position, whose instance numbers are those of several acquisitions.
    ///
    /// # Errors
    /// Returns the faults of reading pixels.
    fn numbering_fault(&self, slices: &[usize]) -> Result<Option<Fault>, Fault> {
        let Some(numbered) = self.numbered(slices) else { return Ok(None) };
        if let Some(fault) = repeated_numbers(&numbered) {
            return Ok(Some(fault));
        }
        let Some(passes) = interleaved_passes(&numbered) else { return Ok(None) };
        let is_one = passes == 2
            && !(0..ELEMENTS.len()).any(|key| self.differs_by_pass(slices, key))
            && self.are_consistent(slices)?;
        Ok((!is_one).then(|| interleaved_fault(passes)))
    }

    /// Returns whether the pixels of slices, in order of their position, are those of one acquisition.
    fn are_consistent(&self, slices: &[usize]) -> Result<bool, Fault> {
        are_neighbours_consistent(slices.len(), |rank| self.comparison.hu_of(slices[rank]))
    }

    /// Returns whether the first, third, fifth … slice have other values of an element than the slices between them. One value per slice
    /// shows nothing.
    fn differs_by_pass(&self, slices: &[usize], key: usize) -> bool {
        let values = |pass: usize| -> BTreeSet<u64> {
            slices.iter().skip(pass).step_by(2).map(|&slice| self.slices[slice].keys.elements[key]).collect()
        };
        let (first, second) = (values(0), values(1));
        first.is_disjoint(&second) && first.len() + second.len() < slices.len()
    }

    /// Separates slices by the elements from `start` on, or by their numbers; `None` if nothing separates them into even stacks.
    fn solve(&mut self, slices: &[usize], start: usize) -> Result<Option<Vec<Part>>, Fault> {
        if self.is_even(slices)? {
            return self.split_even(slices, 0).map(Some);
        }
        for (key, element) in ELEMENTS.iter().enumerate().skip(start) {
            let parts = self.parts_by(slices, key);
            let is_setting = element.meaning == Meaning::Setting && self.all_have(slices, key);
            if element.meaning == Meaning::Exposure || !are_scans(&parts) || !(is_setting || self.overlap(&parts)) {
                continue;
            }
            let mut solved = Vec::new();
            for part in &parts {
                let Some(parts) = self.solve(part, key + 1)? else {
                    solved.clear();
                    break;
                };
                solved.extend(parts);
            }
            if !solved.is_empty() && !self.has_pieces(&solved) {
                return Ok(Some(named(solved, element.name)));
            }
        }
        self.solve_by_number(slices)
    }

    /// Separates an even stack by settings, and by elements that alternate from slice to slice.
    fn split_even(&mut self, slices: &[usize], start: usize) -> Result<Vec<Part>, Fault> {
        let copies = self.copies(slices, |_, _| true)?;
        let unique: Vec<usize> = slices.iter().copied().filter(|index| !copies.contains_key(index)).collect();
        let is_numbered = self.numbered(&unique).is_some_and(|numbered| is_monotone(&numbered));
        for (key, element) in ELEMENTS.iter().enumerate().skip(start) {
            let parts = self.parts_by(slices, key);
            if !are_scans(&parts) {
                continue;
            }
            let follows = element.meaning == Meaning::Setting && self.all_have(slices, key) && !self.overlap(&parts);
            let mut alternates = self.alternates(&unique, key, parts.len());
            // Scanners that count each rotation alternate between two values, too: then the pixels decide.
            if alternates && is_numbered && matches!(element.meaning, Meaning::Acquisition | Meaning::Exposure) {
                alternates = parts.len() == 2 && !self.are_consistent(&unique)?;
            }
            let mut is_split = follows || alternates;
            for part in &parts {
                is_split = is_split && self.is_even(part)?;
            }
            if is_split {
                let mut split = Vec::new();
                for part in &parts {
                    split.extend(self.split_even(part, key + 1)?);
                }
                return Ok(named(split, element.name));
            }
        }
        Ok(vec![Part { slices: slices.to_vec(), separated_by: Vec::new() }])
    }

    /// Separates slices by their numbers: acquisitions that are numbered one after the other are runs in one direction.
    fn solve_by_number(&mut self, slices: &[usize]) -> Result<Option<Vec<Part>>, Fault> {
        let Some(numbered) = self.numbered(slices) else { return Ok(None) };
        let Some(found) = runs(numbered, |run| {
            let mut slices = run.to_vec();
            slices.sort_by(|&a, &b| self.along_mm[a].total_cmp(&self.along_mm[b]));
            self.is_even(&slices)
        })?
        else {
            return Ok(None);
        };
        let mut parts = Vec::new();
        for mut slices in found {
            slices.sort_by(|&a, &b| self.along_mm[a].total_cmp(&self.along_mm[b]));
            parts.push(Part { slices, separated_by: vec!["InstanceNumber"] });
        }
        // Runs that meet at one slice are as well one scan with a slice that was sent twice.
        let meet = |a: &Part, b: &Part| (self.range(&b.slices)[0] - self.range(&a.slices)[1]).abs() <= SAME_POSITION_MM;
        let any_meet = parts.iter().any(|a| parts.iter().any(|b| meet(a, b)));
        Ok((!any_meet && !self.has_pieces(&parts)).then_some(parts))
    }

    /// Separates slices by an element although slices of a part are missing: reading that part is a fault, and the others are complete.
    fn with_gaps(&mut self, slices: &[usize]) -> Result<Option<Vec<Part>>, Fault> {
        let step = self.median_step(slices);
        for (key, element) in ELEMENTS.iter().enumerate() {
            let parts = self.parts_by(slices, key);
            let mut is_split = element.meaning != Meaning::Exposure && are_scans(&parts) && self.overlap(&parts);
            for part in &parts {
                is_split = is_split
                    && (self.median_step(part) / step - 1.0).abs() <= SAME_STEP
                    && self.has_one_slice_per_position(part)?;
            }
            let parts: Vec<Part> =
                parts.into_iter().map(|slices| Part { slices, separated_by: vec![element.name] }).collect();
            if is_split && !self.has_pieces(&parts) {
                return Ok(Some(parts));
            }
        }
        Ok(None)
    }

    /// Returns the slices that are copies of an earlier slice with `may_be_copy`, by index, and the slice of which each is a copy.
    fn copies(
        &mut self,
        slices: &[usize],
        may_be_copy: impl Fn(&Slice, &Slice) -> bool,
    ) -> Result<BTreeMap<usize, usize>, Fault> {
        let mut copies = BTreeMap::new();
        let mut kept: Vec<usize> = Vec::new();
        for &slice in slices {
            let near =
                kept.iter().rev().take_while(|&&kept| self.along_mm[slice] - self.along_mm[kept] <= SAME_POSITION_MM);
            let near: Vec<usize> =
                near.copied().filter(|&kept| may_be_copy(&self.slices[slice], &self.slices[kept])).collect();
            let mut original = None;
            for other in near {
                if original.is_none() && self.comparison.are_copies(slice, other)? {
                    original = Some(other);
                }
            }
            match original {
                Some(original) => drop(copies.insert(slice, original)),
                None => kept.push(slice),
            }
        }
        Ok(copies)
    }

    /// Returns whether all slices at one position are copies of each other.
    fn has_one_slice_per_position(&mut self, slices: &[usize]) -> Result<bool, Fault> {
        for pair in slices.windows(2) {
            let is_near = self.along_mm[pair[1]] - self.along_mm[pair[0]] <= SAME_POSITION_MM;
            if is_near && !self.comparison.are_copies(pair[0], pair[1])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether slices are an even stack without their copies.
    fn is_even(&mut self, slices: &[usize]) -> Result<bool, Fault> {
        let mut unique: Vec<usize> = Vec::new();
        for &slice in slices {
            let is_near = |&last: &usize| self.along_mm[slice] - self.along_mm[last] <= SAME_POSITION_MM;
            if !unique.last().is_some_and(is_near) {
                unique.push(slice);
            }
        }
        let poses: Vec<SlicePose> = unique.iter().filter_map(|&index| pose(&self.slices[index])).copied().collect();
        // Pixels are compared last: they are read from the files.
        Ok(EvenStack::of(&poses).is_ok() && self.has_one_slice_per_position(slices)?)
    }

    fn parts_by(&self, slices: &[usize], key: usize) -> Vec<Vec<usize>> {
        let mut parts: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for &slice in slices {
            parts.entry(self.slices[slice].keys.elements[key]).or_default().push(slice);
        }
        parts.into_values().collect()
    }

    fn all_have(&self, slices: &[usize], key: usize) -> bool {
        slices.iter().all(|&slice| self.slices[slice].keys.elements[key] != 0)
    }

    /// Returns whether the values of an element repeat in the same order along the stack.
    fn alternates(&self, unique: &[usize], key: usize, values: usize) -> bool {
        let value = |rank: usize| self.slices[unique[rank]].keys.elements[key];
        let distinct = |ranks: std::ops::Range<usize>| {
            ranks.clone().all(|a| ranks.clone().all(|b| a == b || value(a) != value(b)))
        };
        unique.len() > values
            && distinct(0..values)
            && (values..unique.len()).all(|rank| value(rank) == value(rank - values))
    }

    /// Returns the slices with their numbers; `None` if a slice has no number.
    fn numbered(&self, slices: &[usize]) -> Option<Vec<NumberedSlice>> {
        let numbered = slices.iter().map(|&slice| {
            Some(NumberedSlice { slice, number: self.slices[slice].number?, along_mm: self.along_mm[slice] })
        });
        numbered.collect()
    }

    fn range(&self, slices: &[usize]) -> [f64; 2] {
        let along = slices.iter().map(|&slice| self.along_mm[slice]);
        along.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], mm| [low.min(mm), high.max(mm)])
    }

    /// Returns whether two parts overlap along the normal.
    fn overlap(&self, parts: &[Vec<usize>]) -> bool {
        let mut ranges: Vec<[f64; 2]> = parts.iter().map(|part| self.range(part)).collect();
        ranges.sort_by(|a, b| a[0].total_cmp(&b[0]));
        ranges.windows(2).any(|pair| pair[1][0] - pair[0][1] <= SAME_POSITION_MM)
    }

    /// Returns whether two parts do not overlap, without a setting that separates them: they may be pieces of one scan, between which
    /// slices are missing or not.
    fn has_pieces(&self, parts: &[Part]) -> bool {
        let keys = |part: &Part| &self.slices[part.slices[0]].keys;
        parts.iter().any(|a| {
            parts.iter().any(|b| {
                let is_disjoint = self.range(&b.slices)[0] - self.range(&a.slices)[1] > SAME_POSITION_MM;
                let differ = keys(a).differ_in_setting(keys(b)) || keys(a).differ_in_series_number(keys(b));
                is_disjoint && !differ
            })
        })
    }

    /// Returns the median distance of slices at different positions.
    fn median_step(&self, slices: &[usize]) -> f64 {
        let gaps = slices.windows(2).map(|pair| self.along_mm[pair[1]] - self.along_mm[pair[0]]);
        let mut gaps: Vec<f64> = gaps.filter(|gap| *gap > SAME_POSITION_MM).collect();
        gaps.sort_by(f64::total_cmp);
        gaps.get(gaps.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Returns whether there are several parts, all large enough for a scan.
fn are_scans(parts: &[Vec<usize>]) -> bool {
    parts.len() > 1 && parts.iter().all(|part| part.len() >= FEWEST_SLICES)
}

/// Adds the name of an element to parts that it separates.
fn named(mut parts: Vec<Part>, name: &'static str) -> Vec<Part> {
    parts.iter_mut().for_each(|part| part.separated_by.insert(0, name));
    parts
}
