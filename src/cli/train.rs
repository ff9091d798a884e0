//! `vi4dvar train`: train a recognition network on simulated windows, or an autoencoder on the background errors of a cycle.

use clap::{ArgMatches, Command};
use vi4dvar::engine::Ranks;
use vi4dvar::error::Result;

pub(super) fn flags(command: Command) -> Command {
    // Settings that are flattened into a command leave their own words there: what it is about comes last.
    let about = "A recognition network, which says at once what 4DVAR or VI iterate for";
    let amortized = amortized::flags(Command::new("amortized")).about(about).long_about(about);
    let about = "Distributions of the background errors of a cycle, one for each window, for VAE-Var";
    let vae = vae::flags(Command::new("vae")).about(about).long_about(about);
    command.subcommand_required(true).subcommand(amortized).subcommand(vae)
}

pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
    match flags.subcommand().expect("a subcommand is required") {
        ("vae", flags) => vae::run(flags, ranks),
        (_, flags) => amortized::run(flags, ranks),
    }
}

/// `vi4dvar train amortized`.
mod amortized {
    use crate::cli::config::{self, Given};
    use crate::cli::options::{HardwareOptions, KeepOptions, RunOptions};
    use crate::cli::preset;
    use clap::{ArgMatches, Args, Command};
    use serde::Serialize;
    use std::path::PathBuf;
    use vi4dvar::engine::Ranks;
    use vi4dvar::error::Result;
    use vi4dvar::experiment::{Preset, TwinSettings};
    use vi4dvar::method::AmortizedTraining;

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
        #[command(flatten)]
        #[serde(skip)]
        pub keep: KeepOptions,
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
        config::with_defaults(Options::augment_args_for_update(command), &defaults(of_default()))
    }

    fn of_default() -> Preset {
        Preset::from_name("amortized-l96").expect("a preset of this name")
    }

    fn defaults(preset: Preset) -> Options {
        Options {
            network: AmortizedTraining::default(),
            twin: preset.twin,
            hardware: HardwareOptions::default(),
            output: Output { preset: None, out: "weights.nc".into() },
            run: RunOptions::default(),
            keep: KeepOptions::default(),
        }
    }

    pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
        let given = Given::new::<Options>(flags)?;
        let Some(preset) = preset(&given, of_default())? else { return Ok(()) };
        let options = given.over(defaults(preset));
        train(&options, &config::resolved("train amortized", &options), ranks)
    }

    #[cfg(not(feature = "neural"))]
    fn train(options: &Options, _: &str, _: &Ranks) -> Result<()> {
        let Options { output: Output { out, .. }, .. } = options;
        let found = format!("one without, for {}", out.display());
        let help = "build with --features neural";
        Err(vi4dvar::Error::invalid("train", "a build with networks", found, help))
    }

    #[cfg(feature = "neural")]
    fn train(options: &Options, settings: &str, ranks: &Ranks) -> Result<()> {
        use crate::cli::progress::{Bar, checkpoint_of};
        use crate::cli::{output, print};
        use std::time::Instant;
        use vi4dvar::experiment::training_windows;
        use vi4dvar::method::Recognition;
        use vi4dvar::output::{check_writable, loss_figure, write_bytes, write_text};

        let out = &options.output.out;
        let force = options.keep.overwrites(&options.run, out);
        let pictures = [out.with_extension("svg"), out.with_extension("png")];
        output::check(out, &[], force)?;
        pictures.iter().try_for_each(|picture| check_writable(picture, force))?;
        options.network.check()?;
        options.twin.check()?;
        let engine = options.hardware.engine(&options.run, ranks)?;
        let clock = Instant::now();
        let windows = training_windows(&options.twin, options.network.windows)?;
        let bar = Bar::new(&options.run, &options.keep, checkpoint_of(out), settings, &[], &engine)?;
        bar.conclude(|bar| {
        let network = Recognition::train(&windows, &options.network, &engine, options.twin.seed, bar)?;
        bar.clear();
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
        let in_training = history.best.checked_sub(1).and_then(|k| history.training.get(k));
        print(&format!(
            "{} weights, {} windows, {}, {seconds:.0} s\n{loss} after epoch {}: {:.3} held out, {:.3} in training\non {}\n{}\n",
            network.weights(),
            options.network.windows,
            history.ending(),
            history.best,
            history.lowest(),
            in_training.copied().unwrap_or(f64::NAN),
            engine,
            out.display()
        ))
        })
    }
}

