//! A parallel map over items.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;

/// Calls `work` on every item, in any order, and returns the results in the order of the items. Each thread processes one item at a
/// time.
///
/// # Errors
/// Returns the first error; items that are not started at that time are skipped.
pub(super) fn map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let finished = Mutex::new((Vec::with_capacity(items.len()), None));
    let run_worker = || {
        while let Some((index, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, items.get(i)?)))
        {
            let result = work(item);
            let mut finished = finished.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(result) => finished.0.push((index, result)),
                Err(error) => {
                    finished.1.get_or_insert(error);
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(run_worker);
        }
        run_worker();
    });
    let (mut results, error) = finished.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    error.map_or_else(|| Ok(results.into_iter().map(|(_, result)| result).collect()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn map_returns_results_in_order_of_items() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [1, 3, 200] {
            assert_eq!(map(&items, threads, |item| Ok(item * 2)).unwrap(), (0..200).step_by(2).collect::<Vec<_>>());
        }
        assert!(map(&[] as &[usize], 2, |item| Ok(*item)).unwrap().is_empty());
    }

    #[test]
    fn map_stops_at_first_error() {
        let done = AtomicUsize::new(0);
        let items: Vec<usize> = (0..1000).collect();
        let work = |item: &usize| {
            done.fetch_add(1, Ordering::Relaxed);
            if *item == 3 { Err(Error::new("three")) } else { Ok(()) }
        };
        assert_eq!(map(&items, 1, work).unwrap_err().to_string(), "three");
        assert_eq!(done.load(Ordering::Relaxed), 4);
    }
}
