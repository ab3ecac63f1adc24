//! An operator that processes its items on the pool.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam::channel::unbounded;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::error::Error;

use super::pool::{Pool, Priority};
use super::{Abort, Epoch};

/// Settings of an [`offload`] operator.
pub struct OffloadConfig {
    /// The name in timely's logs.
    pub name: String,
    /// The priority on the pool.
    pub priority: Priority,
    /// Maximum number of items on the pool at once; other items wait in the operator.
    pub in_flight: usize,
}

/// Calls `work` for every item on the pool; results are emitted in the epoch of their item, in order of completion.
///
/// The capability of an epoch is held while items of the epoch are on the pool, so frontiers stay correct. The worker sleeps in the
/// meantime: a finished job first sends its result and then activates the operator.
pub fn offload<'scope, I, O, F>(
    items: StreamVec<'scope, Epoch, I>,
    settings: OffloadConfig,
    pool: &Arc<Pool>,
    abort: &Arc<Abort>,
    work: F,
) -> StreamVec<'scope, Epoch, O>
where
    I: Send + 'static,
    O: Send + 'static,
    F: Fn(Epoch, I) -> O + Send + Sync + 'static,
{
    let (pool, abort, work) = (Arc::clone(pool), Arc::clone(abort), Arc::new(work));
    let scope = items.scope();
    items.unary_frontier::<CapacityContainerBuilder<Vec<O>>, _, _, _>(
        Pipeline,
        &settings.name,
        move |capability, info| {
            drop(capability);
            let address = info.address.to_vec();
            let worker = scope.worker();
            // The channel has at most `in_flight` results.
            let (sender, results) = unbounded::<(Epoch, O)>();
            let activator = Arc::new(worker.sync_activator_for(address));
            let mut waiting = VecDeque::new();
            let mut open = BTreeMap::new();
            let mut running = 0;
            move |(input, _frontier), output| {
                input.for_each_stamp(|stamp, batches| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    let epoch = *capability.time();
                    let count = &mut open.entry(epoch).or_insert((capability, 0usize)).1;
                    for item in batches.flat_map(|batch| batch.drain(..)) {
                        *count += 1;
                        waiting.push_back((epoch, item));
                    }
                });
                for (epoch, result) in results.try_iter() {
                    running -= 1;
                    if let Some((capability, count)) = open.get_mut(&epoch) {
                        output.session(&*capability).give(result);
                        *count -= 1;
                        if *count == 0 {
                            open.remove(&epoch);
                        }
                    }
                }
                while running < settings.in_flight {
                    let Some((epoch, item)) = waiting.pop_front() else { break };
                    let (work, sender) = (Arc::clone(&work), sender.clone());
                    let (stop, activator) = (Arc::clone(&abort), Arc::clone(&activator));
                    let job = move || {
                        if stop.is_set() {
                            return;
                        }
                        match catch_unwind(AssertUnwindSafe(|| work(epoch, item))) {
                            // A worker that has ended does not need the result.
                            Ok(result) => drop(sender.send((epoch, result))),
                            Err(_) => stop.set(Error::new(
                                "an operator panicked outside of the processing of a scan; see the log",
                            )),
                        }
                        let _ = activator.activate();
                    };
                    if pool.submit(settings.priority, job).is_err() {
                        let error = Error::new("internal error: the queue of the thread pool is full");
                        abort.set(error.with_hint("report this error with the graph file and the log"));
                        break;
                    }
                    running += 1;
                }
            }
        },
    )
}
