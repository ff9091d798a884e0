//! Progress bars on standard error for anything that takes over a second, and the checkpoint of what takes long.

use super::options::{KeepOptions, RunOptions};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vi4dvar::checkpoint::{self, Checkpoint, MaybeKeeper};
use vi4dvar::engine::Engine;
use vi4dvar::error::{Error, Result};
use vi4dvar::method::{Observer, Progress};

/// Runs shorter than this show no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the user has asked the run to end.
static STOP: AtomicBool = AtomicBool::new(false);

/// Where a run that writes to `out`, a directory or a file, keeps its state.
pub(super) fn checkpoint_of(out: &Path) -> PathBuf {
    if out.extension().is_some() { out.with_extension("checkpoint") } else { out.join("checkpoint") }
}

/// Shows where a method stands: iterations per second, its figures, and the time left. Keeps the run's state, from which
/// `--resume` goes on.
pub(super) struct Bar {
    wanted: bool,
    quiet: bool,
    method: String,
    started: Instant,
    bar: Option<ProgressBar>,
    path: PathBuf,
    checkpoint: Option<Checkpoint>,
    engine: Engine,
}

impl Bar {
    /// A bar that appears after a second of each method, unless `quiet` or where standard error is no terminal. The state is
    /// kept at `path`; `settings` and the engine are what the answer depends on, with `inputs`, the bytes of files read.
    ///
    /// # Errors
    /// A checkpoint that is there and not to be resumed, one of another run, or a damaged one.
    pub(super) fn new(
        run: &RunOptions,
        keep: &KeepOptions,
        path: PathBuf,
        settings: &str,
        inputs: &[&Path],
        engine: &Engine,
    ) -> Result<Self> {
        let every = keep.checkpoint_every;
        if !(every.is_finite() && (0.0..=1e9).contains(&every)) {
            let help = "30 loses half a minute at most";
            return Err(Error::invalid("checkpoint-every", "seconds from 0 to 1e9", every.to_string(), help));
        }
        let every = Duration::from_secs_f64(every);
        let mut identity = format!("version = {}\n{settings}", env!("CARGO_PKG_VERSION"));
        let hardware = engine.hardware();
        let (adapter, driver, precision) = (&hardware.adapter, &hardware.driver, hardware.precision.name());
        identity += &format!("adapter = {adapter}\ndriver = {driver}\nprecision = {precision}\n");
        for input in inputs {
            let bytes =
                std::fs::read(input).map_err(|e| Error::file(input, format!("cannot be read: {e}"), "check it"))?;
            identity += &format!("{} = {:08x}\n", input.display(), crc32fast::hash(&bytes));
        }
        if run.force && !keep.resume {
            checkpoint::remove(&path)?;
        }
        let checkpoint = if keep.resume {
            Checkpoint::resume(&path, &identity, every, &STOP)?
        } else {
            Checkpoint::new(&path, &identity, every, &STOP)?
        };
        if keep.resume && !run.quiet {
            match checkpoint.is_resumed() {
                true => eprintln!("goes on from {}", path.display()),
                false => eprintln!("note: nothing was kept at {}: begins anew", path.display()),
            }
        }
        // Of a run on several ranks whose launcher has ended it nothing more is to be said than the launcher says.
        let alone = engine.ranks().count() == 1;
        let end = move || {
            if STOP.swap(true, Ordering::Relaxed) {
                // Whoever asks twice will not wait.
                eprintln!("note: ended at once; --resume goes on from the last state that was kept");
                std::process::exit(130);
            }
            std::thread::spawn(move || {
                std::thread::sleep(PATIENCE);
                if !alone {
                    return;
                }
                eprintln!("note: interrupted: ends when its state is kept, or is done before; once more ends at once");
            });
        };
        // Refused where a handler is there already, which then is this one.
        let _ = ctrlc::set_handler(end);
        Ok(Self {
            wanted: !run.quiet && std::io::stderr().is_terminal(),
            quiet: run.quiet,
            method: String::new(),
            started: Instant::now(),
            bar: None,
            path,
            checkpoint: Some(checkpoint),
            engine: engine.clone(),
        })
    }

    /// What came of the run, its results written: nothing of its state is needed any more. Where it failed on the way, its
    /// state is kept if that may help.
    ///
    /// # Errors
    /// The run's; a checkpoint that cannot be removed.
    pub(super) fn conclude<T>(mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outcome = run(&mut self);
        self.clear();
        let faults = self.engine.faults();
        if let (Some(first), false) = (faults.first(), self.quiet) {
            eprintln!(
                "note: failures of the GPU, mended without harm to a number: {}; the first: {first}",
                faults.len()
            );
        }
        let Some(mut checkpoint) = self.checkpoint.take() else { return outcome };
        match outcome {
            Ok(value) => {
                if STOP.load(Ordering::Relaxed) {
                    eprintln!("note: it was done before it could be interrupted; all of its results are there");
                }
                checkpoint.remove().map(|()| value)
            }
            // Those would come again.
            Err(error @ (Error::Diverged { .. } | Error::Invalid { .. } | Error::Wrong { .. })) => {
                checkpoint.remove()?;
                Err(error)
            }
            Err(error) => {
                if !checkpoint.save() {
                    checkpoint.remove()?;
                } else if !matches!(error, Error::Interrupted { .. }) {
                    eprintln!("note: {} has the state of the run: --resume goes on from there", self.path.display());
                }
                Err(error)
            }
        }
    }

    /// Takes the bar off the screen.
    pub(super) fn clear(&mut self) {
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
        if let Some(trouble) = self.checkpoint.as_mut().and_then(Checkpoint::take_trouble)
            && !self.quiet
        {
            eprintln!("note: {trouble}; the run goes on, but could not be resumed");
        }
        ControlFlow::Continue(())
    }

    fn keeper(&mut self) -> MaybeKeeper<'_> {
        self.checkpoint.as_mut().map(|c| c as _)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
