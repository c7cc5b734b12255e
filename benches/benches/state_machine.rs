//! The state machine: a whole processing and its completion, every step answered at once from canned answers, against taking
//! the same input and doing nothing with it.

mod settings;

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tollgate::proto::completion::{Completion, CompletionStep};
use tollgate::proto::marks::Marks;
use tollgate::proto::partition_view::PartitionView;
use tollgate::proto::processing::{Disposition, Incoming, Processing, Settled, Step, Tokenless, Work};
use tollgate::proto::unit_of_work::Outgoing;
use tollgate::proto::{
    AttemptId, Audience, Body, CommitOutcome, Destination, EndpointName, EntryKey, Incarnation, ItemValue,
    LoadedPartition, MessageId, OutboxEntry, PartitionKey, StoreAlias, TokenRef, Version, codec,
};

/// Messages of one fold: the most that there can be.
const FOLD: u32 = 64;

/// What a processing gets, and what its store answers.
#[derive(Clone)]
struct Play {
    work: Work,
    entries: Vec<Bytes>,
}

fn to() -> Destination {
    Destination {
        endpoint: EndpointName::new("orders").expect("a valid name"),
        partition: PartitionKey::new("order/1").expect("a valid key"),
    }
}

/// Messages of the sender's commit that has this incarnation.
fn play(sender: u64, messages: u32, view: Option<PartitionView>, marks: Marks) -> Play {
    let sequence = Version::first(Incarnation(sender)).sequence();
    let store = StoreAlias::new("main").expect("a valid name");
    let mut work = Work::on(store.clone(), to().partition, AttemptId::new(1, 2), Incarnation(9));
    let mut entries = Vec::new();
    for index in 0..messages {
        let entry = OutboxEntry {
            message_id: MessageId::from_name("bench", &index.to_string()),
            to: to(),
            message_type: "shop.place-order".try_into().expect("a valid name"),
            headers: Vec::new(),
            body: Body::Inline(Bytes::from_static(b"{}")),
            audience: Audience::Tollgate,
            effects: Vec::new(),
        };
        let token = TokenRef {
            store: store.clone(),
            partition: PartitionKey::new("shop").expect("a valid key"),
            entry: EntryKey { sequence, index },
        };
        entries.push(codec::encode_entry(&entry));
        let envelope = Arc::new(entry.envelope(token, None));
        work.messages.push(Incoming::Message { envelope, tokenless: Tokenless::Refused });
    }
    (work.view, work.marks) = (view, marks);
    Play { work, entries }
}

/// Steps 1 to 5; each handler puts an item and sends a message.
fn process(play: Play) -> Settled {
    let Play { work, entries } = play;
    let mut step = Processing::begin(work);
    loop {
        step = match step {
            Step::Load(load) => load.answer(Ok(LoadedPartition::default())),
            Step::ReadTokens(read) => {
                black_box(read.requests());
                read.answer(entries.iter().map(|entry| Ok(Some(entry.clone()))).collect())
            }
            Step::Handle(mut handle) => {
                let work = handle.unit_of_work();
                work.put(
                    "state".try_into().expect("a valid name"),
                    ItemValue::Json(Bytes::from_static(b"1")),
                );
                work.send(Outgoing {
                    to: to(),
                    message_type: "shop.order-placed".try_into().expect("a valid name"),
                    headers: Vec::new(),
                    body: Body::Inline(Bytes::from_static(b"{}")),
                    audience: Audience::Tollgate,
                    effects: Vec::new(),
                });
                handle.succeeded()
            }
            Step::Commit(commit) => {
                black_box(commit.request());
                commit.answer(Ok(CommitOutcome::Committed { session: None }))
            }
            Step::Recover(_) | Step::WakeUp(_) => unreachable!("nothing is pending, and there is no request"),
            Step::Settled(settled) => return settled,
        };
    }
}

/// Steps 7 to 9.
fn complete(completion: Completion) -> Marks {
    let mut step = completion.begin();
    loop {
        step = match step {
            CompletionStep::Publish(publish) => {
                let answers = publish.publications().iter().map(|_| Ok(())).collect();
                publish.answer(answers)
            }
            CompletionStep::Consume(consume) => {
                let answers = consume.tokens().iter().map(|_| Ok(None)).collect();
                consume.answer(answers)
            }
            CompletionStep::Done(report) => return report.marks,
            _ => unreachable!("there are no side effects, and the outputs are known"),
        };
    }
}

fn whole(play: Play) -> (Vec<Disposition>, Option<PartitionView>, Marks) {
    let settled = process(play);
    let marks = complete(settled.completion.expect("what was committed is to be completed"));
    (settled.dispositions, settled.view, marks)
}

/// A partition as the messages before have left it: cached, its finished entries still listed.
fn warm(messages: u32) -> Play {
    let (dispositions, view, marks) = whole(play(1, messages, None, Marks::default()));
    assert!(dispositions.iter().all(|disposition| *disposition == Disposition::Committed));
    play(2, messages, view, marks)
}

fn state_machine(criterion: &mut Criterion) {
    for (name, play) in [
        ("one_message_warm", warm(1)),
        ("one_message_cold", self::play(1, 1, None, Marks::default())),
        ("64_messages_folded_warm", warm(FOLD)),
    ] {
        let mut group = criterion.benchmark_group(format!("state_machine/{name}"));
        group.throughput(Throughput::Elements(play.entries.len() as u64));
        group.bench_function("tollgate", |bencher| {
            bencher.iter_batched(|| play.clone(), whole, BatchSize::SmallInput);
        });
        group.bench_function("nothing", |bencher| {
            bencher.iter_batched(|| play.clone(), black_box, BatchSize::SmallInput);
        });
        group.finish();
    }
}

criterion_group! { name = benches; config = settings::quick(); targets = state_machine }
criterion_main!(benches);
