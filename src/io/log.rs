//! Log lines and the progress bar, both on standard error.
//!
//! On a terminal the bar is the last line and gives way to log lines; elsewhere progress is a log line.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::LogLevel;

/// Whether the last line of the terminal is a progress bar.
static BAR_SHOWN: AtomicBool = AtomicBool::new(false);

/// Starts logging to standard error. Only the first call of a process has an effect.
pub fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_timer(SystemTime)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Stderr)
        .finish();
    // A second start, as in a test that runs two servers, keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Draws the bar, over the one before.
pub fn draw_bar(text: &str) {
    let mut stderr = io::stderr().lock();
    // A terminal that is gone is no reason to stop serving.
    let _ = write!(stderr, "\r\x1b[2K{text}").and_then(|()| stderr.flush());
    BAR_SHOWN.store(true, Ordering::Relaxed);
}

/// Takes the bar away.
pub fn clear_bar() {
    if BAR_SHOWN.swap(false, Ordering::Relaxed) {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush());
    }
}

/// Standard error, without the bar.
#[derive(Clone, Copy, Debug)]
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = io::Stderr;

    fn make_writer(&'a self) -> io::Stderr {
        clear_bar();
        io::stderr()
    }
}
