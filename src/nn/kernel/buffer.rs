//! Memory for volumes.

/// Bytes of one huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes from which on a buffer asks for huge pages: from here on an allocator gives it pages of its own.
const LARGE: usize = 32 << 20;

/// A buffer of zeros; a large one asks the system for huge pages.
///
/// A volume of features is hundreds of MiB that are written once and soon given back. In pages of 4 KiB the system takes longer to
/// hand them out than a norm takes to fill them.
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
        // SAFETY: the pages lie within the buffer, and the advice changes how they are backed, not what they hold. It may be
        // refused, which costs only time.
        let _ = unsafe { rustix::mm::madvise(pages, end - first, rustix::mm::Advice::LinuxHugepage) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &[f32]) {}

/// Prepares a process for volumes and networks: to be called once, first thing in `main`. `trainings` is how many networks are trained side
/// by side.
///
/// Freed memory below 32 MiB a piece stays with the process, up to 512 MiB: a tumor or a step of training allocates the same volumes
/// again and again, and the system would clear their pages every time. And candle's own threads, which add up gradients, wait asleep
/// instead of spinning, so that they leave the processors to the kernels; as there is one crew of them, which serves one call at a time,
/// trainings side by side do without.
pub fn prepare_process(trainings: usize) {
    let (name, value) = match trainings {
        0 | 1 => ("CANDLE_BARRIER_POOL_SPIN_LIMIT", "64"),
        _ => ("CANDLE_NUM_THREADS", "1"),
    };
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread runs yet that could read the environment at the same time; the documentation asks for that.
        unsafe { std::env::set_var(name, value) };
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both calls only set numbers of the allocator, which takes them at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE as libc::c_int);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 512 << 20);
    }
}
