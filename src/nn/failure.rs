//! Conversion of candle's errors to errors of this crate.

use crate::error::Error;

/// Returns a conversion of candle's errors to an error that names the failed operation and its cause on one line. If backtraces are
/// enabled, candle's own message contains the backtrace.
pub(crate) fn failed(operation: &str) -> impl Fn(candle_core::Error) -> Error + '_ {
    move |error| {
        let mut inner = &error;
        while let candle_core::Error::WithBacktrace { inner: next, .. } = inner {
            inner = next;
        }
        Error::new(format!("{operation}: {inner}"))
    }
}

#[cfg(test)]
mod tests {
    use super::failed;

    #[test]
    fn failed_omits_backtrace() {
        let error = candle_core::Error::Msg("no room".to_owned());
        let traced = candle_core::Error::WithBacktrace {
            inner: Box::new(error),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        assert_eq!(failed("cannot add")(traced).to_string(), "cannot add: no room");
    }
}
