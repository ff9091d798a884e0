//! An error on its way from one rank to another.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An [`Error`] that can be sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Failure {
    Invalid([String; 4]),
    File(PathBuf, [String; 2]),
    Write(PathBuf, String),
    Hardware([String; 2]),
    Device([String; 2]),
    Wrong([String; 2]),
    Interrupted(Option<PathBuf>),
    Diverged(String, usize, usize),
}

impl Default for Failure {
    fn default() -> Self {
        Self::Interrupted(None)
    }
}

impl Failure {
    /// An error of a rank, or of the first, whose errors need no name.
    pub fn of(error: Error, rank: Option<usize>) -> Self {
        let on = |message: String| rank.map_or(message.clone(), |rank| format!("on rank {rank}: {message}"));
        match error {
            Error::Invalid { what, expected, found, help } => {
                let found = rank.map_or(found.clone(), |rank| format!("{found} on rank {rank}"));
                Self::Invalid([what, expected, found, help])
            }
            Error::File { path, message, help } => Self::File(path, [on(message), help]),
            Error::Write { path, reason } => Self::Write(path, on(reason.to_string())),
            Error::Hardware { message, help } => Self::Hardware([on(message), help]),
            Error::Device { message, help } => Self::Device([on(message), help]),
            Error::Wrong { message, help } => Self::Wrong([on(message), help]),
            Error::Interrupted { state } => Self::Interrupted(state),
            Error::Diverged { what, diverged, members } => Self::Diverged(what, diverged, members),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Invalid([what, expected, found, help]) => Self::Invalid { what, expected, found, help },
            Failure::File(path, [message, help]) => Self::File { path, message, help },
            Failure::Write(path, reason) => Self::Write { path, reason: std::io::Error::other(reason) },
            Failure::Hardware([message, help]) => Self::Hardware { message, help },
            Failure::Device([message, help]) => Self::Device { message, help },
            Failure::Wrong([message, help]) => Self::Wrong { message, help },
            Failure::Interrupted(state) => Self::Interrupted { state },
            Failure::Diverged(what, diverged, members) => Self::Diverged { what, diverged, members },
        }
    }
}
