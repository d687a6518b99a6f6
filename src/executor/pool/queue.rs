//! [`Queue`]: lets the threads of the caller make one call at a time on a pool, in the order in
//! which they came.
//!
//! Every call on the workers enters it first. A mutex of `std` would not do: it goes to any thread
//! that asks while it is free, so among many threads some would wait for ever. This is no lock in
//! shared memory; a forked child does not use it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;

/// How often a waiting thread asks whether its call was given up.
const GIVE_UP_INTERVAL: Duration = Duration::from_millis(20);

/// The queue of one pool.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    /// The thread that makes a call now, or is about to.
    inside: Option<ThreadId>,
    /// The threads that wait, the first to be served in front.
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    /// The thread is inside now. Set once, by the thread that leaves.
    called: AtomicBool,
}

/// The right to make a call, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'q>(&'q Queue);

/// Why a thread is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This thread is inside already, or waits already: it would wait for itself.
    Inside,
    /// The call was given up while the thread waited.
    GaveUp,
}

impl Queue {
    /// Waits until all threads that came before have left. Asks `give_up` every
    /// [`GIVE_UP_INTERVAL`]. A thread that finds the queue empty is let in without being asked.
    pub(super) fn enter(&self, give_up: &dyn Fn() -> bool) -> Result<Turn<'_>, Refusal> {
        let me = thread::current();
        let mut line = self.line();
        match line.inside {
            None if line.waiting.is_empty() => {
                line.inside = Some(me.id());
                return Ok(Turn(self));
            }
            Some(inside) if inside == me.id() => return Err(Refusal::Inside),
            // The thread waits already. This is a call that its `give_up` makes.
            _ if line.waiting.iter().any(|waiter| waiter.thread.id() == me.id()) => {
                return Err(Refusal::Inside);
            }
            _ => {}
        }
        let waiter = Arc::new(Waiter { thread: me, called: AtomicBool::new(false) });
        line.waiting.push_back(Arc::clone(&waiter));
        drop(line);
        let place = Place { queue: self, waiter, is_called: Cell::new(false) };
        // Acquire: pairs with the Release in `leave`.
        while !place.waiter.called.load(Ordering::Acquire) {
            thread::park_timeout(GIVE_UP_INTERVAL);
            if give_up() {
                return Err(Refusal::GaveUp);
            }
        }
        place.is_called.set(true);
        Ok(Turn(self))
    }

    /// How many threads wait.
    pub(super) fn len(&self) -> usize {
        self.line().waiting.len()
    }

    /// Takes a waiting thread out of the line; `false` if it is called already.
    fn step_out(&self, waiter: &Arc<Waiter>) -> bool {
        let waiting = &mut self.line().waiting;
        let place = waiting.iter().position(|other| Arc::ptr_eq(other, waiter));
        place.is_some_and(|place| waiting.remove(place).is_some())
    }

    /// Lets the next thread in, if one waits.
    fn leave(&self) {
        let mut line = self.line();
        let next = line.waiting.pop_front();
        line.inside = next.as_ref().map(|next| next.thread.id());
        drop(line);
        if let Some(next) = next {
            next.called.store(true, Ordering::Release);
            next.thread.unpark();
        }
    }

    /// The line, locked. A panic under this lock leaves a whole line, so poison is ignored.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line. Its drop takes the thread out of the line, also when `give_up` panics.
struct Place<'q> {
    queue: &'q Queue,
    waiter: Arc<Waiter>,
    /// The thread is inside, and its [`Turn`] will leave for it.
    is_called: Cell<bool>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_called.get() && !self.queue.step_out(&self.waiter) {
            self.queue.leave(); // called at this very moment
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn never() -> bool {
        false
    }

    #[test]
    fn who_came_first_is_served_first() {
        let queue = Queue::default();
        let order = Mutex::new(Vec::new());
        let first = queue.enter(&never).unwrap();
        thread::scope(|scope| {
            for number in 0..8 {
                let (queue, order) = (&queue, &order);
                scope.spawn(move || {
                    let turn = queue.enter(&never).unwrap();
                    order.lock().unwrap().push(number);
                    drop(turn);
                });
                while queue.len() <= number {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn one_is_inside_at_a_time() {
        let (queue, inside) = (Queue::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let _turn = queue.enter(&never).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn who_is_inside_does_not_wait_for_itself() {
        let queue = Queue::default();
        let turn = queue.enter(&never).unwrap();
        assert_eq!(queue.enter(&never).unwrap_err(), Refusal::Inside);
        drop(turn);
        drop(queue.enter(&never).unwrap());
    }

    #[test]
    fn who_panics_in_the_line_is_not_waited_for() {
        let queue = Queue::default();
        let turn = queue.enter(&never).unwrap();
        thread::scope(|scope| {
            assert!(scope.spawn(|| queue.enter(&|| panic!("asked")).map(drop)).join().is_err());
        });
        assert_eq!(queue.len(), 0);
        drop(turn);
        drop(queue.enter(&never).unwrap());
    }

    #[test]
    fn who_gives_up_is_not_waited_for() {
        let queue = Queue::default();
        let turn = queue.enter(&never).unwrap();
        thread::scope(|scope| {
            let gave_up = scope.spawn(|| queue.enter(&|| true).map(drop).unwrap_err());
            assert_eq!(gave_up.join().unwrap(), Refusal::GaveUp);
        });
        assert_eq!(queue.len(), 0);
        drop(turn);
        drop(queue.enter(&never).unwrap());
    }
}
