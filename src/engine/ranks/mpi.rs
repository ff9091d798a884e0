//! Ranks that a launcher of MPI started. The one file that knows MPI.

use super::Place;
use super::transport::{Tag, Transport};
use crate::error::{Error, Result};
use mpi::Threading;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, MatchedReceiveVec, Source};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// Bytes of a message: MPI counts in 32 bits. A longer one goes in pieces of this length, the last of which is shorter.
const PIECE: usize = 1 << 30;

/// MPI waits by asking again and again. A rank that has waited so long for work leaves its core to the others, and looks up after
/// each nap.
const AWAKE: Duration = Duration::from_millis(2);
const NAP: Duration = Duration::from_micros(50);

/// All ranks of the launcher.
pub struct World {
    /// Ends MPI when it is dropped.
    _universe: Universe,
    rank: usize,
    count: usize,
    place: Place,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("rank", &self.rank).field("count", &self.count).finish_non_exhaustive()
    }
}

impl World {
    /// Starts MPI.
    ///
    /// # Errors
    /// It was started before, or takes calls of one thread alone.
    pub fn start() -> Result<Self> {
        let started = mpi::initialize_with_threading(Threading::Serialized);
        let Some((universe, threading)) = started else {
            return Err(Error::Hardware {
                message: "MPI was started before in this process".into(),
                help: "make the ranks once, and clone them".into(),
            });
        };
        if threading < Threading::Serialized {
            return Err(Error::Hardware {
                message: format!("this MPI library gives no more than {threading:?} threads, expected Serialized"),
                help: "use one that was built with threads".into(),
            });
        }
        // A rank that panics would wait for the others to end MPI, and they for its answer.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            told(panic);
            std::process::abort();
        }));
        let world = universe.world();
        let (rank, count) = (world.rank() as usize, world.size() as usize);
        let machine = world.split_shared(world.rank());
        let cores = cores();
        let mut all = vec![0; machine.size() as usize];
        machine.all_gather_into(&cores, &mut all[..]);
        let sharers = all.iter().filter(|other| **other == cores).count();
        let place = Place { number: machine.rank() as usize, sharers };
        Ok(Self { _universe: universe, rank, count, place })
    }
}

/// The cores that this process may use, as one number: ranks with the same ones share them, as a launcher leaves it that binds
/// none. Where the system does not say, all have the same.
fn cores() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    status.lines().find(|line| line.starts_with("Cpus_allowed_list")).hash(&mut hasher);
    hasher.finish()
}

impl Transport for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.count
    }

    fn place(&self) -> Place {
        self.place
    }

    fn send(&self, to: usize, tag: Tag, bytes: &[u8]) {
        let world = SimpleCommunicator::world();
        let to = world.process_at_rank(to as i32);
        let mut pieces = bytes.chunks_exact(PIECE);
        pieces.by_ref().for_each(|piece| to.send_with_tag(piece, tag as i32));
        to.send_with_tag(pieces.remainder(), tag as i32);
    }

    fn receive(&self, from: usize, tag: Tag) -> Vec<u8> {
        let world = SimpleCommunicator::world();
        let from = world.process_at_rank(from as i32);
        let clock = Instant::now();
        while tag == Tag::Request && from.immediate_probe_with_tag(tag as i32).is_none() {
            if clock.elapsed() > AWAKE {
                std::thread::sleep(NAP);
            }
        }
        let piece = || from.matched_probe_with_tag(tag as i32).matched_receive_vec::<u8>().0;
        let mut bytes = piece();
        let mut last = bytes.len();
        while last == PIECE {
            let next = piece();
            last = next.len();
            bytes.extend(next);
        }
        bytes
    }

    fn waits(&self, from: usize, tag: Tag) -> bool {
        SimpleCommunicator::world().process_at_rank(from as i32).immediate_probe_with_tag(tag as i32).is_some()
    }
}
