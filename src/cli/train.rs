//! `vi4dvar train`: train a network on simulated windows and write its weights.

use clap::{ArgMatches, Command};
use vi4dvar::error::Result;

pub(super) fn flags(command: Command) -> Command {
    let about = "A recognition network, which says at once what 4DVAR or VI iterate for";
    let amortized = amortized::flags(Command::new("amortized").about(about));
    command.subcommand_required(true).subcommand(amortized)
}

pub(super) fn run(flags: &ArgMatches) -> Result<()> {
    let (_, flags) = flags.subcommand().expect("a subcommand is required");
    amortized::run(flags)
}

/// `vi4dvar train amortized`.
mod amortized {
    use crate::cli::config::{self, Given};
    use crate::cli::options::{HardwareOptions, RunOptions};
    use crate::cli::preset;
    use clap::{ArgMatches, Args, Command};
    use serde::Serialize;
    use std::path::PathBuf;
    use vi4dvar::error::Result;
    use vi4dvar::experiment::{Preset, TwinSettings};
    use vi4dvar::method::AmortizedTraining;
    use vi4dvar::neural::TrainingSettings;

    #[derive(Args, Serialize)]
    #[serde(rename_all = "kebab-case")]
    pub(super) struct Options {
        #[command(flatten)]
        #[serde(flatten)]
        pub network: AmortizedTraining,
        #[command(flatten)]
        #[serde(flatten)]
        pub twin: TwinSettings,
        #[command(flatten)]
        #[serde(flatten)]
        pub hardware: HardwareOptions,
        #[command(flatten)]
        #[serde(skip)]
        pub output: Output,
        #[command(flatten)]
        #[serde(skip)]
        pub run: RunOptions,
    }

    #[derive(Args)]
    pub(super) struct Output {
        /// The settings of the windows to start from; `list` shows them all. Default: amortized-l96
        #[arg(long, value_name = "NAME")]
        preset: Option<String>,
        /// The file to write the weights to; the figure of the losses lies beside it. Default: weights.nc
        #[arg(long, value_name = "FILE")]
        pub out: PathBuf,
    }

    pub(super) fn flags(command: Command) -> Command {
        // What other networks train with is not what this one does.
        let TrainingSettings { epochs, training_rate, .. } = AmortizedTraining::default().training;
        Options::augment_args_for_update(command)
            .mut_arg("epochs", |a| a.help(format!("Passes over the training set at most. Default: {epochs}")))
            .mut_arg("training_rate", |a| {
                let what = "Adam's learning rate at the start, in deviations of the initial weights; it falls to 0 by a cosine";
                a.help(format!("{what}. Default: {training_rate}"))
            })
    }

    pub(super) fn run(flags: &ArgMatches) -> Result<()> {
        let given = Given::new::<Options>(flags)?;
        let Some(preset) = preset(&given, Preset::from_name("amortized-l96")?)? else { return Ok(()) };
        let options = given.over(Options {
            network: AmortizedTraining::default(),
            twin: preset.twin,
            hardware: HardwareOptions::default(),
            output: Output { preset: None, out: "weights.nc".into() },
            run: RunOptions::default(),
        });
        train(&options, &config::resolved("train amortized", &options))
    }

    #[cfg(not(feature = "neural"))]
    fn train(options: &Options, _: &str) -> Result<()> {
        let Options { output: Output { out, .. }, .. } = options;
        let found = format!("one without, for {}", out.display());
        let help = "build with --features neural";
        Err(vi4dvar::Error::invalid("train", "a build with networks", found, help))
    }

    #[cfg(feature = "neural")]
    fn train(options: &Options, settings: &str) -> Result<()> {
        use crate::cli::progress::Bar;
        use crate::cli::{output, print};
        use std::time::Instant;
        use vi4dvar::experiment::training_windows;
        use vi4dvar::method::Recognition;
        use vi4dvar::output::{check_writable, loss_figure, write_bytes, write_text};

        let (out, force) = (&options.output.out, options.run.force);
        let pictures = [out.with_extension("svg"), out.with_extension("png")];
        output::check(out, &[], force)?;
        pictures.iter().try_for_each(|picture| check_writable(picture, force))?;
        options.network.check()?;
        options.twin.check()?;
        let engine = options.hardware.engine(&options.run)?;
        let clock = Instant::now();
        let windows = training_windows(&options.twin, options.network.windows)?;
        let mut bar = Bar::new(options.run.quiet);
        let network = Recognition::train(&windows, &options.network, &engine, options.twin.seed, &mut bar)?;
        drop(bar);
        let seconds = clock.elapsed().as_secs_f64();
        network.write(out, &output::attributes("train amortized", settings, Some(&engine)), force)?;
        output::save_settings(out, settings, force)?;
        let history = network.history();
        let loss = match options.network.network.posterior {
            vi4dvar::Recognized::Delta => "cost J",
            _ => "-ELBO",
        };
        if let Some(figure) = loss_figure(history, loss) {
            write_text(&pictures[0], &figure.svg, force)?;
            write_bytes(&pictures[1], &figure.png, force)?;
        }
        let epochs = history.held_out.len();
        let at = |losses: &[f64]| losses.get(history.best).copied().unwrap_or(f64::NAN);
        let ending = if history.stopped_early { "stopped early" } else { "done" };
        print(&format!(
            "{} weights, {} windows, {ending} after {epochs} epochs and {seconds:.0} s\n{loss} after epoch {}: {:.3} held out, \
             {:.3} in training\non {}\n{}\n",
            network.weights(),
            options.network.windows,
            history.best + 1,
            at(&history.held_out),
            at(&history.training),
            engine.hardware(),
            out.display()
        ))
    }
}
