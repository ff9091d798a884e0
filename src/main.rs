//! The command line: parse, run, print the error chain.

mod cli;

use std::error::Error;
use std::process::ExitCode;
use vi4dvar::engine::{Launched, Ranks};

fn main() -> ExitCode {
    let outcome = match Ranks::of_launcher() {
        Ok(Launched::First(ranks)) => match cli::parse() {
            Ok(matches) => cli::run(&matches, &ranks),
            Err(code) => return code,
        },
        Ok(Launched::Other(worker)) => {
            // When a run is to end is for the first rank to say.
            let _ = ctrlc::set_handler(|| {});
            worker.serve();
            Ok(())
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because {error}");
                cause = error.source();
            }
            ExitCode::from(error.exit_code())
        }
    }
}
