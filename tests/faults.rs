//! Faults: a device lost at any moment, memory refused, a run cut off at any moment. Nothing is lost, and the numbers are
//! those of an undisturbed run.

use assert_cmd::Command;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use vi4dvar::engine::Fault;
use vi4dvar::method::{
    AbcSettings, Analysis, EnsembleSettings, FourDVarSettings, Minimiser, Observer, Progress, Silent, ViSettings,
};
use vi4dvar::{Backend, Engine, EngineSettings, Problem, Result, TwinSettings, simulate, write_text};

/// How often each fault is tried: VI4DVAR_FAULTS, or twice.
fn tries() -> u64 {
    std::env::var("VI4DVAR_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// A GPU, or the test fails.
fn gpu() -> Engine {
    Engine::new(&EngineSettings { backend: Backend::Gpu, ..EngineSettings::default() }).unwrap()
}

fn problem() -> Problem {
    simulate(&TwinSettings { sites: 8, times: 6, assimilated_times: 5, ..TwinSettings::default() }).unwrap()
}

/// Makes the device fail after so many looks, again and again.
struct Saboteur<'a> {
    engine: &'a Engine,
    fault: Fault,
    every: u64,
    most: u64,
    seen: u64,
}

impl Observer for Saboteur<'_> {
    fn progress(&mut self, _: &Progress) -> ControlFlow<()> {
        self.seen += 1;
        if self.seen.is_multiple_of(self.every) && self.seen / self.every <= self.most {
            self.engine.inject(self.fault);
        }
        ControlFlow::Continue(())
    }
}

/// All that an analysis says, but for its time.
fn essence(analyses: &[Analysis]) -> Vec<(String, Vec<u64>)> {
    let bits = |values: &mut dyn Iterator<Item = &f64>| values.map(|v| v.to_bits()).collect::<Vec<_>>();
    let one = |a: &Analysis| {
        let mut all = vec![
            (a.summary.clone(), bits(&mut a.mean.iter())),
            ("std".into(), bits(&mut a.std.iter())),
            ("samples".into(), bits(&mut a.samples.iter())),
        ];
        all.extend(a.records.iter().map(|r| (r.name.clone(), bits(&mut r.values.iter()))));
        all
    };
    analyses.iter().flat_map(one).collect()
}

type Run = Box<dyn Fn(&Problem, &Engine, &mut dyn Observer) -> Result<Vec<Analysis>>>;

fn methods() -> Vec<(&'static str, Run)> {
    let vi = ViSettings { iterations: 300, batch: Some(64), samples: 50, ..ViSettings::default() };
    let ensemble = EnsembleSettings { members: 20, ..EnsembleSettings::default() };
    let adam = EnsembleSettings { minimiser: Minimiser::Adam, iterations: 200, ..ensemble };
    let four = FourDVarSettings { samples: 50, ..FourDVarSettings::default() };
    let abc = AbcSettings { trials: 1_000_000, keep: 0.001, ..AbcSettings::default() };
    vec![
        ("VI", Box::new(move |p, e, o| vi.run(p, e, o))),
        ("ensemble", Box::new(move |p, e, o| ensemble.run(p, e, o))),
        ("ensemble by Adam", Box::new(move |p, e, o| adam.run(p, e, o))),
        ("4DVAR", Box::new(move |p, e, o| four.run(p, e, o))),
        ("ABC", Box::new(move |p, e, o| abc.run(p, e, o))),
    ]
}

#[test]
fn a_device_that_fails_costs_no_number() {
    let problem = problem();
    for fault in [Fault::DeviceLost, Fault::OutOfMemory { buffers: 2 }] {
        for (name, run) in methods() {
            let undisturbed = essence(&run(&problem, &gpu(), &mut Silent).unwrap());
            let mut mended = 0;
            for k in 0..tries() {
                let engine = gpu();
                // Looks of ABC are few, each after a part of its trials, and it begins anew after a failure.
                let (every, most) = if name == "ABC" { (1 + k % 5, 1) } else { (1 + (k * 37 + 5) % 101, u64::MAX) };
                let mut saboteur = Saboteur { engine: &engine, fault, every, most, seen: 0 };
                let disturbed = run(&problem, &engine, &mut saboteur).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(essence(&disturbed) == undisturbed, "{name} after {fault:?} number {k}");
                mended += engine.faults().len();
            }
            println!("| {name}, {fault:?} | {} runs | {mended} failures mended | nothing lost |", tries());
        }
    }
}

