use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

use super::*;

/// A broker that has messages ready and notes what it is told.
#[derive(Default)]
struct Desk {
    ready: Mutex<VecDeque<u32>>,
    orders: Mutex<Vec<usize>>,
    extended: Mutex<Vec<u32>>,
    given_back: Mutex<Vec<u32>>,
    arrived: Notify,
    is_deaf: AtomicBool,
    is_gone: AtomicBool,
}

struct Clerk(Arc<Desk>);

impl Fetcher<u32> for Clerk {
    const FETCH_MAX: usize = 10;
    const CLOSE_WAIT: Duration = Duration::from_secs(1);
    const FETCH_WITHIN: Duration = Duration::from_secs(25);

    fn fetch<'a>(&'a mut self, order: &'a Order<u32>) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.0.orders.lock().unwrap().push(order.missing());
        Box::pin(async move {
            while order.missing() > 0 {
                if self.0.is_gone.swap(false, Ordering::Relaxed) {
                    order.forget_all();
                }
                let next = self.0.ready.lock().unwrap().pop_front();
                match next {
                    Some(handle) => {
                        order.deliver(vec![Arrival { handle, envelope: Bytes::new(), delivery_count: 1 }]);
                    }
                    None => self.0.arrived.notified().await,
                }
            }
            Ok(())
        })
    }
}

impl Keeper<u32> for Desk {
    fn extend(&self, handles: Vec<u32>) -> BoxFuture<'_, ()> {
        self.extended.lock().unwrap().extend(handles);
        Box::pin(async {})
    }

    fn give_back(&self, handles: Vec<u32>) -> BoxFuture<'_, ()> {
        if self.is_deaf.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        self.given_back.lock().unwrap().extend(handles);
        Box::pin(async {})
    }
}

const SETTINGS: InboxSettings = InboxSettings {
    visibility_timeout: Duration::from_secs(30),
    hold_max: Duration::from_secs(300),
    prefetch: 2,
    in_flight_max: 6,
};

fn open(messages: u32, settings: InboxSettings) -> (Arc<Desk>, Inbox<u32>) {
    let desk = Arc::new(Desk::default());
    desk.ready.lock().unwrap().extend(0..messages);
    let endpoint = EndpointName::new("orders").unwrap();
    let counters = Arc::new(EndpointCounters::new(&endpoint));
    let keeper = Arc::clone(&desk) as Arc<dyn Keeper<u32>>;
    let inbox = Inbox::open(endpoint, settings, vec![Clerk(Arc::clone(&desk))], keeper, counters);
    (desk, inbox)
}

fn held(waiting: usize, unsettled: usize) -> Held {
    Held { waiting, unsettled }
}

