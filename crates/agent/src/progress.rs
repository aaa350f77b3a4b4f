//! What a person sees of a replay: a bar on a terminal, plain lines elsewhere.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::position::Tally;

/// How often a plain line is written.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// Where a replay stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Bytes of the source's text read so far.
    pub offset: u64,
    /// Bytes in all, where they are known.
    pub bytes: Option<u64>,
    /// What became of the lines.
    pub tally: Tally,
    /// Events of the log that are settled.
    pub settled: u64,
    /// Events of the log that wait for it.
    pub unsettled: u64,
}

/// Somebody who watches a replay.
pub trait Watcher: Send {
    /// It went on. Called often; whoever shows it decides how often.
    fn step(&mut self, step: &Step);
    /// Something a person should read, such as a malformed line with its number.
    fn note(&mut self, note: fmt::Arguments<'_>);
    /// It is over.
    fn end(&mut self);
}

/// Watches nothing.
#[derive(Debug, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {
    fn step(&mut self, _: &Step) {}
    fn note(&mut self, _: fmt::Arguments<'_>) {}
    fn end(&mut self) {}
}

/// A bar where standard error is a terminal, plain lines on it otherwise.
#[must_use]
pub fn on_stderr() -> Box<dyn Watcher> {
    if io::stderr().is_terminal() { Box::new(Bar::new()) } else { Box::new(Plain::new(io::stderr())) }
}

struct Bar {
    bar: ProgressBar,
    next: Instant,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, next: Instant::now() }
    }
}

impl Watcher for Bar {
    fn step(&mut self, step: &Step) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + BAR_INTERVAL;
        let template = match step.bytes {
            Some(bytes) => {
                self.bar.set_length(bytes);
                "{bar:30} {bytes}/{total_bytes} {eta} {msg}"
            }
            None => "{spinner} {bytes} {elapsed} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_position(step.offset);
        self.bar.set_message(line(step));
    }

    fn note(&mut self, note: fmt::Arguments<'_>) {
        self.bar.println(note.to_string());
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes a line now and then.
struct Plain<W> {
    out: W,
    next: Instant,
}

impl<W: Write> Plain<W> {
    fn new(out: W) -> Self {
        Self { out, next: Instant::now() + PLAIN_INTERVAL }
    }
}

impl<W: Write + Send> Watcher for Plain<W> {
    fn step(&mut self, step: &Step) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + PLAIN_INTERVAL;
            self.note(format_args!("{}", line(step)));
        }
    }

    fn note(&mut self, note: fmt::Arguments<'_>) {
        // A watcher that went away does not stop the work.
        let _ = writeln!(self.out, "{note}");
    }

    fn end(&mut self) {}
}

fn line(step: &Step) -> String {
    let Step { tally, settled, unsettled, .. } = step;
    format!(
        "{} lines, {} events, {} malformed, {} ignored; log: {settled} settled, {unsettled} on their way",
        tally.lines, tally.events, tally.malformed, tally.ignored
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_rare_and_notes_are_not() {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out);
        for _ in 0..3 {
            plain.step(&Step::default());
        }
        plain.note(format_args!("line 7 is cut"));
        plain.next = Instant::now();
        plain.step(&Step { settled: 5, ..Step::default() });
        plain.step(&Step::default());
        let expected = "line 7 is cut\n\
                        0 lines, 0 events, 0 malformed, 0 ignored; log: 5 settled, 0 on their way\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
