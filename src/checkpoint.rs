//! Where long loops keep their state, so that a run that was cut off goes on from there and ends with the same bytes.
//!
//! A run is loops, one after the other and some within others, in an order that its settings decide. Each asks at its beginning
//! for the state in which an earlier run kept it, offers its state between two iterations, and hands over what came of it at
//! its end. What lies between loops is computed again. [`Checkpoint`] keeps all of it in one file.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Gives the state of a loop, in bytes of its own.
pub type State<'a> = dyn FnMut() -> Result<Vec<u8>> + 'a;

/// Keeps the states of a run's loops. Every `begin` is followed by the `end` of the same loop, unless the run fails.
pub trait Keeper {
    /// A loop begins: the state in which it was kept, if it had come so far.
    ///
    /// # Errors
    /// None that ours has; those of another keeper.
    fn begin(&mut self) -> Result<Option<Vec<u8>>>;

    /// Between two iterations of the innermost loop. `state` gives what it needs to go on, where it is asked for.
    ///
    /// # Errors
    /// [`Error::Interrupted`], with the state kept: the run is to end. That of `state`.
    fn keep(&mut self, state: &mut State) -> Result<()>;

    /// In the middle of a loop that has no state to keep: the place where a run can be ended.
    ///
    /// # Errors
    /// [`Error::Interrupted`], with what was kept before: the run is to end.
    fn pause(&mut self) -> Result<()>;

    /// The innermost loop has ended with this state, which is kept in place of those of the loops within it.
    ///
    /// # Errors
    /// As [`Self::keep`]; that of `state`.
    fn end(&mut self, state: &mut State) -> Result<()>;
}

/// A keeper, where there is one.
pub type MaybeKeeper<'a> = Option<&'a mut (dyn Keeper + 'a)>;

/// [`Keeper::begin`], with the state as it was given.
pub(crate) fn begin<S: DeserializeOwned>(keeper: MaybeKeeper) -> Result<Option<S>> {
    let Some(bytes) = keeper.map(Keeper::begin).transpose()?.flatten() else { return Ok(None) };
    let foreign = |_| {
        let found = format!("{} bytes of something else", bytes.len());
        Error::invalid("checkpoint", "the state of this loop", found, "start anew, without --resume")
    };
    postcard::from_bytes(&bytes).map(Some).map_err(foreign)
}

/// [`Keeper::keep`].
pub(crate) fn keep<S: Serialize>(keeper: MaybeKeeper, state: &S) -> Result<()> {
    keeper.map_or(Ok(()), |k| k.keep(&mut || Ok(to_bytes(state))))
}

/// [`Keeper::pause`].
pub(crate) fn pause(keeper: MaybeKeeper) -> Result<()> {
    keeper.map_or(Ok(()), Keeper::pause)
}

/// [`Keeper::end`].
pub(crate) fn end<S: Serialize>(keeper: MaybeKeeper, state: &S) -> Result<()> {
    keeper.map_or(Ok(()), |k| k.end(&mut || Ok(to_bytes(state))))
}

/// [`Keeper::keep`], of a state that has to be fetched.
pub(crate) fn keep_fetched(keeper: MaybeKeeper, state: &mut State) -> Result<()> {
    keeper.map_or(Ok(()), |k| k.keep(state))
}

/// What [`begin`] reads.
pub(crate) fn to_bytes<S: Serialize>(state: &S) -> Vec<u8> {
    postcard::to_stdvec(state).expect("memory takes everything, and lengths are known")
}

/// What a checkpoint file begins with; the digit is that of its layout.
const MAGIC: &[u8] = b"vi4dvar checkpoint 1\n";
/// Writing may take this share of the time.
const MOST_TIME: u32 = 20;

/// The file in which a run keeps its state, written beside and then renamed, from time to time.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    kept: Kept,
    /// The loops under way: which child of its parent each is, how many loops have begun in it, and whether it has gone on
    /// since its state was last taken.
    place: Vec<u32>,
    begun: Vec<u32>,
    stale: Vec<bool>,
    every: Duration,
    due: Instant,
    stop: &'static AtomicBool,
    trouble: Option<Error>,
    /// The file as it was last written, locked, so that no other process takes the run for one that was cut off.
    held: Option<File>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// What the run is: lines of "name: value".
    identity: String,
    /// The state of each loop, by its place.
    states: BTreeMap<Vec<u32>, Vec<u8>>,
}

impl Checkpoint {
    /// For a run that begins. `identity` is all that its answer depends on, in lines that say "name = value"; a state is written
    /// to `path` at once and whenever so much time has passed; once `stop` is set the run ends at its next state.
    ///
    /// # Errors
    /// A file that is there already: the state of a run that was cut off, or of one that is under way.
    pub fn new(path: &Path, identity: &str, every: Duration, stop: &'static AtomicBool) -> Result<Self> {
        if open(path)?.is_some() {
            let message = "holds the state of a run that was cut off";
            return Err(Error::file(path, message, "go on with it by --resume, or start anew with --force"));
        }
        Ok(Self::with(path, Kept { identity: identity.into(), ..Kept::default() }, every, stop))
    }

