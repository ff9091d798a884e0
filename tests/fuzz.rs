//! Every reader of what a user hands over, given damaged input: it must say no, or take something sound. Never may it panic,
//! take memory for what a file merely claims, or go on for ever.
//!
//! Each reader gets 2,000 inputs (slow ones fewer). `VI4DVAR_FUZZ_CASES=10000` gives each so many, `VI4DVAR_FUZZ_SECONDS=600` each as
//! many as fit into that time, `VI4DVAR_FUZZ_SEED=2` others; with `--nocapture` each prints a line of what came of them. An input that
//! a reader cannot take is kept in `tests/regressions`, and every file there is read again by each run of the tests.

#[allow(dead_code, reason = "each test target uses a part")]
mod common;
#[allow(dead_code, reason = "each test target uses a part")]
#[path = "common/mutation.rs"]
mod mutation;
#[allow(dead_code, reason = "each test target uses a part")]
#[path = "common/samples.rs"]
mod samples;

use common::Dice;
use mutation::{Anatomy, VALUES, below, damaged, misspelt};
use ndarray::{Array2, Axis};
use samples::{Draft, SITES, analysis, block_average, full_b, learned, problem, stamps, temporary, wavy, weak};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use vi4dvar::engine::{Engine, Members, Precision, Terms};
use vi4dvar::error::{Error, Result};
use vi4dvar::method::Vae;
use vi4dvar::output::{read_analysis, read_members, write_analysis, write_members};
use vi4dvar::problem::Problem;

// The readers.

/// What reads one kind of input, and inputs that it takes.
struct Kind {
    name: &'static str,
    /// What files of it end in.
    ending: &'static str,
    sound: Vec<Vec<u8>>,
    damage: fn(&[u8], &mut Dice) -> Vec<u8>,
    /// Reads a file and checks what it gives; panics where that cannot be.
    read: fn(&Path) -> Result<Outcome>,
    /// Inputs unless the environment says how many.
    cases: u64,
}

/// What became of an input that was not refused by the library.
enum Outcome {
    Taken,
    /// A process ended with exit code 2, for this reason.
    Refused(String),
}

fn taken<T>(result: Result<T>, check: impl FnOnce(T)) -> Result<Outcome> {
    result.map(check).map(|()| Outcome::Taken)
}

/// A file written by the library, as bytes.
fn bytes(write: impl FnOnce(&Path) -> Result<()>) -> Vec<u8> {
    let directory = temporary();
    let path = directory.path().join("sound");
    write(&path).unwrap();
    fs::read(path).unwrap()
}

fn damage_netcdf(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    damaged(bytes, &Anatomy::of(bytes), dice)
}

fn problems() -> Kind {
    let mut unlimited = Draft::new();
    unlimited.unlimited = Some("time");
    let sound = [problem(), weak(full_b(block_average(problem())), true), weak(problem(), false)];
    let mut sound: Vec<_> = sound.iter().map(|p| bytes(|path| p.write(path, &stamps(), false))).collect();
    sound.push(bytes(|path| {
        unlimited.write(path);
        Ok(())
    }));
    let read = |path: &Path| taken(Problem::read(path), |p| assert_usable(&p));
    Kind { name: "problem", ending: "nc", sound, damage: damage_netcdf, read, cases: 2000 }
}

/// A problem that was read is one that an engine takes, and that can be written and read again.
fn assert_usable(problem: &Problem) {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    problem.check().unwrap();
    let directory = temporary();
    let path = directory.path().join("again.nc");
    problem.write(&path, &stamps(), false).unwrap();
    let again = Problem::read(&path).unwrap();
    assert_eq!(again.control(), problem.control());
    // What takes long was asked for.
    if problem.window.steps() < 1000 {
        let engine = ENGINE.get_or_init(|| Engine::cpu(Precision::F64).unwrap());
        let mean = problem.control_mean(0).insert_axis(Axis(0));
        match engine.load(problem).and_then(|mut loaded| loaded.gradient(Members::Given(mean.view()), Terms::ALL)) {
            Ok(gradients) => assert_eq!(gradients.gradient.dim(), (1, problem.control().len())),
            Err(error) => assert_one_line(&error),
        }
    }
}

