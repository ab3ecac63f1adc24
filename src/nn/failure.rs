//! candle's errors, as this crate says them.

use crate::error::Error;

/// What was tried, and why it failed, on one line: where a backtrace is wanted, candle prints it into its message.
pub(crate) fn failed(what: &str) -> impl Fn(candle_core::Error) -> Error + '_ {
    move |error| {
        let mut inner = &error;
        while let candle_core::Error::WithBacktrace { inner: next, .. } = inner {
            inner = next;
        }
        Error::new(format!("{what}: {inner}"))
    }
}

#[cfg(test)]
mod tests {
    use super::failed;

    #[test]
    fn no_backtrace_is_in_a_message() {
        let error = candle_core::Error::Msg("no room".to_owned());
        let traced = candle_core::Error::WithBacktrace {
            inner: Box::new(error),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        assert_eq!(failed("cannot add")(traced).to_string(), "cannot add: no room");
    }
}