/// `vi4dvar train vae`.
mod vae {
    use crate::cli::config::{self, Given};
    use crate::cli::learned::{self, LearnedOptions};
    use crate::cli::options::{HardwareOptions, KeepOptions, RunOptions};
    use crate::cli::progress::{Bar, checkpoint_of};
    use crate::cli::{cycle_preset, output, print};
    use clap::{ArgMatches, Args, Command};
    use serde::Serialize;
    use std::path::PathBuf;
    use vi4dvar::engine::Ranks;
    use vi4dvar::error::{Error, Result};
    use vi4dvar::experiment::{CyclePreset, CycleSettings, CycledKind};
    use vi4dvar::output::check_writable;

    #[derive(Args, Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Options {
        #[command(flatten)]
        #[serde(flatten)]
        settings: CycleSettings,
        #[command(flatten)]
        #[serde(flatten)]
        learned: LearnedOptions,
        #[command(flatten)]
        #[serde(flatten)]
        hardware: HardwareOptions,
        #[command(flatten)]
        #[serde(skip)]
        output: Output,
        #[command(flatten)]
        #[serde(skip)]
        run: RunOptions,
        #[command(flatten)]
        #[serde(skip)]
        keep: KeepOptions,
    }

    #[derive(Args)]
    struct Output {
        /// The settings of the cycle to start from; `list` shows them all. Default: vae-var-l63, or vae-var-l96 for
        /// --model lorenz96
        #[arg(long, value_name = "NAME")]
        preset: Option<String>,
        /// The directory to write to: vae-3dvar.nc or vae-4dvar-WINDOW.nc, how good each is, and figures. Default: out/vae
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    }

    /// Flags of a cycle that have no part in what is learned: a file of settings may have them, the command line not.
    const UNUSED: [&str; 11] = [
        "methods",
        "factors",
        "inflations",
        "static-share",
        "members",
        "vae-terms",
        "family",
        "iterations",
        "batch",
        "cycles",
        "vae",
    ];

    pub(super) fn flags(command: Command) -> Command {
        let of_default = CyclePreset { settings: of_default().settings.completed(), ..of_default() };
        let command = config::with_defaults(Options::augment_args_for_update(command), &defaults(of_default));
        command.mut_args(|arg| {
            let unused = arg.get_long().is_some_and(|name| UNUSED.contains(&name));
            arg.hide(unused)
        })
    }

    fn of_default() -> CyclePreset {
        CyclePreset::from_name("vae-var-l63").expect("a preset of this name")
    }

    fn defaults(preset: CyclePreset) -> Options {
        Options {
            settings: preset.settings,
            learned: LearnedOptions::default(),
            hardware: HardwareOptions::default(),
            output: Output { preset: None, out: "out/vae".into() },
            run: RunOptions::default(),
            keep: KeepOptions::default(),
        }
    }

    pub(super) fn run(flags: &ArgMatches, ranks: &Ranks) -> Result<()> {
        let given = Given::new::<Options>(flags)?;
        if let Some(name) = UNUSED.iter().find(|name| given.has_flag(name)) {
            let help = "leave it out, or use it with `vi4dvar cycle`";
            return Err(Error::invalid(*name, "a flag that training uses", format!("--{name}"), help));
        }
        let Some(preset) = cycle_preset(&given, of_default())? else { return Ok(()) };
        let mut options = given.over(defaults(preset));
        options.learned.vae.clear();
        options.settings = CycleSettings { methods: vec![CycledKind::VaeVar], ..options.settings.completed() };
        let Options { settings, learned: from, output: Output { out, .. }, run, keep, .. } = &options;
        let force = keep.overwrites(run, out);
        settings.check()?;
        from.check(settings)?;
        let files = from.files(settings, out);
        let check = || files.iter().try_for_each(|target| check_writable(target, force));
        if out.exists() {
            check()?;
        }
        let engine = options.hardware.engine(run, ranks)?;
        let mut new = output::NewDirectories::default();
        new.create(out)?;
        check()?;
        let resolved = config::resolved("train vae", &options);
        let bar = Bar::new(run, keep, checkpoint_of(out), &resolved, &[], &engine)?;
        bar.conclude(|bar| {
            let all = from.learn(settings, &engine, bar)?;
            bar.clear();
            let attributes = output::attributes("train vae", &resolved, Some(&engine));
            for own in &all {
                learned::write(own, out, &attributes, settings.seed, force)?;
            }
            let text: String = all.iter().map(learned::summary).collect();
            print(&format!("{text}on {engine}\n{}\n", out.display()))
        })
    }
}
