//! The same work on many items by several threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;

/// Does `work` on every item, in any order, and returns what came of each, in the order of the items. Each thread has one item at a
/// time.
///
/// # Errors
/// The first error that occurred; items that no thread has started by then are skipped.
pub(super) fn each<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let finished = Mutex::new((Vec::with_capacity(items.len()), None));
    let serve = || {
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
            scope.spawn(serve);
        }
        serve();
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
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [1, 3, 200] {
            assert_eq!(each(&items, threads, |item| Ok(item * 2)).unwrap(), (0..200).step_by(2).collect::<Vec<_>>());
        }
        assert!(each(&[] as &[usize], 2, |item| Ok(*item)).unwrap().is_empty());
    }

    #[test]
    fn first_error_ends_the_work() {
        let done = AtomicUsize::new(0);
        let items: Vec<usize> = (0..1000).collect();
        let work = |item: &usize| {
            done.fetch_add(1, Ordering::Relaxed);
            if *item == 3 { Err(Error::new("three")) } else { Ok(()) }
        };
        assert_eq!(each(&items, 1, work).unwrap_err().to_string(), "three");
        assert_eq!(done.load(Ordering::Relaxed), 4);
    }
}