    /// For a run that goes on, or that begins where there is no file.
    ///
    /// # Errors
    /// A file that is damaged, of a run of another identity, or of one that is under way.
    pub fn resume(path: &Path, identity: &str, every: Duration, stop: &'static AtomicBool) -> Result<Self> {
        let Some(mut file) = open(path)? else { return Self::new(path, identity, every, stop) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
        drop(file);
        let kept = parse(&bytes).map_err(|message| {
            Error::file(path, message, "start anew with --force; nothing else of that run is lost")
        })?;
        if kept.identity != identity {
            let (was, is) = difference(&kept.identity, identity);
            let message = format!("is of another run: expected {is}, found {was}");
            return Err(Error::file(path, message, "resume with the settings of that run, or start anew with --force"));
        }
        Ok(Self::with(path, kept, every, stop))
    }

    fn with(path: &Path, kept: Kept, every: Duration, stop: &'static AtomicBool) -> Self {
        let mut checkpoint = Self {
            path: path.to_owned(),
            kept,
            place: Vec::new(),
            begun: vec![0],
            stale: Vec::new(),
            every,
            due: Instant::now() + every,
            stop,
            trouble: None,
            held: None,
        };
        checkpoint.write();
        checkpoint.due = Instant::now() + every;
        checkpoint
    }

    /// Whether there is a state to go on from.
    pub fn is_resumed(&self) -> bool {
        !self.kept.states.is_empty()
    }

    /// The first error of writing, which ends no run.
    pub fn take_trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }

    /// Removes the file: the results are written.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(self) -> Result<()> {
        remove_file(&self.path)
    }

    /// Writes what is known, whether or not it is time, and says whether the file holds a state.
    pub fn save(&mut self) -> bool {
        if !self.stale.contains(&true) && self.is_resumed() {
            self.write();
        }
        self.is_resumed() && self.path.exists()
    }

    /// Forgets the states of loops within the innermost one: they belong to an iteration that is over.
    fn forget_within(&mut self) {
        let place = &self.place;
        self.kept.states.retain(|other, _| !(other.len() > place.len() && other.starts_with(place)));
    }

    fn is_due(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.due
    }

    fn take(&mut self, state: &mut State) -> Result<()> {
        self.kept.states.insert(self.place.clone(), state()?);
        Ok(())
    }

    /// Writes the file where all loops' states belong together, and ends the run where that was asked for.
    fn write_if_due(&mut self) -> Result<()> {
        if self.stale.contains(&true) || !self.is_due() {
            return Ok(());
        }
        self.write();
        if self.stop.load(Ordering::Relaxed) {
            return Err(match self.trouble.take() {
                None => Error::Interrupted { state: Some(self.path.clone()) },
                Some(error) => error,
            });
        }
        Ok(())
    }

    fn write(&mut self) {
        let clock = Instant::now();
        if let Err(reason) = self.try_write() {
            self.trouble.get_or_insert(Error::Write { path: self.path.clone(), reason });
        }
        self.due = Instant::now() + self.every.max(clock.elapsed() * MOST_TIME);
    }

    fn try_write(&mut self) -> std::io::Result<()> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let body = to_bytes(&self.kept);
        let write = || -> std::io::Result<File> {
            let mut file = File::create(&beside)?;
            // Not every file system has locks.
            let _ = file.try_lock();
            file.write_all(MAGIC)?;
            file.write_all(&crc32fast::hash(&body).to_le_bytes())?;
            file.write_all(&body)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            Ok(file)
        };
        let written = write().inspect_err(|_| {
            let _ = std::fs::remove_file(&beside);
        });
        self.held = Some(written?);
        Ok(())
    }
}

impl Keeper for Checkpoint {
    fn begin(&mut self) -> Result<Option<Vec<u8>>> {
        let next = self.begun.last_mut().expect("the run itself");
        self.place.push(*next);
        *next += 1;
        self.begun.push(0);
        self.stale.push(false);
        Ok(self.kept.states.get(&self.place).cloned())
    }

    fn keep(&mut self, state: &mut State) -> Result<()> {
        self.forget_within();
        *self.begun.last_mut().expect("the run itself") = 0;
        let due = self.is_due();
        if due {
            self.take(state)?;
        }
        if let Some(stale) = self.stale.last_mut() {
            *stale = !due;
        }
        self.write_if_due()
    }

    fn pause(&mut self) -> Result<()> {
        if !self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = self.save().then(|| self.path.clone());
        Err(self.trouble.take().unwrap_or(Error::Interrupted { state }))
    }

    fn end(&mut self, state: &mut State) -> Result<()> {
        self.forget_within();
        self.stale.pop();
        // In an iteration whose own state was not taken, this one would serve nobody.
        if !self.stale.contains(&true) {
            self.take(state)?;
        }
        self.place.pop();
        self.begun.pop();
        self.write_if_due()
    }
}

/// Removes the checkpoint of a run that was cut off, if it is there.
///
/// # Errors
/// A run that is under way; the system's.
pub fn remove(path: &Path) -> Result<()> {
    open(path)?.map_or(Ok(()), |_| remove_file(path))
}

