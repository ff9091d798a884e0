//! What every rank but the first does: its share of what the first asks for.

use super::failure::Failure;
use super::transport::{Channel, Tag, numbers_from, numbers_to};
use super::{Division, Reply, Request, RowSource, from_bytes, gather, to_bytes};
use crate::engine::local::{LocalEngine, LocalProblem, LocalResident};
use crate::engine::operation::Operation;
use crate::engine::selection::{Picked, Selector};
use crate::engine::span::{Results, Span};
use crate::engine::tree::Tree;
use crate::engine::{Counters, Draw, Hardware, Inspection, Listed, Members, Moments, Row};
use crate::error::{Error, Result};
use crate::problem::Problem;
use ndarray::ArrayView2;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Instant;

/// Answers requests until there are no more.
pub fn serve(channel: &Channel) {
    let mut worker = Worker { channel, active: 1, number: 0, held: BTreeMap::new() };
    loop {
        let (active, number, request) = channel.listen();
        (worker.active, worker.number) = (active, number);
        match from_bytes(&request) {
            Request::End => {
                // What came too late to end anything.
                channel.is_cancelled(u64::MAX);
                return;
            }
            Request::Forget(id) => drop(worker.held.remove(&id)),
            request => worker.answer(request),
        }
    }
}

/// A rank at work.
struct Worker<'a> {
    channel: &'a Channel,
    /// Ranks that take part in the present request, and its number.
    active: usize,
    number: u64,
    held: BTreeMap<u64, Held>,
}

enum Held {
    Engine(LocalEngine),
    Problem(Box<Loaded>),
    /// The share that this rank had when they settled, if any is left of it.
    Resident(Option<LocalResident>),
}

struct Loaded {
    engine: LocalEngine,
    local: LocalProblem,
    problems: usize,
    control: usize,
    /// Numbers of a trajectory.
    trajectory: usize,
}

