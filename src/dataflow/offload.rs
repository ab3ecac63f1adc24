//! An operator that hands its items to the pool and goes on with what comes back.

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

/// How an [`offload`] operator runs its work.
pub struct Offload {
    /// The name in timely's logs.
    pub name: String,
    /// The pool's lane.
    pub lane: Priority,
    /// Items on the pool at once; the others wait in the operator.
    pub in_flight: usize,
}

/// Sends every item through `work` on the pool; results leave under the epoch of their item, in the order in which they are done.
///
/// An epoch's capability is held while any of its items is out, so frontiers stay right whatever the pool does. The
/// worker sleeps meanwhile: a finished job sends its result first and wakes the operator second.
pub fn offload<'scope, I, O, F>(
    items: StreamVec<'scope, Epoch, I>,
    settings: Offload,
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
            // Never more than `in_flight` results lie in here.
            let (done, results) = unbounded::<(Epoch, O)>();
            let activator = Arc::new(worker.sync_activator_for(address));
            let mut waiting = VecDeque::new();
            let mut open = BTreeMap::new();
            let mut out = 0;
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
                    out -= 1;
                    if let Some((capability, count)) = open.get_mut(&epoch) {
                        output.session(&*capability).give(result);
                        *count -= 1;
                        if *count == 0 {
                            open.remove(&epoch);
                        }
                    }
                }
                while out < settings.in_flight {
                    let Some((epoch, item)) = waiting.pop_front() else { break };
                    let (work, done) = (Arc::clone(&work), done.clone());
                    let (stop, activator) = (Arc::clone(&abort), Arc::clone(&activator));
                    let job = move || {
                        if stop.is_set() {
                            return;
                        }
                        match catch_unwind(AssertUnwindSafe(|| work(epoch, item))) {
                            // An ended worker takes no more results, and none are missed.
                            Ok(result) => drop(done.send((epoch, result))),
                            Err(_) => stop.set(Error::new("work outside of any one scan panicked; see the log")),
                        }
                        let _ = activator.activate();
                    };
                    if pool.submit(settings.lane, job).is_err() {
                        abort.set(Error::new("the pool's queue is shorter than what its operators may send"));
                        break;
                    }
                    out += 1;
                }
            }
        },
    )
}