fn members() -> Kind {
    let states = Array2::from_shape_fn((3, SITES), |(m, i)| wavy(m * 50 + i));
    let sound = vec![bytes(|path| write_members(path, states.view(), &stamps(), false))];
    let read = |path: &Path| {
        taken(read_members(path, SITES), |m| {
            assert!(m.nrows() > 0 && m.ncols() == SITES && m.iter().all(|v| v.is_finite()));
        })
    };
    Kind { name: "members", ending: "nc", sound, damage: damage_netcdf, read, cases: 2000 }
}

fn analyses() -> Kind {
    let problems = [problem(), weak(full_b(block_average(problem())), true)];
    let sound = problems.iter().map(|p| bytes(|path| write_analysis(path, p, &analysis(), &stamps(), false))).collect();
    let read = |path: &Path| {
        taken(read_analysis(path), |saved| {
            saved.problem.check().unwrap();
            let (times, sites) = (saved.problem.window.times, saved.problem.sites());
            let analysis = &saved.analysis;
            assert_eq!([analysis.mean.dim(), analysis.std.dim()], [(times, sites); 2]);
            assert_eq!(analysis.samples.dim(), (analysis.samples.len_of(Axis(0)), times, sites));
            assert!(analysis.records.iter().all(|r| r.dimensions.len() == r.values.ndim()));
        })
    };
    Kind { name: "analysis", ending: "nc", sound, damage: damage_netcdf, read, cases: 2000 }
}

fn learned_errors() -> Kind {
    let sound = vec![bytes(|path| learned().write(path, &stamps(), false))];
    let read = |path: &Path| {
        taken(Vae::read(path), |vae| {
            assert!(vae.latents() > 0 && vae.latents() <= vae.sites());
            assert!(vae.mean.iter().chain(&vae.root).all(|v| v.is_finite()));
            assert_eq!(vae.draw(1, 2).dim(), (2, vae.sites()));
            assert_eq!(vae.reconstruct(vae.draw(1, 2).view()).is_some(), vae.encoder.is_some());
        })
    };
    Kind { name: "learned errors", ending: "nc", sound, damage: damage_netcdf, read, cases: 2000 }
}

#[cfg(feature = "neural")]
mod recognition {
    use super::*;
    use vi4dvar::method::{AmortizedTraining, NetworkSettings, Recognition, Recognized, Silent};
    use vi4dvar::neural::{Architecture, TrainingSettings};
    use vi4dvar::{TwinSettings, simulate, training_windows};

    fn twin() -> TwinSettings {
        TwinSettings { sites: 8, times: 4, assimilated_times: 3, ..TwinSettings::default() }
    }

    fn trained(posterior: Recognized, architecture: Architecture) -> Vec<u8> {
        let network = NetworkSettings {
            posterior,
            posterior_rank: 2,
            architecture: Some(architecture),
            network_width: 3,
            network_layers: 1,
            network_radius: 1,
            passes: 2,
        };
        let training = TrainingSettings { epochs: 2, training_batch: 4, ..TrainingSettings::default() };
        let settings = AmortizedTraining { windows: 16, training_draws: 2, network, training };
        let engine = Engine::cpu(Precision::F32).unwrap();
        let windows = training_windows(&twin(), 16).unwrap();
        let network = Recognition::train(&windows, &settings, &engine, 5, &mut Silent).unwrap();
        bytes(|path| network.write(path, &stamps(), false))
    }

