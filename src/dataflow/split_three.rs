//! An operator with three outputs.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;

use super::Epoch;

/// An item, tagged with the output of [`split_three`] that receives it.
pub enum OneOf<A, B, C> {
    /// To the first output.
    First(A),
    /// To the second output.
    Second(B),
    /// To the third output.
    Third(C),
}

/// The output streams of [`split_three`].
pub type ThreeStreams<'scope, A, B, C> =
    (StreamVec<'scope, Epoch, A>, StreamVec<'scope, Epoch, B>, StreamVec<'scope, Epoch, C>);

/// Sends each item to the output that `which` returns.
pub fn split_three<'scope, I: 'static, A: 'static, B: 'static, C: 'static>(
    items: StreamVec<'scope, Epoch, I>,
    mut which: impl FnMut(I) -> OneOf<A, B, C> + 'static,
) -> ThreeStreams<'scope, A, B, C> {
    let mut builder = OperatorBuilder::new("split".to_owned(), items.scope());
    let mut input = builder.new_input(items, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (first, first_stream) = builder.new_output();
    let (second, second_stream) = builder.new_output();
    let (third, third_stream) = builder.new_output();
    let mut first = OutputBuilder::<_, CapacityContainerBuilder<Vec<A>>>::from(first);
    let mut second = OutputBuilder::<_, CapacityContainerBuilder<Vec<B>>>::from(second);
    let mut third = OutputBuilder::<_, CapacityContainerBuilder<Vec<C>>>::from(third);
    builder.build(move |_| {
        move |_frontiers| {
            let (mut first, mut second, mut third) = (first.activate(), second.activate(), third.activate());
            input.for_each_stamp(|stamp, batches| {
                let mut first = first.session(&stamp);
                let mut second = second.session(&stamp);
                let mut third = third.session(&stamp);
                for item in batches.flat_map(|batch| batch.drain(..)) {
                    match which(item) {
                        OneOf::First(item) => first.give(item),
                        OneOf::Second(item) => second.give(item),
                        OneOf::Third(item) => third.give(item),
                    }
                }
            });
        }
    });
    (first_stream, second_stream, third_stream)
}

#[cfg(test)]
mod tests {
    use timely::dataflow::operators::capture::Extract;
    use timely::dataflow::operators::{Capture, ToStream};

    use super::*;

    #[test]
    fn split_three_sends_each_item_to_its_output() {
        let captured = timely::example(|scope| {
            let numbers = (0..30u32).to_stream(scope).container::<Vec<_>>();
            let (first, second, third) = split_three(numbers, |number| match number % 3 {
                0 => OneOf::First(number),
                1 => OneOf::Second(number.to_string()),
                _ => OneOf::Third(i64::from(number)),
            });
            (first.capture(), second.capture(), third.capture())
        });
        let items = |count: usize| assert_eq!(count, 10);
        items(captured.0.extract().into_iter().map(|(_, items)| items.len()).sum());
        items(captured.1.extract().into_iter().map(|(_, items)| items.len()).sum());
        items(captured.2.extract().into_iter().map(|(_, items)| items.len()).sum());
    }
}
