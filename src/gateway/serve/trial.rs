//! Work that is most often done at once: it is tried in a room that is used again and again, and takes one of its own
//! along only where it has to wait.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A room for one future at a time.
pub struct Trial<F>(Pin<Box<Option<F>>>);

/// Work that has begun and is not done.
pub struct Rest<F>(Pin<Box<Option<F>>>);

impl<F: Future> Trial<F> {
    pub fn new() -> Trial<F> {
        Trial(Box::pin(None))
    }

    /// What the work comes to, or what is left of it. It is put where it belongs before anybody waits: work is large.
    pub fn of(&mut self, work: F) -> impl Future<Output = Result<F::Output, Rest<F>>> {
        self.0.set(Some(work));
        poll_fn(|context| {
            Poll::Ready(match poll_within(&mut self.0, context) {
                Poll::Ready(done) => {
                    self.0.set(None);
                    Ok(done)
                }
                Poll::Pending => Err(Rest(mem::replace(&mut self.0, Box::pin(None)))),
            })
        })
    }
}

impl<F: Future> Future for Rest<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        poll_within(&mut self.0, context)
    }
}

fn poll_within<F: Future>(room: &mut Pin<Box<Option<F>>>, context: &mut Context<'_>) -> Poll<F::Output> {
    room.as_mut().as_pin_mut().expect("the work was put there").poll(context)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_room_is_free_again_whatever_became_of_the_work() {
        let mut trial = Trial::new();
        let work = |number: u8, wait: Option<oneshot::Receiver<()>>| async move {
            if let Some(wait) = wait {
                wait.await.expect("it is told");
            }
            number
        };
        assert_eq!(trial.of(work(1, None)).await.ok(), Some(1));
        let (go, wait) = oneshot::channel();
        let Err(rest) = trial.of(work(2, Some(wait))).await else { panic!("it waits") };
        assert_eq!(trial.of(work(3, None)).await.ok(), Some(3));
        go.send(()).expect("it is waited for");
        assert_eq!(rest.await, 2);
    }
}
