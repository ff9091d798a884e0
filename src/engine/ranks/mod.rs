//! Ranks: processes that share the work of a run. The first has the run, with all its methods and files; the others hold the
//! same problems and do their share of each operation. With one rank there is nothing of it.
//!
//! What leaves an operation is the same for any number of ranks: rows are computed one by one, and sums are added in the order
//! of [`Tree`](super::tree::Tree).

mod failure;
#[cfg(feature = "mpi")]
mod mpi;
mod request;
mod threads;
mod transport;
mod worker;

pub(super) use failure::Failure;
pub(super) use request::{Request, RowSource};
pub(super) use transport::{Channel, Tag, numbers_from, numbers_to};
pub(super) use worker::{Said, concatenated, places_to, rows_to};

use super::Counters;
use super::local::Place;
use super::resident::new_id;
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use transport::Transport;

/// The ranks of a run, on the first of them. Cheap to clone; when the last clone is gone the others end.
#[derive(Clone, Debug)]
pub struct Ranks {
    shared: Option<Arc<Shared>>,
    /// How many take part.
    active: usize,
}

#[derive(Debug)]
struct Shared {
    channel: Channel,
    /// Held by one operation at a time.
    traffic: Mutex<Traffic>,
}

/// What a process is among those that a launcher started.
#[derive(Debug)]
pub enum Launched {
    /// The first, or the only one: the run is its.
    First(Ranks),
    /// Another, which does its share and has no run of its own.
    Other(Worker),
}

/// A rank that is not the first.
#[derive(Debug)]
pub struct Worker(Option<Channel>);

impl Worker {
    /// Does what the first rank asks for, until that has ended.
    pub fn serve(self) {
        if let Some(channel) = self.0 {
            worker::serve(&channel);
        }
    }
}

/// What ranks have said to each other so far, as the first of them sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Operations that several ranks took part in.
    pub operations: u64,
    /// Bytes that the first rank sent.
    pub sent: u64,
    /// Bytes that it received.
    pub received: u64,
    /// The time of those operations, from the first word to the last.
    pub elapsed: Duration,
    /// The part of it in which the slowest rank worked.
    pub working: Duration,
    /// The part of it in which the first rank worked.
    pub own: Duration,
}

impl Traffic {
    /// The time that was neither the first rank's work nor waiting for a slower one.
    pub fn communication(&self) -> Duration {
        self.elapsed.saturating_sub(self.working)
    }

    /// Adds what was said at another time.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.sent += other.sent;
        self.received += other.received;
        self.elapsed += other.elapsed;
        self.working += other.working;
        self.own += other.own;
    }

    /// What was added since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            operations: self.operations - before.operations,
            sent: self.sent - before.sent,
            received: self.received - before.received,
            elapsed: self.elapsed.saturating_sub(before.elapsed),
            working: self.working.saturating_sub(before.working),
            own: self.own.saturating_sub(before.own),
        }
    }
}

/// What a rank answers.
#[derive(Debug, Serialize, Deserialize)]
struct Reply<T> {
    outcome: std::result::Result<T, Failure>,
    /// The work that it was.
    counters: Counters,
    /// Failures of a GPU that were mended on the way.
    faults: Vec<String>,
    /// The seconds that it took.
    working: f64,
}

/// What all ranks together answer.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub value: T,
    /// The work of all ranks but the first.
    pub counters: Counters,
    /// Of all ranks but the first.
    pub faults: Vec<String>,
}

impl Ranks {
    /// One process, with nothing to share.
    pub fn alone() -> Self {
        Self { shared: None, active: 1 }
    }

    /// Ranks that are threads of this process, each with its own engine: its share of the cores, or its own GPU where the
    /// machine has several alike.
    ///
    /// # Errors
    /// No rank at all, or more than 1024.
    pub fn threads(count: usize) -> Result<Self> {
        if !(1..=1024).contains(&count) {
            return Err(Error::invalid("ranks", "1 to 1024", count.to_string(), "change the number of ranks"));
        }
        Ok(Self::over(threads::start(count)))
    }