impl Worker<'_> {
    fn answer(&mut self, request: Request) {
        match request {
            Request::Open { engine, settings } => {
                let place = self.channel.place();
                let hardware = |worker: &mut Self| -> Result<Vec<Hardware>> {
                    let opened = LocalEngine::new(&settings, place)?;
                    let hardware = opened.hardware().clone();
                    worker.held.insert(engine, Held::Engine(opened));
                    Ok(vec![hardware])
                };
                self.reply(hardware, concatenated);
            }
            Request::Load { engine, problem, set, kernel } => {
                let load = |worker: &mut Self| worker.load(engine, problem, &set, &kernel);
                self.reply(load, |(), ()| Ok(()));
            }
            Request::Rows { problem, operation, source, count } => self.rows(problem, operation, &source, count),
            Request::Moments { problem, draw, terms } => {
                let moments = |worker: &mut Self| -> Result<Vec<Tree<Moments>>> {
                    let (active, rank) = (worker.active, worker.channel.rank());
                    let loaded = worker.problem(problem);
                    let span = loaded.share(&draw, Operation::Moments(terms), rank, active);
                    loaded.local.moments(&draw, &span, terms)
                };
                self.reply_of(problem, moments, Moments::join);
            }
            Request::Select { problem, draw, criterion, keep } => {
                let select = |worker: &mut Self| -> Result<Vec<Picked>> {
                    let (channel, number) = (worker.channel, worker.number);
                    let (active, rank) = (worker.active, channel.rank());
                    let loaded = worker.problem(problem);
                    let mut selector = Selector::new(loaded.problems, draw.count, keep)?;
                    let span = loaded.share(&draw, Operation::Select(criterion, 0), rank, active);
                    let mut watch = |_| match channel.is_cancelled(number) {
                        true => Err(Error::Interrupted { state: None }),
                        false => Ok(()),
                    };
                    loaded.local.select(&draw, &span, criterion, &mut selector, &mut watch)?;
                    Ok(selector.into_picked())
                };
                let join = |left: Vec<Picked>, right| {
                    let mut selector = Selector::new(left.len(), draw.count, keep)?;
                    selector.absorb(left)?;
                    selector.absorb(right)?;
                    Ok(selector.into_picked())
                };
                self.reply_of(problem, select, join);
            }
            Request::Settle { problem, members, amplitude, units } => {
                let numbers = numbers_from(&self.channel.receive(0, Tag::Part));
                let rows = rows_from(&self.channel.receive(0, Tag::Part));
                let settle = |worker: &mut Self| -> Result<()> {
                    let mut resident = None;
                    if !rows.is_empty() {
                        let loaded = worker.problem(problem);
                        let shape = (rows.len(), loaded.control);
                        let mut arrays = numbers.chunks(rows.len() * loaded.control).map(|numbers| {
                            ArrayView2::from_shape(shape, numbers).expect("as many as the first rank sends")
                        });
                        let mut next = || arrays.next().expect("four arrays");
                        let listed = Listed { states: next(), rows: &rows, amplitude };
                        let others = [next(), next(), next()];
                        resident = Some(loaded.local.settle(listed, others, units.view())?);
                    }
                    worker.held.insert(members, Held::Resident(resident));
                    Ok(())
                };
                self.reply_of(problem, settle, |(), ()| Ok(()));
            }
            Request::Adam { problem, members, steps, terms } => {
                let adam = |worker: &mut Self| {
                    worker.with_resident(problem, members, |loaded, r| loaded.local.adam(r, &steps, terms)).map(drop)
                };
                self.reply_of(problem, adam, |(), ()| Ok(()));
            }
            Request::Inspect { problem, members, terms } => {
                let inspect = |worker: &mut Self| {
                    worker.with_resident(problem, members, |loaded, r| {
                        loaded.local.inspect(r, terms).map(Inspection::into_numbers)
                    })
                };
                self.reply_with_rows(problem, inspect);
            }
            Request::Numbers { problem, members, kind } => {
                let numbers = |worker: &mut Self| {
                    worker.with_resident(problem, members, |loaded, r| {
                        let numbers = loaded.local.numbers(r, kind, loaded.control)?;
                        Ok(numbers.into_raw_vec_and_offset().0)
                    })
                };
                self.reply_with_rows(problem, numbers);
            }
            Request::Gather { problem, members } => {
                let keep: Vec<usize> = from_bytes(&self.channel.receive(0, Tag::Part));
                let control = self.problem(problem).control;
                let gather = |worker: &mut Self| -> Result<()> {
                    if let Some(Held::Resident(place)) = worker.held.get_mut(&members) {
                        *place = place.take().filter(|_| !keep.is_empty()).map(|mut resident| {
                            resident.gather(&keep, control);
                            resident
                        });
                    }
                    Ok(())
                };
                self.reply_of(problem, gather, |(), ()| Ok(()));
            }
            Request::Forget(_) | Request::End => unreachable!("no answer is wanted"),
        }
    }

    fn problem(&mut self, id: u64) -> &mut Loaded {
        match self.held.get_mut(&id) {
            Some(Held::Problem(loaded)) => loaded,
            _ => panic!("the first rank asks for what it has loaded"),
        }
    }

    fn load(&mut self, engine: u64, id: u64, set: &Problem, kernel: &str) -> Result<()> {
        let Some(Held::Engine(engine)) = self.held.get(&engine) else {
            panic!("the first rank loads on what it has opened");
        };
        let loaded = Loaded {
            engine: engine.clone(),
            local: engine.load(set, Some(kernel))?,
            problems: set.count(),
            control: set.control().len(),
            trajectory: set.window.times * set.sites(),
        };
        self.held.insert(id, Held::Problem(Box::new(loaded)));
        Ok(())
    }

    fn rows(&mut self, problem: u64, operation: Operation, source: &RowSource, count: usize) {
        let (channel, rank, active) = (self.channel, self.channel.rank(), self.active);
        let part = || channel.receive(0, Tag::Part);
        let states = if matches!(source, RowSource::Drawn(_)) { Vec::new() } else { numbers_from(&part()) };
        let list = if matches!(source, RowSource::Listed { .. }) { rows_from(&part()) } else { Vec::new() };
        let loaded = self.problem(problem);
        let takes_input = operation.input_per_row(loaded.trajectory, loaded.control) > 0;
        let input = if takes_input { numbers_from(&part()) } else { Vec::new() };
        let run = |worker: &mut Self| -> Result<Option<Vec<f64>>> {
            let loaded = worker.problem(problem);
            let rows = Division::of_rows(count, loaded.local.rows_together()).share(rank, active);
            let states = ArrayView2::from_shape((states.len() / loaded.control, loaded.control), &states)
                .expect("whole rows are sent");
            let per_problem = count / loaded.problems;
            let span = match source {
                RowSource::Given => Span { members: Members::Given(states), rows, per_problem },
                RowSource::Drawn(draw) => Span { members: Members::Drawn(draw), rows, per_problem },
                RowSource::Listed { amplitude } => Span {
                    members: Members::Listed(Listed { states, rows: &list, amplitude: *amplitude }),
                    rows: 0..list.len(),
                    per_problem: list.len(),
                },
            };
            loaded.local.rows(&span, operation, &input).map(|results| Some(results.into_numbers()))
        };
        self.reply_with_rows(problem, run);
    }

    /// Does something with resident members, if this rank has any of them.
    fn with_resident<T>(
        &mut self,
        problem: u64,
        members: u64,
        work: impl FnOnce(&mut Loaded, &mut LocalResident) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(Held::Resident(Some(mut resident))) = self.held.remove(&members) else {
            self.held.insert(members, Held::Resident(None));
            return Ok(None);
        };
        let outcome = work(self.problem(problem), &mut resident);
        self.held.insert(members, Held::Resident(Some(resident)));
        outcome.map(Some)
    }

    /// Replies whether this rank succeeded, and sends the first rank the rows' numbers if it has any.
    fn reply_with_rows(&mut self, problem: u64, work: impl FnOnce(&mut Self) -> Result<Option<Vec<f64>>>) {
        let rank = self.channel.rank();
        let mut rows = None;
        let said = |worker: &mut Self| -> Result<Vec<Said>> {
            Ok(vec![match work(worker) {
                Ok(numbers) => {
                    let said = Said::Rows(numbers.is_some());
                    rows = numbers;
                    said
                }
                Err(error) => Said::Failed(Failure::of(error, Some(rank))),
            }])
        };
        self.reply_of(problem, said, concatenated);
        if let Some(rows) = rows {
            self.channel.send(0, Tag::Rows, &numbers_to(&rows));
        }
    }

    /// Replies what comes of work on a problem set.
    fn reply_of<T: Serialize + DeserializeOwned>(
        &mut self,
        problem: u64,
        work: impl FnOnce(&mut Self) -> Result<T>,
        join: impl FnMut(T, T) -> Result<T>,
    ) {
        let loaded = self.problem(problem);
        let (before, faults) = (loaded.local.counters(), loaded.engine.faults().len());
        let with_counts = |worker: &mut Self| {
            let outcome = work(worker);
            let loaded = worker.problem(problem);
            let counters = loaded.local.counters().since(&before);
            (outcome, counters, loaded.engine.faults().split_off(faults))
        };
        self.send_reply(with_counts, join);
    }

    /// Replies what comes of other work.
    fn reply<T: Serialize + DeserializeOwned>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T>,
        join: impl FnMut(T, T) -> Result<T>,
    ) {
        self.send_reply(|worker| (work(worker), Counters::default(), Vec::new()), join);
    }

    fn send_reply<T: Serialize + DeserializeOwned>(
        &mut self,
        work: impl FnOnce(&mut Self) -> (Result<T>, Counters, Vec<String>),
        mut join: impl FnMut(T, T) -> Result<T>,
    ) {
        let rank = self.channel.rank();
        let clock = Instant::now();
        let (outcome, counters, faults) = work(self);
        let working = clock.elapsed().as_secs_f64();
        let outcome = outcome.map_err(|error| Failure::of(error, Some(rank)));
        let mut reply = Reply { outcome, counters, faults, working };
        gather(self.channel, self.active, &mut reply, &mut |left, right| {
            join(left, right).map_err(|error| Failure::of(error, Some(rank)))
        });
        self.channel.send(super::transport::parent(rank), Tag::Reply, &to_bytes(&reply));
    }
}

