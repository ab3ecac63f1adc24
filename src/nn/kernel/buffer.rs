//! Allocation of memory for volumes.

/// Bytes of one huge page.
const HUGE_PAGE: usize = 2 << 20;

/// The minimum size in bytes of a buffer that requests huge pages: from this size on, an allocator maps separate pages for a buffer.
const LARGE: usize = 32 << 20;

/// Returns a buffer of zeros; a large buffer requests huge pages from the system.
///
/// A volume of features takes hundreds of MiB that are written once and soon freed. In pages of 4 KiB, the system takes longer to map
/// the pages than a normalization layer takes to fill them.
///
/// ```
/// let buffer = freetumor::nn::kernel::zeros(10 << 20);
/// assert!(buffer.len() == 10 << 20 && buffer.iter().all(|&number| number == 0.0));
/// ```
pub fn zeros(len: usize) -> Vec<f32> {
    let buffer = vec![0.0; len];
    advise(&buffer);
    buffer
}

#[cfg(target_os = "linux")]
fn advise(buffer: &[f32]) {
    let bytes = size_of_val(buffer);
    if bytes < LARGE {
        return;
    }
    let start = buffer.as_ptr().addr();
    let first = start.next_multiple_of(HUGE_PAGE);
    let end = (start + bytes) / HUGE_PAGE * HUGE_PAGE;
    if end > first {
        let pages = buffer.as_ptr().wrapping_byte_add(first - start).cast_mut().cast();
        // SAFETY: the pages are within the buffer, and the advice changes how the pages are backed, not their content. The system may
        // refuse the advice, which costs only time.
        let _ = unsafe { rustix::mm::madvise(pages, end - first, rustix::mm::Advice::LinuxHugepage) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &[f32]) {}

/// Configures a process for volumes and networks; call this function once, at the start of `main`. `trainings` is the number of networks
/// that are trained concurrently.
///
/// Freed allocations below 32 MiB stay with the process, up to 512 MiB: each tumor and each step of training allocates the same volumes
/// again, and the system would clear their pages every time. candle's threads, which add gradients, sleep instead of spinning while
/// they wait, so that the kernels have the processors; as candle has a single pool of threads, which serves one call at a time,
/// concurrent trainings run without the pool.
pub fn prepare_process(trainings: usize) {
    let (name, value) = match trainings {
        0 | 1 => ("CANDLE_BARRIER_POOL_SPIN_LIMIT", "64"),
        _ => ("CANDLE_NUM_THREADS", "1"),
    };
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread that could read the environment runs yet, as the documentation requires.
        unsafe { std::env::set_var(name, value) };
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both calls only set parameters of the allocator, which is allowed at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE as libc::c_int);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 512 << 20);
    }
}