    /// What a file says of a network's size is held against the weights that it has, before any are made.
    #[test]
    fn a_network_larger_than_its_file_is_refused() {
        let mut bytes = trained(Recognized::MeanField, Architecture::Dense);
        // The name in whole words, then the type and the count of what it holds.
        let name = b"sites\0\0\0\0\0\0\x04\0\0\0\x01";
        let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len();
        bytes[at..at + 4].copy_from_slice(&65_536u32.to_be_bytes());
        let directory = temporary();
        let path = directory.path().join("weights.nc");
        fs::write(&path, bytes).unwrap();
        let before = peak_of_virtual_memory();
        let message = Recognition::read(&path).unwrap_err().to_string();
        assert!(message.contains("`weights`") && message.contains("expected"), "{message}");
        assert!(peak_of_virtual_memory() - before < 1 << 28);
    }

    pub fn networks() -> Kind {
        let sound = vec![
            trained(Recognized::MeanField, Architecture::Convolution),
            trained(Recognized::LowRank, Architecture::Dense),
        ];
        let read = |path: &Path| {
            static WINDOW: OnceLock<(Problem, Engine)> = OnceLock::new();
            let (problem, engine) =
                WINDOW.get_or_init(|| (simulate(&twin()).unwrap(), Engine::cpu(Precision::F32).unwrap()));
            taken(Recognition::read(path), |network| match network.means(problem, &mut engine.load(problem).unwrap()) {
                Ok(means) => assert!(means.dim() == (1, 8) && means.iter().all(|v| v.is_finite())),
                Err(error) => assert_one_line(&error),
            })
        };
        Kind { name: "recognition network", ending: "nc", sound, damage: damage_netcdf, read, cases: 2000 }
    }
}

/// Longest that a process may take, and most memory that it may address.
const PROCESS_SECONDS: u64 = 20;
const PROCESS_KIB: u64 = 6 << 20;

/// Runs the command with these arguments, in a directory of its own.
fn command(arguments: &[&[u8]]) -> Outcome {
    let directory = temporary();
    let mut command = if cfg!(unix) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {PROCESS_KIB}; exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_vi4dvar"));
        shell
    } else {
        Command::new(env!("CARGO_BIN_EXE_vi4dvar"))
    };
    for argument in arguments {
        #[cfg(unix)]
        command.arg(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(argument));
        #[cfg(not(unix))]
        command.arg(String::from_utf8_lossy(argument).as_ref());
    }
    command.current_dir(&directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.env("RUST_BACKTRACE", "0").spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let message = std::thread::spawn(move || {
        let mut message = Vec::new();
        stderr.read_to_end(&mut message).unwrap();
        String::from_utf8_lossy(&message).into_owned()
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(PROCESS_SECONDS) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("no end after {PROCESS_SECONDS} s: {}", message.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let message = message.join().unwrap();
    assert!(!message.contains("panicked") && !message.contains("memory allocation"), "{message}");
    match status.code() {
        Some(0) => Outcome::Taken,
        Some(2) => {
            assert!(message.contains("error: "), "exit code 2 without an error: {message}");
            Outcome::Refused(message)
        }
        // A twin that diverges is no wrong use, but says so.
        Some(1) if message.contains("error: ") && message.contains("diverged") => Outcome::Refused("diverged".into()),
        _ => panic!("{status}: {message}"),
    }
}

/// What no CPU engine takes: asked for where all settings have been found in order, and before anything is computed.
const NO_ENGINE: [&str; 5] = ["--backend", "cpu", "--adapter", "none", "--quiet"];

fn after_all_checks(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Refused(message) if message.contains("with the CPU engine") => Outcome::Taken,
        other => other,
    }
}

/// The subcommands that check all settings before they make an engine.
fn subcommands() -> Vec<Vec<&'static str>> {
    let mut all = vec![vec!["twin"], vec!["cycle"], vec!["sbc"]];
    if cfg!(feature = "neural") {
        all.extend([vec!["train", "amortized"], vec!["train", "vae"]]);
    }
    all
}

const CONFIGURATION: &str = "seed = 3\nmodel = \"lorenz96\"\nsites = 8\ntimes = 4\nassimilated-times = 3\n\
    steps-per-time = 1\ndt = 0.05\nspin-up = 5\noperator = \"square\"\nblock-size = 1\ndrop = 0.5\n\
    background-std = 1.0\nsamples = 20\niterations = 5\nbatch = 2\nparameters = \"forcing=8.5\"\nmodel-error-std = 0.1\n";

/// The names of all flags.
fn keys() -> &'static [String] {
    static KEYS: OnceLock<Vec<String>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let help = |arguments: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_vi4dvar")).args(arguments).arg("--help").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let mut names: Vec<String> = subcommands()
            .iter()
            .chain([&vec!["simulate"]])
            .flat_map(|s| {
                let help = help(s);
                let starts = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
                starts
                    .map(|name| name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned())
                    .collect::<Vec<_>>()
            })
            .filter(|name| !["help", "version", "config", "force", "out", ""].contains(&name.as_str()))
            .collect();
        names.sort();
        names.dedup();
        names
    })
}

