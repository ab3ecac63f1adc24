//! Checks that any text yields a plan or a list of problems.
#![no_main]

use freetumor::graph::{GraphFile, Registry, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let checked = check(&GraphFile::new("fuzz.toml", ".", text), &Registry::standard());
    assert!(checked.plan.is_some() || !checked.problems.is_empty());
    checked.problems.iter().for_each(|problem| assert!(!problem.to_string().is_empty()));
});
