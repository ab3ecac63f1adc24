//! Several trainings at a time, each on a part of the processors.
//!
//! A narrow network leaves a second core half idle; two of them on a core each are done sooner. Results do not depend on it: a
//! training has the same bits for any number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use freetumor::error::{Error, Result};

/// Does `each` for every piece of work, `jobs` at a time; the first error ends it, once what was begun has ended.
///
/// # Errors
/// The first that any of them gives.
pub fn side_by_side<T: Sync>(jobs: usize, work: &[T], each: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let jobs = jobs.clamp(1, work.len().max(1));
    if jobs == 1 {
        return work.iter().try_for_each(each);
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let keep = |error: Error| {
        next.store(work.len(), Ordering::Relaxed);
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads((processors / jobs).max(1)).build();
                let pool = match pool {
                    Ok(pool) => pool,
                    Err(cause) => return keep(Error::new(format!("cannot start threads: {cause}"))),
                };
                while let Some(piece) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = pool.install(|| each(piece)) {
                        return keep(error);
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_and_a_failure_ends_it() {
        let work: Vec<usize> = (0..50).collect();
        for jobs in [1, 3, 80] {
            let done = Mutex::new(Vec::new());
            side_by_side(jobs, &work, |piece| {
                done.lock().unwrap().push(*piece);
                Ok(())
            })
            .unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, work);
            let began = AtomicUsize::new(0);
            let failing = side_by_side(jobs, &work, |piece| {
                began.fetch_add(1, Ordering::Relaxed);
                if *piece == 2 { Err(Error::new("no")) } else { Ok(()) }
            });
            assert_eq!(failing.unwrap_err().to_string(), "no");
            assert!(began.into_inner() <= 50);
        }
    }
}