    /// The ranks that this process was started with: those of an MPI launcher (`mpirun`, `srun`), which needs the feature
    /// `mpi`, or this process alone. Call it once, and first of all.
    ///
    /// # Errors
    /// Several processes that cannot know of each other; MPI that does not start. The first rank has it, not the others.
    pub fn of_launcher() -> Result<Launched> {
        let count = word_of_launcher(["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"]).unwrap_or(1);
        if count < 2 {
            return Ok(Launched::First(Self::alone()));
        }
        // One of them says why they cannot work together; each would write the same files.
        Self::together(count).or_else(|error| {
            match word_of_launcher(["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"]) {
                Some(1..) => Ok(Launched::Other(Worker(None))),
                _ => Err(error),
            }
        })
    }

    #[cfg(feature = "mpi")]
    fn together(count: usize) -> Result<Launched> {
        let transport = mpi::World::start()?;
        if transport.count() != count {
            let seen = transport.count();
            return Err(Error::Hardware {
                message: format!("started as {count} processes of a launcher, of which the MPI library sees {seen}"),
                help: "start it with the launcher of the MPI that it was built with (srun may need --mpi=pmix)".into(),
            });
        }
        Ok(match transport.rank() {
            0 => Launched::First(Self::over(Box::new(transport))),
            _ => Launched::Other(Worker(Some(Channel::new(Box::new(transport))))),
        })
    }

    #[cfg(not(feature = "mpi"))]
    fn together(count: usize) -> Result<Launched> {
        Err(Error::Hardware {
            message: format!("started as {count} processes of a launcher, but built without MPI"),
            help: "build with --features mpi, or start one process".into(),
        })
    }

    fn over(transport: Box<dyn Transport>) -> Self {
        let active = transport.count();
        let shared = Shared { channel: Channel::new(transport), traffic: Mutex::default() };
        Self { shared: if active > 1 { Some(Arc::new(shared)) } else { None }, active }
    }

    /// How many there are that take part.
    pub fn count(&self) -> usize {
        self.active
    }

    /// The first so many of them alone, to see what the others are worth.
    ///
    /// # Errors
    /// None, or more than there are.
    pub fn first(&self, count: usize) -> Result<Self> {
        if !(1..=self.active).contains(&count) {
            let expected = format!("1 to {}", self.active);
            return Err(Error::invalid("ranks", expected, count.to_string(), "start more of them"));
        }
        Ok(Self { active: count, ..self.clone() })
    }

    /// What they have said so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.as_ref().map_or(Traffic::default(), |s| *s.lock())
    }

    /// Where the first rank stands on its machine.
    pub(super) fn place(&self) -> Place {
        self.shared.as_ref().map_or(Place::ALONE, |s| s.channel.place())
    }

    /// The rows of each rank that has any, of as many units as these.
    pub(super) fn shares(&self, division: &Division) -> Vec<Range<usize>> {
        let active = self.active.min(division.units());
        (0..active).map(|rank| division.share(rank, active)).collect()
    }

    /// Has the first `active` ranks do something and joins what they answer, in their order. `own` is the first rank's part;
    /// what else a rank needs `parts` sends to it, and what else it sends `collect` receives. The error is that of the first
    /// rank that has one, and all have ended by then: where the first rank fails, the others are told not to go on.
    ///
    /// # Errors
    /// A rank's, or those of `join` and `collect`.
    pub(super) fn ask<T: Serialize + DeserializeOwned, U>(
        &self,
        active: usize,
        request: &Request,
        parts: impl Fn(usize) -> Vec<Vec<u8>>,
        own: impl FnOnce() -> Result<T>,
        mut join: impl FnMut(T, T) -> Result<T>,
        collect: impl FnOnce(T, &Channel) -> Result<U>,
    ) -> Result<Answer<U>> {
        let shared = self.shared.as_ref().expect("several ranks");
        let mut traffic = shared.lock();
        let clock = Instant::now();
        let channel = &shared.channel;
        let before = channel.bytes();
        let number = channel.tell(active, &to_bytes(request));
        for rank in 1..active {
            parts(rank).iter().for_each(|part| channel.send(rank, Tag::Part, part));
        }
        let work = Instant::now();
        let own = own();
        let own_time = work.elapsed();
        if own.is_err() && matches!(request, Request::Select { .. }) {
            (1..active).for_each(|rank| channel.send(rank, Tag::Cancel, &number.to_le_bytes()));
        }
        let mut slowest = own_time.as_secs_f64();
        let mut answer = Reply {
            outcome: own.map_err(|error| Failure::of(error, None)),
            counters: Counters::default(),
            faults: Vec::new(),
            working: 0.0,
        };
        gather(channel, active, &mut answer, &mut |a, b| join(a, b).map_err(|e| Failure::of(e, None)));
        slowest = slowest.max(answer.working);
        let Reply { outcome, counters, faults, .. } = answer;
        let outcome = outcome.map_err(Error::from).and_then(|value| collect(value, channel));
        let after = channel.bytes();
        traffic.operations += 1;
        traffic.sent += after[0] - before[0];
        traffic.received += after[1] - before[1];
        traffic.elapsed += clock.elapsed();
        traffic.working += Duration::from_secs_f64(slowest);
        traffic.own += own_time;
        outcome.map(|value| Answer { value, counters, faults })
    }

    /// Tells all ranks to forget what has this number, an engine, a problem set or resident members.
    fn forget(&self, id: u64) {
        if let Some(shared) = &self.shared {
            let _traffic = shared.lock();
            shared.channel.tell(shared.channel.count(), &to_bytes(&Request::Forget(id)));
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.channel.tell(self.channel.count(), &to_bytes(&Request::End));
    }
}

