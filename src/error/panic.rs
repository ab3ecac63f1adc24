//! Panics that cost one piece of work, and those that must end the process.

use std::any::Any;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs work whose panic is an answer like any other.
///
/// # Errors
/// The words of the panic.
///
/// ```
/// use freetumor::error::catch_panic;
/// assert_eq!(catch_panic(|| 7), Ok(7));
/// ```
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = CAUGHT.replace(true);
    let result = std::panic::catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(before);
    result.map_err(|payload| words_of(payload.as_ref()))
}

fn words_of(payload: &(dyn Any + Send)) -> String {
    let words = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    words.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Makes a panic outside of [`catch_panic`] work end the process with 70: inside a timely operator it would otherwise leave the other
/// workers waiting for ever. A later run goes on from the last commit.
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
    fn a_panic_gives_its_words() {
        assert_eq!(catch_panic(|| panic!("seven")), Err::<(), _>("seven".to_owned()));
        assert_eq!(catch_panic(|| panic!("seven and {}", 8)), Err::<(), _>("seven and 8".to_owned()));
    }
}