fn configurations() -> Kind {
    let known = configuration_without_unknown_keys();
    let damage = |text: &[u8], dice: &mut Dice| misspelt(std::str::from_utf8(text).unwrap(), keys(), dice);
    let read = |path: &Path| {
        let file = path.as_os_str().as_encoded_bytes();
        // Which one reads it hangs on the file alone, so that a file of a failure fails again.
        let text = fs::read(path).unwrap();
        let which = text.iter().map(|b| usize::from(*b)).sum::<usize>();
        let all = subcommands();
        if which % 3 == 0 {
            return Ok(command(&[b"simulate", b"--config", file, b"--out", b"p.nc"]));
        }
        let mut arguments: Vec<&[u8]> = all[which % all.len()].iter().map(|s| s.as_bytes()).collect();
        arguments.extend([&b"--config"[..], file]);
        arguments.extend(NO_ENGINE.map(str::as_bytes));
        Ok(after_all_checks(command(&arguments)))
    };
    Kind { name: "configuration", ending: "toml", sound: vec![known.into_bytes()], damage, read, cases: 300 }
}

fn configuration_without_unknown_keys() -> String {
    let known = |line: &&str| keys().contains(&line.split(' ').next().unwrap().to_owned());
    CONFIGURATION.lines().filter(known).collect::<Vec<_>>().join("\n")
}

/// Flags one a line, name and value.
fn flags() -> Kind {
    let damage = |_: &[u8], dice: &mut Dice| {
        let line = |dice: &mut Dice| {
            let value = VALUES[below(dice, VALUES.len())].trim_matches('"').replace(['\n', '\0'], " ");
            format!("--{}={value}", keys()[below(dice, keys().len())])
        };
        let count = 1 + below(dice, 3);
        let mut text = (0..count).map(|_| line(dice)).collect::<Vec<_>>().join("\n").into_bytes();
        if below(dice, 10) == 0 {
            text.push(0xff);
        }
        text
    };
    let read = |path: &Path| {
        let text = fs::read(path).unwrap();
        let which = text.iter().map(|b| usize::from(*b)).sum::<usize>();
        let all = subcommands();
        let mut arguments: Vec<&[u8]> = all[which % all.len()].iter().map(|s| s.as_bytes()).collect();
        arguments.extend(NO_ENGINE.map(str::as_bytes));
        arguments.extend(text.split(|b| *b == b'\n').filter(|flag| !flag.is_empty()));
        Ok(after_all_checks(command(&arguments)))
    };
    Kind { name: "flags", ending: "txt", sound: vec![b"--seed=3".to_vec()], damage, read, cases: 300 }
}

/// Analyses that are read have to become scores and figures, whatever numbers they hold.
fn compared() -> Kind {
    let sound = analyses().sound;
    let read = |path: &Path| {
        let file = path.as_os_str().as_encoded_bytes();
        Ok(command(&[b"compare", file, b"--out", b"compared", b"--quiet"]))
    };
    Kind { name: "compared analysis", ending: "nc", sound, damage: damage_netcdf, read, cases: 20 }
}