/// Joins the replies of a rank's children in the tree to its own, in the order of the ranks.
fn gather<T: DeserializeOwned>(
    channel: &Channel,
    active: usize,
    own: &mut Reply<T>,
    join: &mut dyn FnMut(T, T) -> std::result::Result<T, Failure>,
) {
    for child in transport::children(channel.rank(), active) {
        let reply: Reply<T> = from_bytes(&channel.receive(child, Tag::Reply));
        own.counters.add(&reply.counters);
        own.faults.extend(reply.faults);
        own.working = own.working.max(reply.working);
        let left = std::mem::replace(&mut own.outcome, Err(Failure::default()));
        own.outcome = match (left, reply.outcome) {
            (Err(failure), _) | (Ok(_), Err(failure)) => Err(failure),
            (Ok(left), Ok(right)) => join(left, right),
        };
    }
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("memory takes everything, and lengths are known")
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> T {
    postcard::from_bytes(bytes).expect("all ranks are one program")
}

/// A number that a launcher leaves in the environment: Open MPI's; that of MPICH, Intel MPI and PMI; Slurm's.
fn word_of_launcher(names: [&str; 3]) -> Option<usize> {
    names.into_iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// How a batch is cut into units, none of which ranks share: so many members of one problem each, or rows whosever they
/// are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    pub problems: usize,
    pub per_problem: usize,
    pub unit: usize,
}

impl Division {
    /// Of rows, whosever they are.
    pub fn of_rows(count: usize, unit: usize) -> Self {
        Self { problems: 1, per_problem: count, unit }
    }

    fn units(&self) -> usize {
        self.problems * self.per_problem.div_ceil(self.unit)
    }

    /// The rows of a rank among so many.
    pub fn share(&self, rank: usize, active: usize) -> Range<usize> {
        let each = self.per_problem.div_ceil(self.unit);
        let row = |unit: usize| unit / each * self.per_problem + (unit % each * self.unit).min(self.per_problem);
        let first = |rank: usize| (self.units() * rank).div_ceil(active);
        row(first(rank))..row(first(rank + 1))
    }
}

/// Something that all ranks hold under one number until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub ranks: Ranks,
    pub id: u64,
    /// Failures of GPUs on other ranks, of an engine.
    pub faults: Mutex<Vec<String>>,
}

impl Held {
    pub fn new(ranks: &Ranks) -> Self {
        Self { ranks: ranks.clone(), id: new_id(), faults: Mutex::default() }
    }

    /// Failures of GPUs on other ranks, that were mended.
    pub fn faults(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ranks.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_tile_the_members_in_whole_units() {
        for (problems, per_problem, unit) in [(1, 1, 16), (1, 100, 16), (3, 700, 256), (20, 5, 256), (1, 65_536, 4096)]
        {
            let division = Division { problems, per_problem, unit };
            for active in 1..=division.units().min(9) {
                let mut next = 0;
                for rank in 0..active {
                    let share = division.share(rank, active);
                    assert_eq!(share.start, next);
                    assert!(!share.is_empty(), "{division:?} {active}");
                    assert_eq!(share.start % per_problem % unit, 0);
                    next = share.end;
                }
                assert_eq!(next, problems * per_problem);
            }
        }
    }
}
