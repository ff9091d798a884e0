//! `vi4dvar bench` from outside: rows that make sense, and what it refuses. No time is asserted.

use assert_cmd::Command;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn vi4dvar(directory: &TempDir, arguments: &str) -> Command {
    let mut command = Command::cargo_bin("vi4dvar").unwrap();
    command.current_dir(directory).args(arguments.split_whitespace());
    command
}

/// Small rows on one thread.
const TINY: &str = "bench --backend cpu --quick --repeats 2 --threads 1 --sites 8 --times 4";

fn rows(directory: &TempDir, arguments: &str) -> Vec<Value> {
    let output = vi4dvar(directory, arguments).assert().success().get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn refuse(directory: &TempDir, arguments: &str) -> String {
    let output = vi4dvar(directory, arguments).assert().code(2).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("error: ") && !message.contains("panicked"), "{arguments}: {message}");
    message
}

/// What a row has to say, and what must hold between its numbers.
fn check(row: &Value) {
    let number = |name: &str| {
        let value = row.get(name).unwrap_or_else(|| panic!("no field {name}: {row}"));
        value.as_f64().unwrap_or_else(|| panic!("{name} is no number: {row}"))
    };
    for name in ["operation", "backend", "adapter", "precision", "operator", "api", "driver", "limit"] {
        assert!(row[name].is_string(), "{name}: {row}");
    }
    for name in ["kernel_seconds", "compile_seconds", "kernel", "software", "samples", "per_run"] {
        assert!(row.get(name).is_some(), "no field {name}: {row}");
    }
    for name in ["sites", "times", "steps_per_time", "gflops", "gflops_end_to_end"] {
        assert!(number(name) > 0.0, "{name}: {row}");
    }
    assert!(number("gbytes_per_second") >= 0.0, "{row}");
    assert!((number("members_per_second") * number("seconds") / number("members") - 1.0).abs() < 1e-9, "{row}");
    let fraction = number("fraction_of_limit");
    assert!(fraction > 0.0 && fraction < 1.5, "{row}");
    let [low, high] = [0, 1].map(|k| row["spread"][k].as_f64().unwrap());
    assert!(low <= number("seconds") && number("seconds") <= high, "{row}");
    if let Some(kernel) = row["kernel_seconds"].as_f64() {
        assert!(kernel > 0.0 && kernel < 1.05 * high, "{row}");
    }
}

