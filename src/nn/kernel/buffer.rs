//! Memory for volumes.

/// Bytes of one huge page, and what a buffer needs before it asks for such.
const HUGE_PAGE: usize = 2 << 20;

/// A buffer of zeros; a large one asks the system for huge pages.
///
/// A volume of features is hundreds of MiB that are written once and soon given back. In pages of 4 KiB the system takes longer to
/// hand them out than a norm takes to fill them.
///
/// ```
/// let buffer = freetumor::nn::kernel::zeros(3 << 20);
/// assert!(buffer.len() == 3 << 20 && buffer.iter().all(|&number| number == 0.0));
/// ```
pub fn zeros(len: usize) -> Vec<f32> {
    let buffer = vec![0.0; len];
    advise(&buffer);
    buffer
}

#[cfg(target_os = "linux")]
fn advise(buffer: &[f32]) {
    let bytes = size_of_val(buffer);
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
