//! Parallel trainings, each on a part of the processors.
//!
//! A narrow network does not use two cores fully, so that two trainings with one core each are faster. Results do not depend on the
//! number of jobs: a training has the same bits for any number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use freetumor::error::{Error, Result};

/// Calls `run` with every task, `jobs` at a time. After the first error no further task is started.
///
/// # Errors
/// Returns the first error of a task.
pub fn run_parallel<T: Sync>(jobs: usize, tasks: &[T], run: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let jobs = jobs.clamp(1, tasks.len().max(1));
    if jobs == 1 {
        return tasks.iter().try_for_each(run);
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let keep = |error: Error| {
        next.store(tasks.len(), Ordering::Relaxed);
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
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = pool.install(|| run(task)) {
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
    fn run_parallel_runs_each_task_once_and_stops_on_error() {
        let tasks: Vec<usize> = (0..50).collect();
        for jobs in [1, 3, 80] {
            let done = Mutex::new(Vec::new());
            run_parallel(jobs, &tasks, |task| {
                done.lock().unwrap().push(*task);
                Ok(())
            })
            .unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, tasks);
            let started = AtomicUsize::new(0);
            let result = run_parallel(jobs, &tasks, |task| {
                started.fetch_add(1, Ordering::Relaxed);
                if *task == 2 { Err(Error::new("failed")) } else { Ok(()) }
            });
            assert_eq!(result.unwrap_err().to_string(), "failed");
            assert!(started.into_inner() <= 50);
        }
    }
}
