//! The subcommands, one file each, and what they share.

mod assimilate;
mod bench;
mod compare;
mod config;
mod cycle;
mod devices;
mod evaluate;
mod learned;
mod options;
mod output;
mod progress;
mod sbc;
mod simulate;
mod train;
mod twin;
mod validate;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};
use std::io::Write;
use std::process::ExitCode;
use vi4dvar::engine::Ranks;
use vi4dvar::error::{Error, Result};
use vi4dvar::experiment::{CyclePreset, CycledKind, Preset};

/// A subcommand: its name, what it does in one line, its flags, and what runs it.
struct Subcommand {
    name: &'static str,
    about: &'static str,
    flags: fn(Command) -> Command,
    run: fn(&ArgMatches, &Ranks) -> Result<()>,
    /// Whether several ranks have something to do.
    on_ranks: bool,
}

const SUBCOMMANDS: [Subcommand; 11] = [
    Subcommand {
        name: "twin",
        about: "The whole case study: simulate, assimilate by every method, compare, and report with figures",
        flags: twin::flags,
        run: twin::run,
        on_ranks: true,
    },
    Subcommand {
        name: "cycle",
        about: "Assimilate window after window: errors of 3DVar and 4DVar over thousands of cycles, with figures",
        flags: cycle::flags,
        run: cycle::run,
        on_ranks: true,
    },
    Subcommand {
        name: "sbc",
        about: "Are the methods calibrated? Ranks of the truth over many prior twins, with a figure",
        flags: sbc::flags,
        run: sbc::run,
        on_ranks: true,
    },
    Subcommand {
        name: "simulate",
        about: "Make a twin problem and write its file",
        flags: simulate::flags,
        run: simulate::run,
        on_ranks: false,
    },
    Subcommand {
        name: "train",
        about: "Train a network, on simulated windows or on background errors, and write its weights",
        flags: train::flags,
        run: train::run,
        on_ranks: true,
    },
    Subcommand {
        name: "assimilate",
        about: "Assimilate a problem file by one method",
        flags: assimilate::flags,
        run: assimilate::run,
        on_ranks: true,
    },
    Subcommand {
        name: "evaluate",
        about: "Cost and gradient of given members of a problem",
        flags: evaluate::flags,
        run: evaluate::run,
        on_ranks: true,
    },
    Subcommand {
        name: "compare",
        about: "Scores, figures and a report of analyses made earlier, of one problem",
        flags: compare::flags,
        run: compare::run,
        on_ranks: false,
    },
    Subcommand {
        name: "validate",
        about: "Check this machine's adapter against a reference, row by row",
        flags: validate::flags,
        run: validate::run,
        on_ranks: false,
    },
    Subcommand {
        name: "bench",
        about: "Throughput on this machine, and how far it is from what the device can do",
        flags: bench::flags,
        run: bench::run,
        on_ranks: true,
    },
    Subcommand {
        name: "devices",
        about: "List the adapters, and which one would be used",
        flags: devices::flags,
        run: devices::run,
        on_ranks: true,
    },
];

/// The whole command line.
fn command() -> Command {
    let about = "Ensemble engine for variational data assimilation, on any GPU and on the CPU";
    let command = Command::new("vi4dvar").version(env!("CARGO_PKG_VERSION")).about(about).subcommand_required(true);
    SUBCOMMANDS.iter().fold(command, |command, subcommand| {
        command.subcommand(signed((subcommand.flags)(Command::new(subcommand.name)).about(subcommand.about)))
    })
}

/// A number with a sign is a value to be judged, not an unknown flag.
fn signed(command: Command) -> Command {
    let command = command.mut_subcommands(signed);
    command.mut_args(|flag| {
        let takes_value = flag.get_action().takes_values() && !flag.is_require_equals_set();
        flag.allow_negative_numbers(takes_value)
    })
}