/// A checkpoint that no other process holds, where there is one.
fn open(path: &Path) -> Result<Option<File>> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(path, &e)),
        Ok(found) if found.is_file() => {}
        Ok(_) => {
            let message = "expected the state of a run or nothing, found what is no plain file";
            return Err(Error::file(path, message, "remove it, or choose another --out"));
        }
    }
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
        let message = "is the state of a run that is under way, in another process";
        return Err(Error::file(path, message, "wait for its end, or choose another --out"));
    }
    Ok(Some(file))
}

fn unreadable(path: &Path, reason: &std::io::Error) -> Error {
    Error::file(path, format!("cannot be read: {reason}"), "check the permissions")
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(reason) if reason.kind() != ErrorKind::NotFound => Err(Error::Write { path: path.to_owned(), reason }),
        _ => Ok(()),
    }
}

fn parse(bytes: &[u8]) -> std::result::Result<Kept, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("is no checkpoint of this version of vi4dvar")?;
    let (sum, body) = rest.split_at_checked(4).ok_or("is cut off")?;
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Err("is damaged: its checksum differs".into());
    }
    postcard::from_bytes(body).map_err(|e| format!("is damaged: {e}"))
}

/// The first lines that differ.
fn difference(was: &str, is: &str) -> (String, String) {
    let (mut was, mut is) = (was.lines(), is.lines());
    loop {
        match (was.next(), is.next()) {
            (Some(a), Some(b)) if a == b => {}
            (a, b) => {
                let text = |line: Option<&str>| line.map_or("nothing more".into(), |line| format!("{line:?}"));
                return (text(a), text(b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn checkpoint(path: &Path, every: Duration) -> Checkpoint {
        Checkpoint::resume(path, "a = 1\nb = 2", every, &NEVER).unwrap()
    }

    /// Two loops within each of the iterations of one, each a sum; stops after so many states.
    fn work(keeper: &mut Checkpoint, mut states: usize) -> Option<u64> {
        let (mut k, mut total): (u64, u64) = begin(Some(&mut *keeper)).unwrap().unwrap_or_default();
        while k < 5 {
            for inner in 0..2 {
                let (mut i, mut sum): (u64, u64) = begin(Some(&mut *keeper)).unwrap().unwrap_or_default();
                while i < 7 {
                    sum += (k + 1) * i * i + inner;
                    i += 1;
                    keep(Some(&mut *keeper), &(i, sum)).unwrap();
                    states = states.checked_sub(1)?;
                }
                end(Some(&mut *keeper), &(i, sum)).unwrap();
                total = total * 31 + sum;
            }
            k += 1;
            keep(Some(&mut *keeper), &(k, total)).unwrap();
            states = states.checked_sub(1)?;
        }
        end(Some(&mut *keeper), &(k, total)).unwrap();
        Some(total)
    }

    #[test]
    fn a_run_cut_off_anywhere_ends_at_the_same_number() {
        let directory = tempfile::tempdir().unwrap();
        let undisturbed = work(&mut checkpoint(&directory.path().join("none"), Duration::MAX / 64), usize::MAX);
        for every in [Duration::ZERO, Duration::from_micros(300)] {
            for states in 0..75 {
                let path = directory.path().join(format!("{states}-{}", every.as_micros()));
                let found = (states..states + 200).find_map(|after| work(&mut checkpoint(&path, every), after));
                assert_eq!(found, undisturbed, "cut off after {states} states");
            }
        }
    }

    #[test]
    fn a_run_under_way_is_not_taken_for_one_that_was_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        let resume = || Checkpoint::resume(&path, "a = 1", Duration::ZERO, &NEVER);
        let mut first = resume().unwrap();
        for _ in 0..2 {
            assert!(path.exists());
            let refusals =
                [resume().err(), Checkpoint::new(&path, "", Duration::ZERO, &NEVER).err(), remove(&path).err()];
            for refusal in refusals {
                let message = refusal.unwrap().to_string();
                assert!(message.contains("under way"), "{message}");
            }
            work(&mut first, 3);
        }
        drop(first);
        assert!(resume().unwrap().is_resumed());
        remove(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let message = resume().unwrap_err().to_string();
        assert!(message.contains("no plain file") && message.contains("remove it"), "{message}");
    }

    #[test]
    fn damaged_and_foreign_checkpoints_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        work(&mut checkpoint(&path, Duration::ZERO), 20);
        let whole = std::fs::read(&path).unwrap();
        let resume = |identity: &str| Checkpoint::resume(&path, identity, Duration::ZERO, &NEVER);
        let refusal = |identity: &str| resume(identity).map(drop).unwrap_err().to_string();
        assert!(refusal("a = 1\nb = 3").contains("expected \"b = 3\", found \"b = 2\""), "{}", refusal("a = 1\nb = 3"));
        assert!(Checkpoint::new(&path, "a = 1\nb = 2", Duration::ZERO, &NEVER).is_err());
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(resume("a = 1\nb = 2").map(drop).unwrap_err().exit_code(), 2, "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(resume("a = 1\nb = 2").map(drop).unwrap_err().exit_code(), 2, "byte {at}");
        }
    }
}
