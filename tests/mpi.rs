//! The program over MPI: result files are the same bytes for any number of ranks, and a rank that is lost ends the run with one
//! message and the last checkpoint kept. Needs the feature `mpi`, and `mpirun`.

#![cfg(feature = "mpi")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vi4dvar");

/// The program on so many ranks, or without a launcher on none.
fn on_ranks(ranks: usize, arguments: &str) -> Command {
    let mut command = if ranks == 0 {
        Command::new(PROGRAM)
    } else {
        let mut command = Command::new("mpirun");
        // A machine of tests has fewer cores than ranks, and its user may be root.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.args(["--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string(), PROGRAM]);
        command
    };
    // Mesa's own words where it is not set.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command.args(arguments.split_whitespace());
    command
}

fn run(ranks: usize, arguments: &str) -> Output {
    on_ranks(ranks, arguments).output().expect("mpirun is installed where the feature mpi is tested")
}

fn succeeds(ranks: usize, arguments: &str) -> Output {
    let output = run(ranks, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{ranks} ranks, {arguments}: {error}");
    output
}

/// Every file below a directory with its bytes, but those that show times.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut visit = vec![directory.to_owned()];
    while let Some(place) = visit.pop() {
        for entry in std::fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            if path.is_dir() {
                visit.push(path);
            } else if !["timings.json", "report.html"].contains(&name.as_str()) {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Runs a command line with `OUT` in it on these numbers of ranks, and holds its files against those of one process.
fn same_files(numbers: &[usize], arguments: &str) {
    let directory = TempDir::new().unwrap();
    let files_on = |ranks: usize| {
        let out = directory.path().join(ranks.to_string());
        std::fs::create_dir(&out).unwrap();
        succeeds(ranks, &arguments.replace("OUT", out.to_str().unwrap()));
        files(&out)
    };
    let alone = files_on(0);
    assert!(!alone.is_empty());
    for &ranks in numbers {
        let found = files_on(ranks);
        assert_eq!(found.keys().collect::<Vec<_>>(), alone.keys().collect::<Vec<_>>());
        for (name, bytes) in &found {
            assert!(bytes == &alone[name], "{name} of {ranks} ranks is another than that of one process: {arguments}");
        }
    }
}

/// Methods in short, with batches that several ranks share.
const METHODS: &str = "--batch 1024 --iterations 12 --samples 200 --abc-trials 20000 --members 100 --quiet";

#[test]
fn twins_by_every_method_are_the_same_files() {
    let methods = "--methods prior,4dvar,abc,ensemble,vi,reference";
    same_files(&[1, 2, 3, 4], &format!("twin {methods} {METHODS} --backend cpu --out OUT"));
}

#[test]
fn repeated_twins_and_other_families_are_the_same_files() {
    let families = "--methods vi,ensemble --family full-rank,low-rank,mixture --minimiser adam --gradient-tolerance 1";
    same_files(&[2, 3], &format!("twin --repeat 3 {families} {METHODS} --backend cpu --precision f64 --out OUT"));
}

#[test]
fn twins_on_a_gpu_are_the_same_files() {
    let batches = "--batch 16384 --iterations 3 --samples 200 --abc-trials 20000 --members 600 --minimiser adam --gradient-tolerance 1 --quiet";
    same_files(&[2, 3], &format!("twin --methods 4dvar,abc,ensemble,vi {batches} --backend gpu --out OUT"));
}

#[test]
fn cycles_are_the_same_files() {
    let settings = "--methods 4dvar,ensemble,vi --windows 0,1 --cycles 6 --burn-in 2 --repeat 3 --iterations 10";
    same_files(&[2, 3], &format!("cycle {settings} --batch 512 --members 50 --backend cpu --quiet --out OUT"));
}

#[cfg(feature = "neural")]
#[test]
fn trained_weights_are_the_same_file() {
    let settings = "--windows 64 --epochs 2 --training-draws 4 --backend cpu --quiet";
    same_files(&[2], &format!("train amortized {settings} --out OUT/result.nc"));
}

#[test]
fn assimilations_evaluations_and_ranks_of_the_truth_are_the_same_files() {
    let directory = TempDir::new().unwrap();
    let problem = directory.path().join("problem.nc");
    succeeds(3, &format!("simulate --out {}", problem.display()));
    same_files(
        &[2],
        &format!("assimilate {} --method abc --abc-trials 30000 --quiet --out OUT/result.nc", problem.display()),
    );
    same_files(&[2], "sbc --methods vi --problems 6 --iterations 5 --batch 256 --backend cpu --quiet --out OUT");
}

/// The processes of a run by their rank: what the launcher has told each is in its environment.
fn processes(out: &Path) -> BTreeMap<usize, u32> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        let ours = command.starts_with(PROGRAM.as_bytes())
            && command.windows(out.as_os_str().len()).any(|part| part == out.as_os_str().as_encoded_bytes());
        let rank = environment.split(|b| *b == 0).find_map(|word| word.strip_prefix(b"OMPI_COMM_WORLD_RANK="));
        if let (true, Some(rank)) = (ours, rank) {
            found.insert(String::from_utf8_lossy(rank).parse().unwrap(), pid);
        }
    }
    found
}

/// Waits for the end of a run, which has so long for it.
fn end_within(child: &mut Child, patience: Duration) -> Duration {
    let clock = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(clock.elapsed() < patience, "still running after {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    clock.elapsed()
}

#[test]
fn a_lost_rank_ends_the_run_and_fewer_ranks_finish_it() {
    let methods = "--methods 4dvar,ensemble,vi --batch 4096 --iterations 3000 --samples 200 --members 60 --quiet";
    let twin = |out: &Path| format!("twin {methods} --backend cpu --checkpoint-every 0 --out {}", out.display());
    let directory = TempDir::new().unwrap();
    let undisturbed = directory.path().join("undisturbed");
    succeeds(0, &twin(&undisturbed));
    let undisturbed = files(&undisturbed);
    for (lost, then) in [(2, 2), (1, 0), (0, 3)] {
        let out = directory.path().join(lost.to_string());
        let mut child = on_ranks(3, &twin(&out)).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let clock = Instant::now();
        // Well into the run: its state has been written many times.
        while !(out.join("checkpoint").exists() && clock.elapsed() > Duration::from_millis(1500)) {
            assert!(clock.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "no run to end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let ranks = processes(&out);
        assert_eq!(ranks.len(), 3, "{ranks:?}");
        assert!(Command::new("kill").args(["-9", &ranks[&lost].to_string()]).status().unwrap().success());
        let took = end_within(&mut child, Duration::from_secs(10));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        eprintln!("rank {lost} lost: all ended after {took:?}, saying:\n{said}");
        assert!(!output.status.success());
        assert!(processes(&out).is_empty());
        assert_eq!(said.matches("exited on signal 9").count(), 1, "{said}");
        assert!(!said.contains("error:") && !said.contains("note:"), "{said}");
        assert!(!out.join("vi.nc").exists() && out.join("checkpoint").exists());
        succeeds(then, &format!("{} --resume", twin(&out)));
        assert!(!out.join("checkpoint").exists());
        let found = files(&out);
        assert!(found == undisturbed, "rank {lost} lost, resumed on {then}: {:?}", found.keys());
    }
}

#[test]
fn mistakes_are_told_once() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing.nc");
    for (arguments, code, message) in [
        ("twin --batch 0".to_owned(), 2, "batch"),
        ("twin --no-such-flag".to_owned(), 2, "--no-such-flag"),
        (
            format!("assimilate {} --method vi --out {}", missing.display(), directory.path().join("a.nc").display()),
            2,
            "missing.nc",
        ),
        ("twin --backend gpu --adapter nothing-of-this-name".to_owned(), 2, "nothing-of-this-name"),
        ("twin --threads 0".to_owned(), 2, "1 to 1024"),
    ] {
        let output = run(3, &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        assert_eq!(said.matches("error:").count(), 1, "{arguments}: {said}");
        assert!(said.contains(message), "{arguments}: {said}");
    }
    // What there is only one of is said once.
    let output = succeeds(3, "--version");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    let output = succeeds(3, "devices --backend cpu");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(listed.contains("on each of 3 ranks"), "{listed}");
}

#[test]
fn scaling_is_timed_on_one_rank_and_on_all() {
    let output = succeeds(3, "bench --operation vi,abc --members 3000 --quick --backend cpu --quiet --json");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // 1, 2 and 3 ranks, strong and weak.
    assert_eq!(rows.len(), 12, "{text}");
    for row in &rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        let (ranks, weak) = (number("ranks"), row["scaling"] == "weak");
        assert_eq!(number("members"), if weak { 3000.0 * ranks } else { 3000.0 });
        assert!(number("seconds") > 0.0 && number("working") <= 1.01, "{row}");
        assert_eq!(number("bytes_received") > 100.0, ranks > 1.0, "{row}");
    }
}
