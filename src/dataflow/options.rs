//! Options of a run.

/// Options of a run, which do not change the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Number of timely workers.
    pub workers: usize,
    /// Number of threads of the pool.
    pub threads: usize,
    /// Memory budget of all open scans in bytes.
    pub memory_bytes: u64,
    /// Maximum number of new scans to ingest; all if absent.
    pub limit: Option<usize>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { workers: 1, threads: 2, memory_bytes: 8 << 30, limit: None }
    }
}
