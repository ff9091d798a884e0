//! The one error type: every message says what was expected, what was found and what to do.

use std::path::{Path, PathBuf};

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, as the user should read it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value, shape or name handed over by the caller cannot work.
    #[error("{what}: expected {expected}, found {found}; {help}")]
    Invalid {
        /// The thing at fault, named as the user named it (a flag, a variable of a file, an argument).
        what: String,
        /// What would have been accepted.
        expected: String,
        /// What was there instead.
        found: String,
        /// What to do about it.
        help: String,
    },
    /// A file could not be read, or is not what it should be.
    #[error("{}: {message}; {help}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it: expected and found.
        message: String,
        /// What to do about it.
        help: String,
    },
    /// A result could not be written. What was there before is untouched.
    #[error("cannot write {}: {reason}; nothing half-written is left there, check the disk and the permissions", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The hardware that was asked for is not there, or cannot do what was asked.
    #[error("{message}; {help}")]
    Hardware {
        /// What was asked for and what was found.
        message: String,
        /// What to do about it.
        help: String,
    },
    /// The device failed while it worked.
    #[error("the GPU failed: {message}; {help}")]
    Device {
        /// The driver's words.
        message: String,
        /// What to do about it.
        help: String,
    },
    /// The hardware computes something else than the reference.
    #[error("{message}; {help}")]
    Wrong {
        /// What differs, by how much.
        message: String,
        /// What to do about it.
        help: String,
    },
    /// The caller ended the run before its end.
    #[error("interrupted; {}", match state {
        Some(path) => format!("{} has all that was done: the same command with --resume goes on from there", path.display()),
        None => "nothing was kept".into(),
    })]
    Interrupted {
        /// The file that its state was kept in.
        state: Option<PathBuf>,
    },
    /// Too many members overflowed for an answer to mean anything.
    #[error(
        "{diverged} of {members} members diverged in {what}, or have a cost that overflows; use a smaller background \
         deviation, a smaller time step (dt, with more steps per time), a smaller learning rate, or observation deviations \
         that are not so small"
    )]
    Diverged {
        /// Where it happened.
        what: String,
        /// Members that overflowed.
        diverged: usize,
        /// Members in the batch.
        members: usize,
    },
}

impl Error {
    /// An [`Error::Invalid`] from its four parts.
    pub fn invalid(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self::Invalid { what: what.into(), expected: expected.into(), found: found.into(), help: help.into() }
    }

    /// An [`Error::File`] from its three parts.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_owned(), message: message.into(), help: help.into() }
    }

    /// The process exit code: 2 for wrong use or bad input, 130 where the user ended it, 1 for anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Invalid { .. } | Self::File { .. } | Self::Hardware { .. } => 2,
            Self::Interrupted { .. } => 130,
            _ => 1,
        }
    }
}