#[test]
fn a_device_lost_by_another_thread_costs_no_number() {
    let problem = problem();
    let settings = ViSettings { iterations: 300, batch: Some(512), samples: 50, ..ViSettings::default() };
    let undisturbed = essence(&settings.run(&problem, &gpu(), &mut Silent).unwrap());
    let mut mended = 0;
    for k in 0..tries() {
        let engine = gpu();
        let disturbed = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20 + k * 61 % 400));
                engine.inject(Fault::DeviceLost);
            });
            settings.run(&problem, &engine, &mut Silent).unwrap()
        });
        assert!(essence(&disturbed) == undisturbed, "number {k}");
        mended += engine.faults().len();
    }
    println!("| VI, device lost by another thread | {} runs | {mended} failures mended | nothing lost |", tries());
}

/// Files of a run that are the same bytes whenever it is run: all but its times, and the report, which has them.
fn results(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(at).unwrap().map(|e| e.unwrap().path()) {
            match entry.file_name().unwrap().to_str().unwrap() {
                "timings.json" | "report.html" => {}
                _ if entry.is_dir() => left.push(entry),
                _ => drop(all.insert(entry.strip_prefix(directory).unwrap().to_owned(), fs::read(&entry).unwrap())),
            }
        }
    }
    all
}

const TWIN: [&str; 8] =
    ["twin", "--methods", "4dvar,abc,ensemble,vi,reference", "--members", "200", "--iterations", "1500", "--quiet"];

fn twin(directory: &Path, more: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("vi4dvar"));
    command.args(TWIN).args(["--backend", "cpu", "--out"]).arg(directory).args(more);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn two_runs_are_the_same_bytes_whatever_the_threads() {
    let directory = tempfile::tempdir().unwrap();
    for backend in ["cpu", "gpu"] {
        let run = |name: &str, more: &[&str]| {
            let out = directory.path().join(format!("{backend}-{name}"));
            let fewer = ["--methods", "4dvar,abc,ensemble,vi", "--iterations", "100", "--backend", backend];
            let mut command = Command::cargo_bin("vi4dvar").unwrap();
            command.args(["twin", "--quiet", "--out"]).arg(&out).args(fewer).args(more).assert().success();
            results(&out)
        };
        let first = run("first", &[]);
        assert!(first.len() > 10, "{:?}", first.keys());
        assert!(first == run("second", &[]), "{backend}");
        let more: &[&str] = if backend == "cpu" { &["--threads", "1"] } else { &["--memory", "8"] };
        let other = run("third", more);
        let differ: Vec<_> =
            first.iter().filter(|(name, bytes)| other.get(*name) != Some(bytes)).map(|f| f.0).collect();
        assert!(differ.is_empty(), "{backend} {more:?}: {differ:?}");
    }
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let clock = Instant::now();
    assert!(twin(&whole, &[]).status().unwrap().success());
    let took = clock.elapsed();
    let undisturbed = results(&whole);
    let (mut kills, mut resumed) = (0, 0);
    for k in 0..tries() {
        let cut = directory.path().join(format!("cut-{k}"));
        // Each run is killed three times, at moments that differ, before it may go on to its end.
        for part in 0..3 {
            let mut child = twin(&cut, &["--checkpoint-every", "0.02", "--resume"]).spawn().unwrap();
            std::thread::sleep(took.mul_f64(0.1 + 0.8 * ((k * 3 + part) as f64 * 0.618).fract()));
            kills += u32::from(child.try_wait().unwrap().is_none());
            let _ = child.kill();
            child.wait().unwrap();
            resumed += u32::from(cut.join("checkpoint").exists());
        }
        assert!(twin(&cut, &["--resume", "--force"]).status().unwrap().success());
        let found = results(&cut);
        let differ: Vec<_> =
            undisturbed.iter().filter(|(n, bytes)| found.get(*n) != Some(bytes)).map(|f| f.0).collect();
        assert!(differ.is_empty() && found.len() == undisturbed.len(), "killed {k}: {differ:?} {:?}", found.keys());
    }
    println!("| SIGKILL in a twin | {kills} kills | {resumed} times a state was there to go on from | nothing lost |");
}