#[test]
fn every_operation_gives_a_row_of_json_with_all_fields() {
    let d = TempDir::new().unwrap();
    let found = rows(&d, &format!("{TINY} --members 3,70 --json"));
    let mut names: Vec<_> = found.iter().map(|r| r["operation"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 14, "each operation at both sizes: {names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names, ["abc", "cost", "elbo", "ensemble", "forecast", "gradient", "vi"]);
    found.iter().for_each(check);
    for row in &found {
        assert_eq!((row["backend"].as_str(), row["software"].as_bool()), (Some("cpu"), Some(false)));
        assert_eq!(row["samples"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn lists_make_every_combination() {
    let d = TempDir::new().unwrap();
    let found = rows(
        &d,
        "bench --backend cpu --quick --repeats 1 --threads 1 --operation elbo,cost --precision f32,f64 --sites 8,12 \
         --times 3,5 --steps-per-time 1,2 --members 2,5 --observation-operator identity,softplus --json",
    );
    assert_eq!(found.len(), 128);
    found.iter().for_each(check);
    let work = |row: &&Value| {
        (row["operation"].as_str(), row["precision"].as_str()) == (Some("elbo"), Some("f64")) && row["sites"] == 12
    };
    assert_eq!(found.iter().filter(work).count(), 16);
}

#[test]
fn families_are_rows_of_what_fits_them() {
    let d = TempDir::new().unwrap();
    let run = format!("{TINY} --operation elbo,vi,cost --family mean-field,low-rank,full-rank --members 70");
    let found = rows(&d, &format!("{run} --json"));
    found.iter().for_each(check);
    let name = |row: &Value| (row["operation"].as_str().unwrap().to_owned(), row["family"].as_str().map(str::to_owned));
    let names: Vec<_> = found.iter().map(name).collect();
    let mut want: Vec<_> = ["elbo", "vi"]
        .iter()
        .flat_map(|o| ["mean-field", "low-rank", "full-rank"].map(|f| ((*o).to_owned(), Some(f.to_owned()))))
        .collect();
    want.push(("cost".into(), None));
    assert_eq!(names, want);
    // More work for the same members, and a name in the table.
    let work = |row: &Value| row["gflops_end_to_end"].as_f64().unwrap() * row["seconds"].as_f64().unwrap();
    assert!(work(&found[0]) < work(&found[1]) && work(&found[0]) < work(&found[2]));
    let output = vi4dvar(&d, &run).assert().success().get_output().clone();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("\nelbo full-rank ") && table.contains("\nvi low-rank "), "{table}");
}

#[test]
fn long_windows_and_large_states_are_rows_too() {
    let d = TempDir::new().unwrap();
    let found = rows(
        &d,
        "bench --backend cpu --repeats 1 --operation gradient,ensemble --sites 256 --times 3 --steps-per-time 200 \
         --members 2 --json",
    );
    assert_eq!(found.len(), 2);
    found.iter().for_each(check);
}

#[test]
fn a_gpu_gives_the_same_rows() {
    if vi4dvar::adapters().is_empty() {
        assert!(std::env::var_os("VI4DVAR_REQUIRE_GPU").is_none(), "no adapter, and VI4DVAR_REQUIRE_GPU is set");
        eprintln!("no GPU adapter here: not tested");
        return;
    }
    let d = TempDir::new().unwrap();
    let found = rows(&d, &format!("{TINY} --backend gpu --members 70 --json").replace("--backend cpu ", ""));
    assert_eq!(found.len(), 7);
    for row in &found {
        assert_eq!(row["backend"].as_str(), Some("gpu"), "{row}");
        assert!(row["fraction_of_limit"].as_f64().is_some_and(|f| f > 0.0 && f < 1.5), "{row}");
        assert!(row["error"].is_null(), "{row}");
    }
}

#[test]
fn a_wrong_kernel_is_not_timed() {
    if vi4dvar::adapters().is_empty() {
        assert!(std::env::var_os("VI4DVAR_REQUIRE_GPU").is_none(), "no adapter, and VI4DVAR_REQUIRE_GPU is set");
        eprintln!("no GPU adapter here: not tested");
        return;
    }
    // Shaders with a flipped sign in the adjoint.
    let d = TempDir::new().unwrap();
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders"), d.path().join("shaders"));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let text = fs::read_to_string(to.join("lorenz96.wgsl")).unwrap();
    let (from, by) = ("fma(-w[${i + 4}]", "fma(w[${i + 4}]");
    assert_eq!(text.matches(from).count(), 1, "the shader has changed: find the place anew");
    fs::write(to.join("lorenz96.wgsl"), text.replace(from, by)).unwrap();
    let run = "bench --backend gpu --shaders shaders --quick --repeats 1 --sites 8 --times 4 --members 70 --json";
    let output = vi4dvar(&d, run).assert().code(1).get_output().clone();
    let rows: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let wrong: Vec<_> = rows.iter().filter(|r| r["error"].is_string()).collect();
    let names: Vec<_> = wrong.iter().map(|r| r["operation"].as_str().unwrap()).collect();
    assert_eq!(names, ["gradient", "elbo", "vi", "ensemble"], "those with an adjoint");
    assert!(wrong.iter().all(|r| r["seconds"].is_null() && r["members_per_second"].is_null()), "{wrong:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("error: 4 of 7 rows differ") && message.contains("gradients off by"), "{message}");
}

#[test]
fn the_table_fits_a_terminal_and_names_the_engine() {
    let d = TempDir::new().unwrap();
    let output = vi4dvar(&d, &format!("{TINY} --operation elbo --members 2,9")).assert().success().get_output().clone();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table.lines().filter(|l| l.starts_with("elbo ")).count(), 2, "{table}");
    assert!(table.starts_with("CPU, ") && table.contains("GFLOP/s of multiply-adds"), "{table}");
    assert!(table.lines().all(|l| l.len() <= 120), "{table}");
    // With --json the table stands on standard error, and with --quiet nowhere.
    for (flags, lines) in [("--json", 1), ("--json --quiet", 0)] {
        let run = format!("{TINY} --operation elbo --members 2 {flags}");
        let output = vi4dvar(&d, &run).assert().success().get_output().clone();
        let notes = String::from_utf8(output.stderr).unwrap();
        assert_eq!(notes.lines().filter(|l| l.starts_with("elbo ")).count(), lines, "{notes}");
    }
}

#[test]
fn a_directory_gets_lines_settings_and_a_figure() {
    let d = TempDir::new().unwrap();
    let run = format!("{TINY} --operation gradient,elbo --members 2,20,70 --out results");
    vi4dvar(&d, &run).assert().success();
    let read = |name: &str| fs::read(d.path().join("results").join(name)).unwrap();
    let lines = String::from_utf8(read("bench.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 6);
    let svg = String::from_utf8(read("throughput.svg")).unwrap();
    roxmltree::Document::parse(&svg).unwrap();
    assert!(svg.contains("member-gradients per second") && svg.contains("CPU"), "no axis or no legend");
    assert!(read("throughput.png").starts_with(b"\x89PNG"));
    vi4dvar(&d, &run).assert().code(2);
    vi4dvar(&d, "bench --config results/bench.toml --out again").assert().success();
    assert_eq!(fs::read(d.path().join("again/bench.toml")).unwrap(), read("bench.toml"));
    // One size is no curve.
    vi4dvar(&d, &format!("{TINY} --operation elbo --members 2 --out one")).assert().success();
    assert!(!d.path().join("one/throughput.svg").exists());
}

#[test]
fn wrong_use_is_refused_before_anything_is_computed() {
    let d = TempDir::new().unwrap();
    for (flags, says) in [
        ("--operation gradeint", "gradeint"),
        ("--observation-operator log", "softplus"),
        ("--family mixture", "full-rank"),
        ("--operation elbo --family realnvp", if cfg!(feature = "neural") { "operation vi" } else { "neural" }),
        ("--family half-rank", "half-rank"),
        ("--precision f16", "f64"),
        ("--backend tpu", "cpu"),
        ("--members 0", "members"),
        ("--members 5000000000", "members"),
        ("--members 1e6", "1e6"),
        ("--sites 3", "sites"),
        ("--sites 1000000000000", "sites"),
        ("--sites 100000 --times 100000", "values of a trajectory"),
        ("--times 0", "times"),
        ("--steps-per-time 0", "steps_per_time"),
        ("--steps-per-time 4000000000000000000", "steps"),
        ("--repeats 0", "repeats"),
        ("--threads 0", "threads"),
        ("--memory 0", "memory"),
        ("--backend cpu --adapter x", "adapter"),
        ("--backend gpu --adapter no-such-adapter", "adapter"),
        ("--operation forecast --sites 4096 --times 1000 --members 4000000000", "GiB"),
    ] {
        let message = refuse(&d, &format!("bench {flags}"));
        assert!(message.contains(says), "{flags}: {message}");
    }
}

#[test]
fn rows_that_are_too_large_are_left_out_with_a_note() {
    let d = TempDir::new().unwrap();
    let run = format!("{TINY} --operation forecast,elbo --members 2,4000000000 --json");
    let output = vi4dvar(&d, &run).assert().success().get_output().clone();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("more than 4 GiB") && notes.contains("would take about"), "{notes}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
}

#[test]
fn every_model_can_be_timed() {
    let d = TempDir::new().unwrap();
    let flags =
        "bench --backend cpu --quick --repeats 1 --threads 1 --times 4 --members 5 --operation elbo,ensemble --json";
    for (model, sites) in [("lorenz96", 16), ("lorenz63", 3)] {
        for row in rows(&d, &format!("{flags} --quiet --model {model}")) {
            assert!(row["model"] == model && row["sites"] == sites && row["gflops"].as_f64().is_some(), "{row}");
        }
    }
}
