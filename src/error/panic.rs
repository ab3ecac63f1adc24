//! Catches panics of single tasks; any other panic ends the process.

use std::any::Any;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs a task and catches its panic.
///
/// # Errors
/// Returns the message of the panic.
///
/// ```
/// use freetumor::error::catch_panic;
/// assert_eq!(catch_panic(|| 7), Ok(7));
/// ```
pub fn catch_panic<T>(task: impl FnOnce() -> T) -> Result<T, String> {
    let before = CAUGHT.replace(true);
    let result = std::panic::catch_unwind(AssertUnwindSafe(task));
    CAUGHT.set(before);
    result.map_err(|payload| message_of(payload.as_ref()))
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let message = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    message.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Makes a panic outside of [`catch_panic`] end the process with exit code 70: after a panic in a timely operator, the other workers
/// would otherwise wait forever. A later run resumes from the last commit.
pub fn exit_on_uncaught_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if CAUGHT.get() {
            tracing::debug!("{panic}");
        } else {
            default(panic);
            std::process::exit(70);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catch_panic_returns_message() {
        assert_eq!(catch_panic(|| panic!("seven")), Err::<(), _>("seven".to_owned()));
        assert_eq!(catch_panic(|| panic!("seven and {}", 8)), Err::<(), _>("seven and 8".to_owned()));
    }
}
