//! Runs sequential algorithms side by side so that the function values they ask for are computed as one batch.
//!
//! An algorithm that owns its loop (argmin's do) runs in a thread of its own, sends the point it wants and waits. The
//! calling thread takes one request of every live algorithm, in their order, has the batch evaluated, and replies. So
//! the batches, and with them the results, do not depend on how the threads are scheduled.

use super::{Evaluation, Request, Watch};
use crate::error::{Error, Result};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Threads at most; more algorithms than this run one group after the other.
const LIVE: usize = 1024;
/// Bytes of a thread's stack.
const STACK: usize = 256 * 1024;

struct Question {
    point: Vec<f64>,
    iteration: usize,
}

/// An algorithm's end of the line.
pub(super) struct Oracle {
    ask: Sender<Question>,
    answer: Receiver<Evaluation>,
}

impl Oracle {
    /// The function at `point`, or nothing if the run has been ended. `iteration` is for the progress report.
    pub(super) fn evaluate(&self, point: &[f64], iteration: usize) -> Option<Evaluation> {
        self.ask.send(Question { point: point.to_vec(), iteration }).ok()?;
        self.answer.recv().ok()
    }
}

/// The calling thread's end of the line to one algorithm.
struct Line {
    index: usize,
    questions: Receiver<Question>,
    answers: Sender<Evaluation>,
}

/// Runs `algorithm(index, oracle)` for each index below `count` and returns what they return.
///
/// # Errors
/// Whatever `evaluate` returns, once every algorithm has ended; the system refuses threads.
pub(super) fn run<T: Send>(
    count: usize,
    algorithm: impl Fn(usize, &Oracle) -> T + Sync,
    mut evaluate: impl FnMut(&[Request]) -> Result<Vec<Evaluation>>,
    watch: &mut Watch,
) -> Result<Vec<T>> {
    let mut best = vec![f64::INFINITY; count];
    let mut results = Vec::with_capacity(count);
    let mut ended = false;
    for first in (0..count).step_by(LIVE) {
        let group = first..count.min(first + LIVE);
        thread::scope(|scope| {
            let mut lines = Vec::new();
            let mut threads = Vec::new();
            for index in group {
                let (ask, questions) = channel();
                let (answers, answer) = channel();
                let algorithm = &algorithm;
                let work = move || algorithm(index, &Oracle { ask, answer });
                let started = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
                threads.push(started.map_err(|e| Error::Hardware {
                    message: format!("the system refuses thread {} of a minimisation: {e}", threads.len() + 1),
                    help: "use fewer starts or problems at a time".into(),
                })?);
                lines.push(Line { index, questions, answers });
            }
            // Dropping the lines, here and above on an error, ends every algorithm that still waits.
            let served = if ended {
                drop(lines);
                Ok(true)
            } else {
                serve(lines, &mut best, &mut evaluate, watch)
            };
            for thread in threads {
                results.push(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            ended = served?;
            Ok::<_, Error>(())
        })?;
    }
    Ok(results)
}

/// Answers until no algorithm asks any more (false) or the watch ends the run (true).
fn serve(
    mut lines: Vec<Line>,
    best: &mut [f64],
    evaluate: &mut impl FnMut(&[Request]) -> Result<Vec<Evaluation>>,
    watch: &mut Watch,
) -> Result<bool> {
    loop {
        let mut questions = Vec::with_capacity(lines.len());
        lines.retain(|line| line.questions.recv().map(|q| questions.push(q)).is_ok());
        if lines.is_empty() {
            return Ok(false);
        }
        let requests: Vec<_> =
            lines.iter().zip(&questions).map(|(line, q)| Request { index: line.index, point: &q.point }).collect();
        let evaluations = evaluate(&requests)?;
        assert_eq!(evaluations.len(), lines.len(), "one evaluation per request");
        for (line, evaluation) in lines.iter().zip(evaluations) {
            if evaluation.is_finite() {
                best[line.index] = best[line.index].min(evaluation.cost);
            }
            // An algorithm that no longer listens has returned; the next round drops its line.
            let _ = line.answers.send(evaluation);
        }
        let iteration = questions.iter().map(|q| q.iteration).max().unwrap_or(0);
        if watch(iteration, best).is_break() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    fn halve(index: usize, oracle: &Oracle) -> (usize, f64) {
        let mut asked = 0;
        let mut x = index as f64 + 1.0;
        while x > 0.1 {
            let Some(e) = oracle.evaluate(&[x], asked) else { return (asked, -1.0) };
            asked += 1;
            x = e.cost;
        }
        (asked, x)
    }

    fn answer(requests: &[Request]) -> Result<Vec<Evaluation>> {
        Ok(requests.iter().map(|r| Evaluation { cost: r.point[0] / 2.0, gradient: vec![] }).collect())
    }

    #[test]
    fn lockstep_batches_shrink_as_algorithms_end() {
        let mut sizes = Vec::new();
        let evaluate = |r: &[Request]| {
            sizes.push(r.len());
            answer(r)
        };
        let results = run(3, halve, evaluate, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(results, [(4, 0.0625), (5, 0.0625), (5, 0.09375)]);
        assert_eq!(sizes, [3, 3, 3, 3, 2]);
    }

    #[test]
    fn lockstep_more_algorithms_than_threads() {
        let results = run(LIVE + 3, halve, answer, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(results.len(), LIVE + 3);
        assert!(results.iter().all(|r| r.1 > 0.0));
    }

    #[test]
    fn lockstep_error_and_break_end_every_algorithm() {
        let mut round = 0;
        let fail = |r: &[Request]| {
            round += 1;
            if round == 3 { Err(Error::invalid("a", "b", "c", "d")) } else { answer(r) }
        };
        assert!(run(3, halve, fail, &mut |_, _| ControlFlow::Continue(())).is_err());
        let results = run(3, halve, answer, &mut |_, _| ControlFlow::Break(())).unwrap();
        assert_eq!(results, [(1, -1.0); 3]);
        let results = run(LIVE + 1, halve, answer, &mut |_, _| ControlFlow::Break(())).unwrap();
        assert_eq!(results[LIVE], (0, -1.0));
    }
}