async fn settle_in_time<T>(mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(done) = done() {
            return done;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not come to that");
}

#[tokio::test(start_paused = true)]
async fn no_more_is_taken_than_is_asked_for_and_may_be_unsettled() {
    let (desk, inbox) = open(100, SETTINGS);
    settle_in_time(|| (inbox.held() == held(2, 2)).then_some(())).await;
    let mut receipts = Vec::new();
    while receipts.len() < 6 {
        receipts.extend(inbox.receive(3).await.unwrap().into_iter().map(|delivery| delivery.receipt));
    }
    let mut waiting = pin!(inbox.receive(3));
    let nothing = tokio::time::timeout(Duration::from_secs(1), waiting.as_mut()).await;
    assert!(nothing.is_err(), "six are unsettled, and no more may be: {nothing:?}");
    assert_eq!(desk.ready.lock().unwrap().len(), 94);
    assert!(inbox.take(&receipts[0]).is_some());
    assert!(inbox.take(&receipts[0]).is_none(), "it is settled once");
    assert_eq!(waiting.await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_visibility_timeout_is_given_back_and_nothing_is_prefetched_then() {
    let (desk, inbox) = open(4, SETTINGS);
    settle_in_time(|| (inbox.held() == held(2, 2)).then_some(())).await;
    tokio::time::sleep(SETTINGS.visibility_timeout / 2).await;
    assert_eq!(desk.extended.lock().unwrap().len(), 2, "until then it is kept");
    tokio::time::sleep(SETTINGS.visibility_timeout).await;
    assert_eq!(*desk.given_back.lock().unwrap(), [0, 1]);
    assert_eq!(inbox.held(), Held::default());
    tokio::time::sleep(SETTINGS.visibility_timeout * 3).await;
    assert_eq!(desk.ready.lock().unwrap().len(), 2, "an idle process may have the rest");
    // A process in trouble takes one at a time, and has that one only.
    assert_eq!(inbox.receive(1).await.unwrap().len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(inbox.held(), held(0, 1));
    // One that takes many has some prepared again.
    desk.ready.lock().unwrap().extend(10..20);
    desk.arrived.notify_one();
    let taken = inbox.receive(3).await.unwrap().len();
    settle_in_time(|| (inbox.held() == held(2, 1 + taken + 2)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_never_answered_fails_and_is_made_anew() {
    let (desk, inbox) = open(0, SETTINGS);
    let failed = inbox.receive(4).await;
    assert!(
        matches!(failed, Ok(ref none) if none.is_empty()),
        "nothing has come in the time of a receiver: {failed:?}"
    );
    tokio::time::sleep(Clerk::FETCH_WITHIN).await;
    let failed = inbox.receive(4).await.unwrap_err();
    assert!(failed.to_string().contains("not answered"), "{failed}");
    desk.ready.lock().unwrap().extend(0..4);
    let mut answers = vec![inbox.receive(4).await, inbox.receive(4).await, inbox.receive(4).await];
    answers.retain(|answer| answer.as_ref().is_ok_and(|deliveries| !deliveries.is_empty()));
    assert!(!answers.is_empty(), "a new fetch finds what the dark one did not");
}

#[tokio::test(start_paused = true)]
async fn closing_ends_even_if_nothing_can_be_given_back() {
    let (desk, inbox) = open(2, SETTINGS);
    settle_in_time(|| (inbox.held() == held(2, 2)).then_some(())).await;
    desk.is_deaf.store(true, Ordering::Relaxed);
    tokio::time::timeout(TOLD_WITHIN * 2, inbox.close()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn receipts_of_a_queue_that_is_gone_settle_nothing() {
    let (desk, inbox) = open(1, SETTINGS);
    let delivery = inbox.receive(1).await.unwrap().remove(0);
    desk.is_gone.store(true, Ordering::Relaxed);
    desk.arrived.notify_one();
    settle_in_time(|| (inbox.held() == Held::default()).then_some(())).await;
    assert_eq!(inbox.held(), Held::default());
    assert!(inbox.take(&delivery.receipt).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_has_is_extended_until_it_is_settled_or_given_up() {
    let (desk, inbox) = open(2, SETTINGS);
    let mut deliveries = Vec::new();
    while deliveries.len() < 2 {
        deliveries.extend(inbox.receive(2).await.unwrap());
    }
    assert!(inbox.take(&deliveries[0].receipt).is_some());
    tokio::time::sleep(SETTINGS.hold_max).await;
    let extended = desk.extended.lock().unwrap().clone();
    assert!(extended.len() >= 20, "{extended:?}");
    assert!(extended.iter().all(|handle| *handle == 1), "the first one was settled: {extended:?}");
    tokio::time::sleep(SETTINGS.visibility_timeout * 3).await;
    let at_last = desk.extended.lock().unwrap().len();
    assert!(at_last <= extended.len() + 1, "it was given up: {at_last} after {}", extended.len());
    assert_eq!(inbox.held(), Held::default());
    assert!(inbox.take(&deliveries[1].receipt).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receive_leaves_its_messages_to_the_next() {
    let (desk, inbox) = open(0, SETTINGS);
    {
        let mut dropped = pin!(inbox.receive(4));
        assert!(tokio::time::timeout(Duration::from_secs(1), dropped.as_mut()).await.is_err());
        desk.ready.lock().unwrap().extend(0..4);
        desk.arrived.notify_one();
        settle_in_time(|| (inbox.held().waiting > 0).then_some(())).await;
    }
    assert!(!inbox.receive(4).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn closing_gives_back_what_nobody_has_seen_and_ends_receivers() {
    let (desk, inbox) = open(5, SETTINGS);
    let delivery = inbox.receive(1).await.unwrap().remove(0);
    settle_in_time(|| (inbox.held() == held(2, 3)).then_some(())).await;
    inbox.close().await;
    assert_eq!(*desk.given_back.lock().unwrap(), [1, 2]);
    assert!(matches!(inbox.receive(1).await, Err(BrokerError::Closed { .. })));
    assert!(inbox.take(&delivery.receipt).is_some(), "what is being worked on can still be settled");
}
