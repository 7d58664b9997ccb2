//! Something that is worked on in turns, on a thread of its own while there is anything to do: it waits for files that
//! other processes lock. Whoever has to wait does so without a thread.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// How long the thread waits for more before it goes: each one that is new takes memory of its own for what it works with.
const LINGER: Duration = Duration::from_millis(2);

/// See the module.
pub struct Turns<S>(Arc<Shared<S>>);

struct Shared<S> {
    state: Mutex<S>,
    row: Mutex<Row<S>>,
    comes: Condvar,
}

type Turn<S> = Box<dyn FnOnce(&mut S) + Send>;

struct Row<S> {
    waiting: VecDeque<Turn<S>>,
    is_worked_on: bool,
}

impl<S: Send + 'static> Turns<S> {
    pub fn new(state: S) -> Turns<S> {
        let row = Mutex::new(Row { waiting: VecDeque::new(), is_worked_on: false });
        Turns(Arc::new(Shared { state: Mutex::new(state), row, comes: Condvar::new() }))
    }

    /// What comes of a turn; nothing where it fails.
    pub async fn take<T: Send + 'static>(&self, turn: impl FnOnce(&mut S) -> T + Send + 'static) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let turn = move |state: &mut S| drop(tell.send(turn(state)));
        let is_first = {
            let mut row = lock(&self.0.row);
            row.waiting.push_back(Box::new(turn));
            !std::mem::replace(&mut row.is_worked_on, true)
        };
        if is_first {
            let shared = self.0.clone();
            spawn_blocking(move || shared.work());
        } else {
            self.0.comes.notify_one();
        }
        told.await.ok()
    }
}

impl<S> Shared<S> {
    /// Until nobody waits any more. Whoever fails stops nobody else.
    fn work(&self) {
        while let Some(turn) = self.next() {
            let _ = catch_unwind(AssertUnwindSafe(|| turn(&mut lock(&self.state))));
        }
    }

    fn next(&self) -> Option<Turn<S>> {
        let waited = self.comes.wait_timeout_while(lock(&self.row), LINGER, |row| row.waiting.is_empty());
        let (mut row, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let next = row.waiting.pop_front();
        row.is_worked_on = next.is_some();
        next
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_has_his_turn_and_who_fails_stops_nobody() {
        let turns = Turns::new(Vec::new());
        let push = |number| turns.take(move |numbers: &mut Vec<u8>| numbers.push(number));
        assert_eq!(tokio::join!(push(1), push(2), push(3)), (Some(()), Some(()), Some(())));
        assert_eq!(turns.take(|_| -> () { panic!("as it is meant to") }).await, None);
        assert_eq!(turns.take(|numbers| numbers.clone()).await, Some(vec![1, 2, 3]));
    }
}
