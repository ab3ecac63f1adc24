//! Messages on standard error: plain text, or one JSON object per line with `--log-format json`.
//!
//! Commands write text. In JSON, every message becomes an event of the log, so that all lines have one form and one time stamp; lines
//! that continue a message (a location, a hint) belong to its event.

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Format of the lines on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// The style of printed messages; fixed at the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageStyle {
    /// Format of the lines.
    pub format: LogFormat,
    /// Print errors only.
    pub quiet: bool,
    /// Additional levels of the log: 1 for messages of level info, 2 for messages of level debug.
    pub verbose: u8,
}

static STYLE: OnceLock<MessageStyle> = OnceLock::new();

/// Returns the message style of the process; plain text before [`MessageStyle::start`].
pub fn style() -> MessageStyle {
    STYLE.get().copied().unwrap_or_default()
}

impl MessageStyle {
    /// Sets the message style of the process and starts the log. Only the first call has an effect.
    pub fn install(self) {
        if STYLE.set(self).is_err() {
            return;
        }
        let level = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => "warn,freetumor::cli=info",
            (false, 1) => "info",
            (false, _) => "freetumor=debug,info",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
        let log = tracing_subscriber::fmt().with_writer(stderr).with_ansi(is_coloured());
        // Each span logs its duration when it closes: one line per stage and scan at level info.
        let log = log.with_span_events(FmtSpan::CLOSE);
        match self.format {
            LogFormat::Text => log.with_env_filter(filter).with_target(false).init(),
            LogFormat::Json => {
                // The filter of RUST_LOG must not drop the errors of the command itself.
                let own = if self.quiet { "freetumor::cli::messages=error" } else { "freetumor::cli::messages=info" };
                let filter = own.parse().map_or(filter.clone(), |own| filter.add_directive(own));
                log.with_env_filter(filter).json().init();
                std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
            }
        }
    }

    /// Returns whether a progress bar can be drawn.
    pub fn has_bar(self) -> bool {
        self.format == LogFormat::Text && !self.quiet && stderr().is_terminal()
    }
}

/// Returns whether standard error is a terminal that shows colours, and `NO_COLOR` is not set, see <https://no-color.org>.
fn is_coloured() -> bool {
    let is_plain = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    stderr().is_terminal() && !is_plain && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A level of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Info,
    Warning,
    Error,
}

/// A writer for messages in the message style of the process.
#[derive(Debug, Default)]
pub struct Messages {
    style: MessageStyle,
    line: Vec<u8>,
    message: Option<(Level, String)>,
}

impl Messages {
    /// Creates a writer.
    pub fn new(style: MessageStyle) -> Self {
        Self { style, line: Vec::new(), message: None }
    }

    fn finish_line(&mut self) -> io::Result<()> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        // The quoted line of a problem starts with its number.
        let is_quoted = line.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(" |");
        let is_continued = is_quoted || line.starts_with(' ') || line.starts_with("hint: ") || line.is_empty();
        match &mut self.message {
            Some((_, message)) if is_continued => {
                message.push('\n');
                message.push_str(&line);
                Ok(())
            }
            _ => {
                self.finish_message()?;
                self.message = Some(level_of(&line));
                Ok(())
            }
        }
    }

    fn finish_message(&mut self) -> io::Result<()> {
        let Some((level, message)) = self.message.take() else { return Ok(()) };
        let message = message.trim();
        match (self.style.format, level) {
            _ if self.style.quiet && level != Level::Error => Ok(()),
            (LogFormat::Text, Level::Error) => writeln!(stderr(), "error: {message}"),
            (LogFormat::Text, Level::Warning) => writeln!(stderr(), "warning: {message}"),
            (LogFormat::Text, Level::Info) => writeln!(stderr(), "{message}"),
            (LogFormat::Json, _) => {
                match level {
                    Level::Error => tracing::error!("{message}"),
                    Level::Warning => tracing::warn!("{message}"),
                    Level::Info => tracing::info!("{message}"),
                }
                Ok(())
            }
        }
    }
}

fn level_of(line: &str) -> (Level, String) {
    let level = |prefix| line.strip_prefix(prefix).map(str::to_owned);
    if let Some(message) = level("error: ") {
        return (Level::Error, message);
    }
    match level("warning: ") {
        Some(message) => (Level::Warning, message),
        None => (Level::Info, line.to_owned()),
    }
}

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.style.format == LogFormat::Text && !self.style.quiet {
            return stderr().write(bytes);
        }
        for &byte in bytes {
            if byte == b'\n' { self.finish_line()? } else { self.line.push(byte) }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.finish_line()?;
        }
        self.finish_message()?;
        stderr().flush()
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        // A closed standard error loses the last message.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_message_stay_together() {
        let mut messages = Messages::new(MessageStyle { quiet: true, ..MessageStyle::default() });
        write!(messages, "error: expected a number, got `x`\n  --> a.toml:3:1\n   |\n3 | a = x\n   = hint: write 3\n")
            .unwrap();
        let (level, message) = messages.message.take().unwrap();
        assert_eq!(level, Level::Error);
        assert_eq!(message, "expected a number, got `x`\n  --> a.toml:3:1\n   |\n3 | a = x\n   = hint: write 3");
        writeln!(messages, "warning: a disk is small").unwrap();
        assert_eq!(messages.message.take().unwrap(), (Level::Warning, "a disk is small".to_owned()));
        writeln!(messages, "3 scans").unwrap();
        assert_eq!(messages.message.take().unwrap(), (Level::Info, "3 scans".to_owned()));
    }

    #[test]
    fn flushed_lines_are_separate_messages_even_if_they_start_with_spaces() {
        let mut messages = Messages::new(MessageStyle { quiet: true, ..MessageStyle::default() });
        for step in ["   1.0 s  step 1", "  10.0 s  step 2"] {
            writeln!(messages, "{step}").unwrap();
            assert_eq!(messages.message, Some((Level::Info, step.to_owned())));
            messages.flush().unwrap();
            assert_eq!(messages.message, None);
        }
    }
}