/// Parses the process's arguments.
///
/// # Errors
/// The exit code of a process that has nothing more to do, everything said: 2 after wrong use, 0 after `--help`.
pub(crate) fn parse() -> std::result::Result<ArgMatches, ExitCode> {
    command().try_get_matches().map_err(|error| {
        match error.kind() {
            ErrorKind::ValueValidation => eprint!("{}", in_words(&error.render().to_string())),
            // A reader that has gone away is no error.
            _ => drop(error.print()),
        }
        ExitCode::from(error.exit_code() as u8)
    })
}

/// What is wrong with a value of a flag, where the parser of its type says it in terms of its own.
fn in_words(message: &str) -> String {
    let of_types = [
        ("invalid digit found in string", "expected a whole number >= 0"),
        ("cannot parse integer from empty string", "expected a whole number >= 0, found nothing"),
        ("number too large to fit in target type", "larger than any number that fits there"),
        ("invalid float literal", "expected a number"),
        ("cannot parse float from empty string", "expected a number, found nothing"),
    ];
    of_types.iter().fold(message.into(), |text: String, (from, to)| text.replace(from, to))
}

/// Runs the subcommand.
///
/// # Errors
/// Whatever it could not do.
pub(crate) fn run(matches: &ArgMatches, ranks: &Ranks) -> Result<()> {
    let (name, flags) = matches.subcommand().expect("a subcommand is required");
    let subcommand = SUBCOMMANDS.iter().find(|s| s.name == name).expect("only these are declared");
    if ranks.count() > 1 && !subcommand.on_ranks {
        eprintln!("note: {name} needs no more than one rank, {} were started", ranks.count());
    }
    (subcommand.run)(flags, ranks)
}

/// Writes to standard output. A reader that has gone away (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Write { path: "standard output".into(), reason: error })
        }
        _ => Ok(()),
    }
}

/// The preset that the flags or the file name, or else `default`, or of another model the first preset of that kind of
/// twin. `--preset list` prints them all, and then there is nothing left to do.
fn preset(given: &config::Given, default: Preset) -> Result<Option<Preset>> {
    let model = given.model();
    let preset = match given.text("preset").map(String::as_str) {
        None => {
            let fits = |p: &Preset| p.twin.kind == default.twin.kind && Some(p.twin.model) == model;
            if model.is_none() || fits(&default) {
                default
            } else {
                Preset::all().into_iter().find(fits).unwrap_or(default)
            }
        }
        Some("list") => {
            let lines: Vec<_> = Preset::all().iter().map(|p| preset_line(p.name, p.about)).collect();
            return print(&lines.concat()).map(|()| None);
        }
        Some(name) => Preset::from_name(name)?,
    };
    let twin = preset.twin.clone().with_model(model.unwrap_or(preset.twin.model)).completed();
    Ok(Some(Preset { twin, ..preset }))
}

/// The same of cycles: of another model the first preset that does, or does not, learn like the default.
fn cycle_preset(given: &config::Given, default: CyclePreset) -> Result<Option<CyclePreset>> {
    let model = given.model();
    let preset = match given.text("preset").map(String::as_str) {
        None => {
            let learns = |p: &CyclePreset| p.settings.methods.contains(&CycledKind::VaeVar);
            let of_model = |p: &CyclePreset| Some(p.settings.model) == model;
            if model.is_none() || of_model(&default) {
                default
            } else {
                let fits = |p: &CyclePreset| of_model(p) && learns(p) == learns(&default);
                CyclePreset::all().into_iter().find(fits).unwrap_or(default)
            }
        }
        Some("list") => {
            let lines: Vec<_> = CyclePreset::all().iter().map(|p| preset_line(p.name, p.about)).collect();
            return print(&lines.concat()).map(|()| None);
        }
        Some(name) => CyclePreset::from_name(name)?,
    };
    let settings = preset.settings.clone().with_model(model.unwrap_or(preset.settings.model));
    Ok(Some(CyclePreset { settings, ..preset }))
}

/// A preset in a list of them.
fn preset_line(name: &str, about: &str) -> String {
    format!("{name:16} {about}\n")
}
