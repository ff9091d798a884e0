//! Progress bars on standard error, for anything that takes over a second.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use vi4dvar::method::{Observer, Progress};

/// Runs shorter than this show no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows where a method stands: iterations per second, its figures, and the time left.
pub(super) struct Bar {
    wanted: bool,
    method: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar that appears after a second of each method, unless `quiet` or where standard error is no terminal.
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            wanted: !quiet && std::io::stderr().is_terminal(),
            method: String::new(),
            started: Instant::now(),
            bar: None,
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Bar {
    fn progress(&mut self, progress: &Progress) -> ControlFlow<()> {
        if self.method != progress.method {
            self.clear();
            (self.method, self.started) = (progress.method.to_string(), Instant::now());
        }
        if self.wanted && self.started.elapsed() > PATIENCE {
            let bar = self.bar.get_or_insert_with(|| {
                let style = "{prefix} {bar:24} {pos}/{len} {per_sec} {msg} {eta} left";
                let style = ProgressStyle::with_template(style).expect("the template is valid");
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_elapsed(PATIENCE);
                bar.with_style(style).with_prefix(progress.method.to_string())
            });
            bar.set_length(progress.iterations as u64);
            bar.set_position(progress.iteration as u64);
            let figures: Vec<_> = progress.figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            bar.set_message(figures.join(" "));
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
