//! Admission of scans when their memory is free.

use std::collections::VecDeque;
use std::sync::Arc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::Epoch;
use super::budget::{Budget, Lease};

/// Delays items until the bytes that each needs are leased, in order of arrival.
///
/// The lease is emitted with its item and is held as long as the results that contain it. No item may need more than the whole budget;
/// the caller limits the request.
pub fn admit<'scope, I: 'static>(
    items: StreamVec<'scope, Epoch, (I, u64)>,
    budget: &Arc<Budget>,
) -> StreamVec<'scope, Epoch, (I, Lease)> {
    let budget = Arc::clone(budget);
    let scope = items.scope();
    items.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "admit", move |capability, info| {
        drop(capability);
        budget.wake_on_release(scope.worker().sync_activator_for(info.address.to_vec()));
        let mut waiting = VecDeque::new();
        move |(input, _frontier), output| {
            input.for_each_stamp(|stamp, batches| {
                let Some(capability) = stamp.retain_least(0) else { return };
                waiting.extend(batches.flat_map(|batch| batch.drain(..)).map(|item| (capability.clone(), item)));
            });
            while let Some((capability, (item, bytes))) = waiting.pop_front() {
                match budget.lease(bytes) {
                    Some(lease) => output.session(&capability).give((item, lease)),
                    None => {
                        waiting.push_front((capability, (item, bytes)));
                        break;
                    }
                }
            }
        }
    })
}
