//! The threads of a CPU engine: the caller works, and helpers beside it that stay awake between short calls.
//!
//! An iteration of a small fit takes less time than the system needs to wake a sleeping thread. So after a short call
//! the helpers spin for a while, until the next call or until it is clear that there is none.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a helper waits awake for the next call.
const AWAKE: Duration = Duration::from_micros(200);

/// Calls longer than this do not notice a helper that wakes late.
const SHORT: Duration = Duration::from_millis(2);

/// The threads that all problems of an engine share.
#[derive(Clone, Debug)]
pub struct Threads {
    pool: Arc<rayon::ThreadPool>,
    /// Calls so far: a helper that waits awake goes when it changes.
    calls: Arc<AtomicU64>,
}

impl Threads {
    pub fn new(pool: rayon::ThreadPool) -> Self {
        Self { pool: Arc::new(pool), calls: Arc::default() }
    }

    /// How many, the caller among them.
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Does `work(thread, item)` on every item, `thread` below [`Threads::count`].
    pub fn each<I: Send>(&self, items: Vec<I>, work: impl Fn(usize, I) + Sync) {
        let helpers = self.count().min(items.len()).saturating_sub(1);
        if helpers == 0 {
            return items.into_iter().for_each(|item| work(0, item));
        }
        let clock = Instant::now();
        let queue = Mutex::new(items.into_iter());
        let busy = AtomicUsize::new(helpers);
        let take = || queue.lock().expect("no thread panics while it takes an item").next();
        let run = |thread: usize| {
            while let Some(item) = take() {
                work(thread, item);
            }
        };
        self.pool.in_place_scope(|scope| {
            for thread in 1..=helpers {
                let (run, busy) = (&run, &busy);
                scope.spawn(move |_| {
                    run(thread);
                    busy.fetch_sub(1, Ordering::Release);
                });
            }
            self.calls.fetch_add(1, Ordering::Release);
            run(0);
            spin(|| busy.load(Ordering::Acquire) > 0);
        });
        if clock.elapsed() < SHORT {
            let call = self.calls.load(Ordering::Acquire);
            for _ in 0..helpers {
                let calls = self.calls.clone();
                self.pool.spawn(move || spin(|| calls.load(Ordering::Acquire) == call));
            }
        }
    }
}

/// Waits awake, for a while at most.
fn spin(wait: impl Fn() -> bool) {
    let clock = Instant::now();
    while wait() && clock.elapsed() < AWAKE {
        std::hint::spin_loop();
    }
}
