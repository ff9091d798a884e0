//! Ranks that are threads of one process.

use super::transport::{Channel, Tag, Transport};
use super::{Place, worker};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Messages that wait, by sender, receiver and tag.
type Waiting = BTreeMap<(usize, usize, Tag), VecDeque<Vec<u8>>>;

#[derive(Debug, Default)]
struct Mail {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

/// One thread's way to the others.
#[derive(Debug)]
struct Thread {
    rank: usize,
    count: usize,
    mail: Arc<Mail>,
}

/// Starts all ranks but the first, and returns what the first needs.
pub fn start(count: usize) -> Box<dyn Transport> {
    let mail = Arc::new(Mail::default());
    for rank in 1..count {
        let thread = Thread { rank, count, mail: mail.clone() };
        std::thread::spawn(move || {
            // A rank that went away would leave the others waiting.
            if catch_unwind(AssertUnwindSafe(|| worker::serve(&Channel::new(Box::new(thread))))).is_err() {
                std::process::abort();
            }
        });
    }
    Box::new(Thread { rank: 0, count, mail })
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.count
    }

    fn place(&self) -> Place {
        Place { number: self.rank, sharers: self.count }
    }

    fn send(&self, to: usize, tag: Tag, bytes: &[u8]) {
        let mut waiting = self.mail.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry((self.rank, to, tag)).or_default().push_back(bytes.to_vec());
        self.mail.arrived.notify_all();
    }

    fn receive(&self, from: usize, tag: Tag) -> Vec<u8> {
        let mut waiting = self.mail.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(bytes) = waiting.get_mut(&(from, self.rank, tag)).and_then(VecDeque::pop_front) {
                return bytes;
            }
            waiting = self.mail.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn waits(&self, from: usize, tag: Tag) -> bool {
        let waiting = self.mail.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(&(from, self.rank, tag)).is_some_and(|queue| !queue.is_empty())
    }
}