/// Whether a rank has rows to send.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub enum Said {
    Rows(bool),
    Failed(Failure),
}

impl Loaded {
    /// This rank's share of drawn members.
    fn share<'d>(&self, draw: &'d Draw, operation: Operation, rank: usize, active: usize) -> Span<'d> {
        let unit = self.local.members_together(draw, operation);
        let division = Division { problems: self.problems, per_problem: draw.count, unit };
        Span { members: Members::Drawn(draw), rows: division.share(rank, active), per_problem: draw.count }
    }
}

impl Results {
    /// All numbers of them in a row: J_b, J_o and whether members diverged, and then the values.
    pub fn into_numbers(self) -> Vec<f64> {
        let Self { costs, values } = self;
        let diverged = costs.diverged.iter().map(|d| f64::from(u8::from(*d)));
        costs.background.into_iter().chain(costs.observation).chain(diverged).chain(values).collect()
    }
}

impl Moments {
    /// The sums of each problem over two parts of its members, the second behind the first.
    pub(in crate::engine) fn join(mut left: Vec<Tree<Self>>, right: Vec<Tree<Self>>) -> Result<Vec<Tree<Self>>> {
        left.iter_mut().zip(right).for_each(|(left, right)| left.append(right));
        Ok(left)
    }
}

/// Lists of two parts, the second behind the first.
#[expect(clippy::unnecessary_wraps, reason = "as others join")]
pub fn concatenated<X>(mut left: Vec<X>, right: Vec<X>) -> Result<Vec<X>> {
    left.extend(right);
    Ok(left)
}

/// A list of members as it is sent.
pub fn rows_to(rows: &[Row]) -> Vec<u8> {
    to_bytes(&rows.iter().map(|row| (row.problem, row.member)).collect::<Vec<_>>())
}

/// Places of resident members as they are sent.
pub fn places_to(places: &[usize]) -> Vec<u8> {
    to_bytes(&places)
}

fn rows_from(bytes: &[u8]) -> Vec<Row> {
    let rows: Vec<(u32, u32)> = from_bytes(bytes);
    rows.into_iter().map(|(problem, member)| Row { problem, member }).collect()
}
