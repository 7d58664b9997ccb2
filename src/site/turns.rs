//! Something that is worked on in turns, on a thread of its own while there is anything to do: it waits for files that
//! other processes lock. Whoever has to wait does so without a thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// See the module.
pub struct Turns<S>(Arc<Shared<S>>);

struct Shared<S> {
    state: Mutex<S>,
    row: Mutex<Row<S>>,
}

type Turn<S> = Box<dyn FnOnce(&mut S) + Send>;

struct Row<S> {
    waiting: VecDeque<Turn<S>>,
    is_worked_on: bool,
}

impl<S: Send + 'static> Turns<S> {
    pub fn new(state: S) -> Turns<S> {
        let row = Mutex::new(Row { waiting: VecDeque::new(), is_worked_on: false });
        Turns(Arc::new(Shared { state: Mutex::new(state), row }))
    }

    /// What comes of a turn; nothing where the runtime ends before.
    pub async fn take<T: Send + 'static>(&self, turn: impl FnOnce(&mut S) -> T + Send + 'static) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let turn = move |state: &mut S| drop(tell.send(turn(state)));
        let is_first = {
            let mut row = lock(&self.0.row);
            row.waiting.push_back(Box::new(turn));
            !std::mem::replace(&mut row.is_worked_on, true)
        };
        if is_first {
            let work = Work { shared: self.0.clone(), is_done: false };
            spawn_blocking(move || work.run());
        }
        told.await.ok()
    }
}

struct Work<S> {
    shared: Arc<Shared<S>>,
    is_done: bool,
}

impl<S> Work<S> {
    /// Until nobody waits any more.
    fn run(mut self) {
        while let Some(turn) = self.next() {
            turn(&mut lock(&self.shared.state));
        }
    }

    fn next(&mut self) -> Option<Turn<S>> {
        let mut row = lock(&self.shared.row);
        let next = row.waiting.pop_front();
        row.is_worked_on = next.is_some();
        self.is_done = next.is_none();
        next
    }
}

impl<S> Drop for Work<S> {
    /// Where a turn panicked, or the runtime ends: nobody waits for who does not work.
    fn drop(&mut self) {
        if !self.is_done {
            let mut row = lock(&self.shared.row);
            row.waiting.clear();
            row.is_worked_on = false;
        }
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