fn kinds() -> Vec<Kind> {
    let mut all = vec![problems(), members(), analyses(), learned_errors(), configurations(), flags(), compared()];
    #[cfg(feature = "neural")]
    all.push(recognition::networks());
    all
}

// Reading.

/// What came of the inputs of one reader.
#[derive(Default)]
struct Tally {
    tried: u64,
    taken: u64,
    refused: BTreeMap<String, u64>,
}

impl Tally {
    fn line(&self, kind: &str, seconds: f64) -> String {
        let refused: Vec<_> = self.refused.iter().map(|(class, count)| format!("{class} {count}")).collect();
        let (tried, taken) = (self.tried, self.taken);
        format!("| {kind} | {tried} | {taken} | {} | {seconds:.1} s |", refused.join(", "))
    }
}

/// Which kind of refusal a message is.
fn class(message: &str) -> String {
    let classes = [
        ("truncated or damaged", "damaged header"),
        ("damaged (", "damaged"),
        ("expected a NetCDF file", "no NetCDF"),
        ("NetCDF-4 or CDF-5", "other NetCDF"),
        ("not TOML", "no TOML"),
        ("cannot be read", "unreadable"),
        ("unknown key", "unknown key"),
        ("holds a table or a date", "table or date"),
        ("expected a variable", "missing variable"),
        ("global attribute", "attribute"),
        ("expected dimensions", "dimensions"),
        ("diverged", "diverged"),
        ("unexpected argument", "unknown flag"),
        ("invalid value", "value of a flag"),
        ("invalid UTF-8", "no UTF-8"),
        ("cannot be used multiple times", "flag twice"),
    ];
    let known = classes.iter().find(|(words, _)| message.contains(words));
    known.map_or("content", |(_, class)| class).into()
}

#[track_caller]
fn assert_one_line(error: &Error) {
    let message = error.to_string();
    assert!(!message.contains('\n') && !message.is_empty(), "{message}");
}

/// Reads one file and judges what comes of it; says what is wrong otherwise.
fn judge(kind: &Kind, path: &Path, tally: &mut Tally) -> std::result::Result<(), String> {
    tally.tried += 1;
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (kind.read)(path))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })?;
    let refused = match outcome {
        Ok(Outcome::Taken) => {
            tally.taken += 1;
            None
        }
        Ok(Outcome::Refused(message)) => Some(message),
        Err(error) if error.exit_code() != 2 => return Err(format!("exit code {}: {error}", error.exit_code())),
        Err(error) if error.to_string().contains('\n') => return Err(format!("several lines: {error}")),
        Err(error) => Some(error.to_string()),
    };
    if let Some(message) = refused {
        *tally.refused.entry(class(&message)).or_default() += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    if seconds < 30.0 { Ok(()) } else { Err(format!("took {seconds:.0} s")) }
}

/// Where inputs that failed are kept.
fn regressions(kind: &Kind) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions").join(kind.name.replace(' ', "-"))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{variable}={v} is no whole number")))
}

