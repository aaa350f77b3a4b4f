//! Lanes: calls wait in line, and whatever has come while a post was under way goes with the next one.
//!
//! A post is one transaction of the ledger, which costs about the same with one event as with fifty. So a lane has one
//! under way at a time, and who calls alone is posted at once. Callers that were answered together call again one after
//! the other: a post that began with the first of them would leave the rest to the next one, and every other post would
//! be of one call. So a lane waits for as many as were answered last, for a part of the time that their post took.
//!
//! What is refused as a whole is tried call by call, so that nobody waits for the fault of another.

use std::{sync::Arc, time::Duration};

use drawdown_proto::ledger::v1::EventAnswer;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

use super::Unanswered;
use crate::{config::RecordOptions, peer};

/// A lane waits at most this part of the time that a post takes for callers who were answered by it.
const GATHERED_IN: u32 = 4;

/// All answers to the events of one call in one lane, or why there are none.
pub(super) type Told = Result<Vec<EventAnswer>, Unanswered>;

/// Events of one call that wait in a lane.
pub(super) struct Asked<E> {
    events: Vec<E>,
    answer: oneshot::Sender<Told>,
    /// Held as long as the events are, also where their caller has gone away.
    room: Arc<OwnedSemaphorePermit>,
}

impl<E> Asked<E> {
    /// Answers the call. Whoever does not wait any more does not need it.
    pub(super) fn tell(self, told: Told) {
        drop(self.answer.send(told));
    }

    /// What keeps the room of its events.
    pub(super) const fn room(&self) -> &Arc<OwnedSemaphorePermit> {
        &self.room
    }
}

/// What a lane leads to.
pub(super) trait Post: Send + Sync + 'static {
    /// What waits in it.
    type Event: Send + Sync;

    /// Posts events; one answer for each.
    fn post(
        &self,
        events: &[&Self::Event],
    ) -> impl Future<Output = Result<Vec<EventAnswer>, peer::Error>> + Send;

    /// Answers a call of a post that was answered.
    fn tell(&self, call: Asked<Self::Event>, told: Vec<EventAnswer>);
}

/// Where calls put their events.
pub(super) struct Lane<E>(mpsc::Sender<Asked<E>>);

impl<E: Send + Sync + 'static> Lane<E> {
    /// A lane, and what works it off until nobody can ask any more.
    pub(super) fn new<P: Post<Event = E>>(
        post: P,
        options: &RecordOptions,
    ) -> (Self, impl Future<Output = ()> + Send + use<E, P>) {
        let (sender, asked) = mpsc::channel(options.calls_per_slot_max.get());
        let worker = Worker { post, events_max: options.events_per_post_max.get(), asked, next: None };
        (Self(sender), worker.run())
    }

    /// Queues events; the answer comes when they are posted.
    pub(super) fn ask(
        &self,
        events: Vec<E>,
        room: &Arc<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Told>, Unanswered> {
        let (answer, told) = oneshot::channel();
        self.0.try_send(Asked { events, answer, room: Arc::clone(room) }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Shed,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Ending,
        })?;
        Ok(told)
    }
}

struct Worker<P: Post> {
    post: P,
    events_max: usize,
    asked: mpsc::Receiver<Asked<P::Event>>,
    /// A call that did not fit the post before.
    next: Option<Asked<P::Event>>,
}

/// How many calls are expected, and until when they are waited for.
#[derive(Clone, Copy)]
struct Expected {
    calls: usize,
    until: Instant,
}

impl<P: Post> Worker<P> {
    async fn run(mut self) {
        let mut expected = Expected { calls: 1, until: Instant::now() };
        while let Some(mut calls) = self.gather(expected).await {
            // Who has gone away asks again, or not: nothing of it is recorded yet.
            calls.retain(|call| !call.answer.is_closed());
            let (count, began) = (calls.len(), Instant::now());
            self.answer(calls).await;
            expected = Expected { calls: count, until: Instant::now() + gathering(began.elapsed()) };
        }
    }

    /// The calls of the next post; nothing where none can come any more.
    async fn gather(&mut self, expected: Expected) -> Option<Vec<Asked<P::Event>>> {
        let first = match self.next.take() {
            Some(first) => first,
            None => self.asked.recv().await?,
        };
        let mut events = first.events.len();
        let mut calls = vec![first];
        while let Some(more) = self.more(calls.len() < expected.calls, expected.until).await {
            events = events.saturating_add(more.events.len());
            if events > self.events_max {
                self.next = Some(more);
                break;
            }
            calls.push(more);
        }
        Some(calls)
    }