/// As a disk that is full once so many KiB of one file are on it.
fn with_files_of_at_most(kib: usize, directory: &Path, more: &[&str]) -> std::process::Output {
    let mut shell = std::process::Command::new("sh");
    // Ignored, the signal is an error of the write instead.
    shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", 2 * kib)]);
    shell.arg(assert_cmd::cargo::cargo_bin!("vi4dvar")).args(["twin", "--quiet", "--backend", "cpu"]);
    shell
        .args(["--methods", "4dvar,ensemble", "--members", "20", "--checkpoint-every", "0", "--out"])
        .arg(directory)
        .args(more);
    shell.output().unwrap()
}

#[test]
fn a_full_disk_leaves_whole_files_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    assert!(with_files_of_at_most(1 << 20, &whole, &[]).status.success());
    let undisturbed = results(&whole);
    let sizes = [0, 1, 2, 3, 5, 8, 13, 20, 30, 50, 80, 150, 300, 600];
    let (mut refused, mut files, mut states) = (0, 0, 0);
    for kib in sizes {
        let out = directory.path().join(format!("{kib}"));
        let run = with_files_of_at_most(kib, &out, &[]);
        let message = String::from_utf8(run.stderr).unwrap();
        if !run.status.success() {
            refused += 1;
            assert_eq!(run.status.code(), Some(1), "{message}");
            assert!(message.contains("cannot write") && message.contains("too large"), "{message}");
        }
        let found = if out.exists() { results(&out) } else { BTreeMap::new() };
        states += usize::from(found.contains_key(Path::new("checkpoint")));
        for (name, bytes) in found.into_iter().filter(|(name, _)| *name != Path::new("checkpoint")) {
            assert!(undisturbed.get(&name) == Some(&bytes), "{kib} KiB: {}", name.display());
            files += 1;
        }
        assert!(with_files_of_at_most(1 << 20, &out, &["--resume", "--force"]).status.success());
        assert!(results(&out) == undisturbed, "resumed after {kib} KiB");
    }
    assert!(refused > sizes.len() / 2, "{refused}");
    println!(
        "| full disk at {} sizes | {refused} runs refused, {files} files there, each whole; {states} states; resumed to the same bytes | nothing torn |",
        sizes.len()
    );
}

#[test]
fn a_directory_that_cannot_be_written_to_is_refused_before_any_work() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o555)).unwrap();
    // To root every directory is open but those that no one may write to.
    let root = fs::write(own.join("x"), "").is_ok();
    for at in [PathBuf::from("/proc/sys/twin"), own.join("twin")].iter().take(if root { 1 } else { 2 }) {
        let run = twin(at, &[]).stderr(Stdio::piped()).output().unwrap();
        let message = String::from_utf8(run.stderr).unwrap();
        assert!(!run.status.success() && message.contains("cannot"), "{message}");
        assert!(message.contains(&at.display().to_string()), "{message}");
        assert!(!at.exists());
    }
}

#[test]
fn what_a_killed_process_left_goes_away_and_what_another_writes_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, part) = (directory.path().join("a.json"), directory.path().join(".a.json.part"));
    fs::write(&part, "half of something longer than what comes now").unwrap();
    let other = fs::File::open(&part).unwrap();
    other.lock().unwrap();
    let refused = write_text(&path, "{}", false).unwrap_err().to_string();
    assert!(refused.contains("another process is writing the file"), "{refused}");
    assert!(fs::read_to_string(&part).unwrap().starts_with("half") && !path.exists());
    drop(other);
    write_text(&path, "{}", false).unwrap();
    assert!(fs::read_to_string(&path).unwrap() == "{}" && !part.exists());
}