fn fuzz(kind: &Kind) {
    let seconds = number("VI4DVAR_FUZZ_SECONDS");
    let cases = number("VI4DVAR_FUZZ_CASES").unwrap_or(kind.cases);
    let seed = number("VI4DVAR_FUZZ_SEED").unwrap_or(1);
    // An input that ends the whole process is still there.
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}.{}", kind.name.replace(' ', "-"), kind.ending));
    let begun = Arc::new(AtomicU64::new(0));
    let (start, before) = (Instant::now(), peak_of_virtual_memory());
    let (input, seen) = (path.clone(), Arc::downgrade(&begun));
    std::thread::spawn(move || {
        let now = || seen.upgrade().map(|begun| begun.load(Ordering::Relaxed));
        while let Some(before) = now() {
            std::thread::sleep(Duration::from_secs(60));
            if now() == Some(before) {
                eprintln!("no end after a minute of reading {}", input.display());
                std::process::abort();
            }
        }
    });
    let mut tally = Tally::default();
    for case in 0.. {
        if seconds.map_or(case >= cases, |s| start.elapsed().as_secs() >= s) {
            break;
        }
        let mut dice = Dice::new(seed.wrapping_mul(1 << 40) + case);
        let sound = &kind.sound[below(&mut dice, kind.sound.len())];
        // The first ones as they are: what is sound is taken.
        let input = match kind.sound.get(case as usize) {
            Some(sound) => sound.clone(),
            None => (kind.damage)(sound, &mut dice),
        };
        fs::write(&path, &input).unwrap();
        begun.fetch_add(1, Ordering::Relaxed);
        if let Err(failure) = judge(kind, &path, &mut tally) {
            let kept = regressions(kind).join(format!("seed-{seed}-case-{case}.{}", kind.ending));
            fs::create_dir_all(regressions(kind)).unwrap();
            fs::write(&kept, &input).unwrap();
            panic!("{}: seed {seed}, case {case}, kept as {}: {failure}", kind.name, kept.display());
        }
        if case as usize + 1 == kind.sound.len() {
            assert_eq!(tally.taken as usize, kind.sound.len(), "{}: what is sound was refused", kind.name);
        }
    }
    println!("{}", tally.line(kind.name, start.elapsed().as_secs_f64()));
    assert!(tally.taken < tally.tried, "{}: nothing was refused", kind.name);
    // Small files: gigabytes would be a count that was believed. Threads of other tests reserve some of their own.
    assert!(peak_of_virtual_memory() - before < 1 << 30, "{}: memory for what a file claims", kind.name);
}

/// In bytes; 0 where the system does not tell.
fn peak_of_virtual_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmPeak:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[test]
fn damaged_problems_are_refused_or_sound() {
    fuzz(&problems());
}

#[test]
fn damaged_members_are_refused_or_sound() {
    fuzz(&members());
}

#[test]
fn damaged_analyses_are_refused_or_sound() {
    fuzz(&analyses());
}

#[test]
fn damaged_learned_errors_are_refused_or_sound() {
    fuzz(&learned_errors());
}

#[cfg(feature = "neural")]
#[test]
fn damaged_recognition_networks_are_refused_or_sound() {
    fuzz(&recognition::networks());
}

#[test]
fn wrong_configurations_are_refused_before_any_work() {
    fuzz(&configurations());
}

#[test]
fn wrong_flags_are_refused_before_any_work() {
    fuzz(&flags());
}

#[test]
fn damaged_analyses_are_compared_or_refused() {
    fuzz(&compared());
}

#[test]
fn what_once_failed_is_taken_or_refused() {
    for kind in kinds() {
        let Ok(kept) = fs::read_dir(regressions(&kind)) else { continue };
        for entry in kept {
            let path = entry.unwrap().path();
            let mut tally = Tally::default();
            judge(&kind, &path, &mut tally).unwrap_or_else(|failure| panic!("{}: {failure}", path.display()));
        }
    }
}

#[test]
fn truncated_file_is_refused_at_every_byte() {
    let directory = temporary();
    for kind in [problems(), members(), analyses(), learned_errors()] {
        for (k, bytes) in kind.sound.iter().enumerate() {
            let path = directory.path().join(format!("{} {k}.nc", kind.name));
            fs::write(&path, bytes).unwrap();
            assert!((kind.read)(&path).is_ok());
            for length in (0..bytes.len()).rev() {
                fs::File::options().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
                let Err(error) = (kind.read)(&path) else { panic!("{} of {length} bytes was taken", kind.name) };
                let words = if length < 4 { "expected a NetCDF file" } else { "truncated" };
                assert!(error.exit_code() == 2 && error.to_string().contains(words), "{error}");
                assert_one_line(&error);
            }
        }
    }
}