    /// A call that is there; where it is awaited, also one that comes in time.
    async fn more(&mut self, awaited: bool, until: Instant) -> Option<Asked<P::Event>> {
        match self.asked.try_recv() {
            Ok(more) => Some(more),
            Err(_) if awaited => tokio::time::timeout_at(until, self.asked.recv()).await.ok().flatten(),
            Err(_) => None,
        }
    }

    async fn answer(&self, calls: Vec<Asked<P::Event>>) {
        let all: Vec<&P::Event> = calls.iter().flat_map(|call| &call.events).collect();
        if all.is_empty() {
            return;
        }
        match self.post.post(&all).await {
            Ok(mut told) => {
                for call in calls {
                    let rest = told.split_off(call.events.len().min(told.len()));
                    self.post.tell(call, std::mem::replace(&mut told, rest));
                }
            }
            Err(error) if !error.is_transient() && calls.len() > 1 => {
                for call in calls {
                    let events: Vec<&P::Event> = call.events.iter().collect();
                    match self.post.post(&events).await {
                        Ok(told) => self.post.tell(call, told),
                        Err(error) => call.tell(Err(Unanswered::Peer(Arc::new(error)))),
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for call in calls {
                    call.tell(Err(Unanswered::Peer(Arc::clone(&error))));
                }
            }
        }
    }
}

/// For how long callers are waited for who were answered by a post that took so long.
fn gathering(took: Duration) -> Duration {
    took / GATHERED_IN
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Semaphore;

    use super::*;

    const POST: Duration = Duration::from_millis(8);

    /// Posts that take their time, and how many events each had.
    #[derive(Clone, Default)]
    struct Posted(Arc<Mutex<Vec<usize>>>);

    impl Post for Posted {
        type Event = u8;

        async fn post(&self, events: &[&u8]) -> Result<Vec<EventAnswer>, peer::Error> {
            tokio::time::sleep(POST).await;
            self.0.lock().unwrap().push(events.len());
            Ok(vec![EventAnswer::default(); events.len()])
        }

        fn tell(&self, call: Asked<u8>, told: Vec<EventAnswer>) {
            call.tell(Ok(told));
        }
    }

    fn lane() -> (Arc<Lane<u8>>, Posted) {
        let posted = Posted::default();
        let (lane, worker) = Lane::new(posted.clone(), &RecordOptions::default());
        tokio::spawn(worker);
        (Arc::new(lane), posted)
    }

    /// Calls so often, each time so long after the answer before, and gives how long all of it took.
    async fn caller(lane: Arc<Lane<u8>>, times: u32, pause: Duration) -> Duration {
        let room = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
        let began = Instant::now();
        for _ in 0..times {
            tokio::time::sleep(pause).await;
            lane.ask(vec![1], &room).unwrap().await.unwrap().unwrap();
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_calls_alone_never_waits_for_others() {
        let (lane, posted) = lane();
        assert_eq!(caller(lane, 5, Duration::ZERO).await, POST * 5);
        assert_eq!(*posted.0.lock().unwrap(), [1; 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_were_answered_together_are_posted_together_again() {
        let (lane, posted) = lane();
        let callers = (0..10).map(|n| {
            // They come back one after the other, the last of them still in time.
            tokio::spawn(caller(Arc::clone(&lane), 6, Duration::from_micros(150 * n)))
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        // The first one met nobody.
        let posted = posted.0.lock().unwrap().clone();
        assert_eq!((posted[0], &posted[1..5]), (1, &[9, 10, 10, 10][..]), "{posted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_come_back_costs_a_part_of_one_post() {
        let (lane, posted) = lane();
        let room = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
        let both = [lane.ask(vec![1], &room).unwrap(), lane.ask(vec![1], &room).unwrap()];
        for told in both {
            told.await.unwrap().unwrap();
        }
        let again = caller(lane, 2, Duration::ZERO).await;
        assert_eq!(*posted.0.lock().unwrap(), [2, 1, 1]);
        assert_eq!(again, POST * 2 + gathering(POST));
    }
}
