//! Models of the board of a pool.

#[path = "../../../src/executor/pool/job_board.rs"]
mod job_board;

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::call::{A, B, KEY, World, digest_of};
use crate::engine::control::{CallKey, Owner};

use self::job_board::JobBoard;

/// What a socket or an eventfd is: what is sent before somebody waits is there when he does.
struct Channel(Mutex<u32>, Condvar);

impl Channel {
    fn new() -> Self {
        Self(Mutex::new(0), Condvar::new())
    }

    fn send(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_one();
    }

    fn receive(&self) {
        let mut sent = self.0.lock().unwrap();
        while *sent == 0 {
            sent = self.1.wait(sent).unwrap();
        }
        *sent -= 1;
    }
}

/// A board, all parts of which are there before others look for them.
fn new_board() -> JobBoard {
    let board = JobBoard::new(2).unwrap();
    assert!(!board.is_asleep(1) && !board.caller_sleeps() && board.sequence() == 0);
    assert!(board.read(1, &mut [0; 2]).is_none(), "nothing there");
    board
}

/// Two records are put on the board; a worker reads that of the sequence which it has seen, or
/// none.
pub(crate) fn records(_: Option<u32>) -> bool {
    let board = Arc::new(new_board());
    let reader = thread::spawn({
        let board = Arc::clone(&board);
        move || {
            for _ in 0..2 {
                let sequence = board.sequence();
                let mut buffer = [0; 2];
                if sequence != 0
                    && sequence.is_multiple_of(2)
                    && let Some(record) = board.read(sequence, &mut buffer)
                {
                    assert_eq!(record, [sequence, sequence + 10], "the record of another sequence");
                }
            }
        }
    });
    for sequence in [2, 4] {
        board.clear();
        board.put(&[sequence, sequence + 10]);
        assert_eq!(board.sequence(), sequence);
    }
    reader.join().unwrap();
    false
}

/// Two jobs are put on the board while a worker falls asleep: it takes up the second.
pub(crate) fn worker_sleeps(_: Option<u32>) -> bool {
    let (board, channel) = (Arc::new(new_board()), Arc::new(Channel::new()));
    let worker = thread::spawn({
        let (board, channel) = (Arc::clone(&board), Arc::clone(&channel));
        move || {
            let mut last_sequence = 0;
            while last_sequence != 4 {
                board.sleep_until_new(0, last_sequence, || channel.receive());
                last_sequence = board.sequence();
            }
        }
    });
    for sequence in [2, 4] {
        board.clear();
        board.put(&[sequence]);
        if board.is_asleep(0) {
            channel.send();
        }
    }
    worker.join().unwrap();
    false
}

/// The end of a worker's part in a call, as `run` in `src/executor/pool/worker.rs` has it.
fn wake_if_over(board: &JobBoard, world: &World, key: CallKey, wakeup: &Channel) {
    if board.caller_sleeps() && world.control(key).is_over(&world.blocks) {
        wakeup.send();
    }
}

/// The caller's sleep, as `reap_ended` in `src/executor/pool/call_workers.rs` has it.
fn sleep_until_over(board: &JobBoard, world: &World, key: CallKey, wakeup: &Channel) {
    while !world.look(key, &world.unit_rows()).1 {
        board.set_caller_sleeps(true);
        if !world.control(key).is_over(&world.blocks) {
            wakeup.receive();
        }
        board.set_caller_sleeps(false);
    }
}

/// Two workers do one block each, while the caller falls asleep: one of them wakes it, or it sees
/// that all is done.
pub(crate) fn caller_sleeps(_: Option<u32>) -> bool {
    let world = Arc::new(World::new(2, 1));
    let (board, wakeup) = (Arc::new(new_board()), Arc::new(Channel::new()));
    let workers = [(0, A), (1, B)].map(|(index, owner)| {
        let (world, board, wakeup) = (Arc::clone(&world), Arc::clone(&board), Arc::clone(&wakeup));
        thread::spawn(move || {
            let block = world.blocks.get(index).unwrap();
            let rows = block.rows();
            let claim = world.control(KEY).claims(2).try_claim(block, owner).unwrap();
            world.write(index, index + 700);
            claim.publish(digest_of(index, &rows));
            wake_if_over(&board, &world, KEY, &wakeup);
        })
    });
    sleep_until_over(&board, &world, KEY, &wakeup);
    for worker in workers {
        worker.join().unwrap();
    }
    false
}

/// Two calls of one block each, one after the other on the same memory, by two workers who sleep
/// when there is nothing to do; the caller writes to the output between them.
pub(crate) fn two_calls(_: Option<u32>) -> bool {
    const KEYS: [CallKey; 2] = [KEY, CallKey { number: KEY.number + 1, ..KEY }];
    let world = Arc::new(World::new(1, 1));
    let (board, wakeup) = (Arc::new(new_board()), Arc::new(Channel::new()));
    let channels = Arc::new([Channel::new(), Channel::new()]);
    let workers = [A, B].map(|owner: Owner| {
        let (world, board, wakeup, channels) =
            (Arc::clone(&world), Arc::clone(&board), Arc::clone(&wakeup), Arc::clone(&channels));
        thread::spawn(move || {
            let slot = usize::from(owner.slot);
            let mut last_sequence = 0;
            while last_sequence != 4 {
                board.sleep_until_new(slot, last_sequence, || channels[slot].receive());
                let Some(sequence) = board.new_sequence(last_sequence) else { continue };
                last_sequence = sequence;
                let mut buffer = [0; 2];
                if let Some(record) = board.read(sequence, &mut buffer) {
                    let key =
                        CallKey { nonce: record[0], number: u32::try_from(record[1]).unwrap() };
                    world.work(key, owner);
                    wake_if_over(&board, &world, key, &wakeup);
                }
            }
        })
    });
    for key in KEYS {
        board.clear();
        world.write(0, 0);
        world.control(key).reset();
        board.put(&[key.nonce, key.number.into()]);
        (0..2).filter(|&slot| board.is_asleep(slot)).for_each(|slot| channels[slot].send());
        sleep_until_over(&board, &world, key, &wakeup);
    }
    for worker in workers {
        worker.join().unwrap();
    }
    false
}
