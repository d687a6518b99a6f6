//! The messages between a pool's caller, its zygote and its workers, and how they become words.
//!
//! `sys::channel` carries the words. Both ends run the same program, so there is no version. A
//! message that cannot be decoded is skipped.

use crate::engine::control::Owner;
use crate::sys::channel::{MESSAGE_WORDS, Message};
use crate::sys::process::Exit;

/// From the caller to a worker. Each message names a generation, and a worker of another generation
/// skips it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToWorker {
    /// The slot is clear: begin. `sent` is how many messages were sent to the slot up to this one,
    /// modulo 2<sup>32</sup>.
    Welcome { sent: u32 },
    /// Map a segment, whose file comes with the message. `len` is in bytes, `caller_address` is
    /// where the caller has it.
    Map { id: u64, len: usize, caller_address: usize },
    /// Unmap a segment.
    Unmap { id: u64 },
    /// Look at the board again.
    Wake,
    /// Exit: there is no room for more segments.
    Leave,
}

/// From the caller to the zygote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToZygote {
    /// Send SIGKILL to a worker, because the caller has no pidfd for it.
    Kill(Owner),
    /// The caller has read all messages that there were.
    Seen,
    /// Kill and reap all workers, and exit.
    End,
}

/// From the zygote to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToCaller {
    /// A worker was forked and waits to be admitted. Its pidfd comes with the message, if there are
    /// pidfds and this one could be sent.
    Born { owner: Owner, pid: i32 },
    /// A worker is dead and reaped.
    Died { owner: Owner, exit: Exit },
    /// The fork of a worker for this slot was refused; the zygote tries again.
    Refused { slot: u16, errno: i32 },
    /// The zygote has forked, or tried to fork, this many workers while the caller did not look,
    /// and forks no more.
    Spent { respawns: u32 },
}

/// Slot and generation in the low 32 bits of a word.
fn word_of(owner: Owner) -> u64 {
    u64::from(owner.slot) | u64::from(owner.generation) << 16
}

#[expect(clippy::cast_possible_truncation, reason = "16-bit fields are cut out of the word")]
fn owner_of(word: u64) -> Owner {
    Owner { slot: word as u16, generation: (word >> 16) as u16 }
}

/// A message of these words; the rest of it is zero.
fn message(words: [u64; 5]) -> Message {
    let mut message = [0; MESSAGE_WORDS];
    message[..words.len()].copy_from_slice(&words);
    message
}

/// The inverse of [`word`]; 0 for what is no `i32`.
fn int(word: u64) -> i32 {
    i32::try_from(word.cast_signed()).unwrap_or(0)
}

fn word(int: i32) -> u64 {
    i64::from(int).cast_unsigned()
}

impl ToWorker {
    pub(super) fn encode(self, generation: u16) -> Message {
        let generation = u64::from(generation);
        message(match self {
            Self::Welcome { sent } => [1, generation, sent.into(), 0, 0],
            Self::Map { id, len, caller_address } => {
                [2, generation, id, len as u64, caller_address as u64]
            }
            Self::Unmap { id } => [3, generation, id, 0, 0],
            Self::Wake => [4, generation, 0, 0, 0],
            Self::Leave => [5, generation, 0, 0, 0],
        })
    }

    /// The message, if it is one, and for this generation.
    pub(super) fn decode([kind, to, words @ ..]: Message, generation: u16) -> Option<Self> {
        let size = |word: u64| usize::try_from(word).ok();
        if to != u64::from(generation) {
            return None;
        }
        Some(match kind {
            1 => Self::Welcome { sent: u32::try_from(words[0]).ok()? },
            2 => Self::Map { id: words[0], len: size(words[1])?, caller_address: size(words[2])? },
            3 => Self::Unmap { id: words[0] },
            4 => Self::Wake,
            5 => Self::Leave,
            _ => return None,
        })
    }
}

impl ToZygote {
    pub(super) fn encode(self) -> Message {
        message(match self {
            Self::Kill(owner) => [1, word_of(owner), 0, 0, 0],
            Self::Seen => [2, 0, 0, 0, 0],
            Self::End => [3, 0, 0, 0, 0],
        })
    }

    pub(super) fn decode([kind, first, ..]: Message) -> Option<Self> {
        match kind {
            1 => Some(Self::Kill(owner_of(first))),
            2 => Some(Self::Seen),
            3 => Some(Self::End),
            _ => None,
        }
    }
}

impl ToCaller {
    pub(super) fn encode(self) -> Message {
        message(match self {
            Self::Born { owner, pid } => [1, word_of(owner), word(pid), 0, 0],
            Self::Died { owner, exit } => {
                let (how, number) = match exit {
                    Exit::Code(code) => (0, code),
                    Exit::Signal(signal) => (1, signal),
                    Exit::Unknown => (2, 0),
                };
                [2, word_of(owner), how, word(number), 0]
            }
            Self::Refused { slot, errno } => [3, slot.into(), word(errno), 0, 0],
            Self::Spent { respawns } => [4, respawns.into(), 0, 0, 0],
        })
    }

    pub(super) fn decode([kind, first, second, third, ..]: Message) -> Option<Self> {
        let exit = || match second {
            0 => Exit::Code(int(third)),
            1 => Exit::Signal(int(third)),
            _ => Exit::Unknown,
        };
        Some(match kind {
            1 => Self::Born { owner: owner_of(first), pid: int(second) },
            2 => Self::Died { owner: owner_of(first), exit: exit() },
            3 => Self::Refused { slot: owner_of(first).slot, errno: int(second) },
            4 => Self::Spent { respawns: u32::try_from(first).unwrap_or(u32::MAX) },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { slot: 513, generation: 65_535 };

    #[test]
    fn what_is_sent_is_what_arrives() {
        let exits = [Exit::Code(101), Exit::Code(-1), Exit::Signal(9), Exit::Unknown];
        let died = exits.map(|exit| ToCaller::Died { owner: OWNER, exit });
        let others = [
            ToCaller::Born { owner: OWNER, pid: i32::MAX },
            ToCaller::Refused { slot: 513, errno: 11 },
            ToCaller::Spent { respawns: 7 },
        ];
        for message in died.into_iter().chain(others) {
            assert_eq!(ToCaller::decode(message.encode()), Some(message));
        }
        for message in [ToZygote::Kill(OWNER), ToZygote::Seen, ToZygote::End] {
            assert_eq!(ToZygote::decode(message.encode()), Some(message));
        }
        let map = ToWorker::Map { id: u64::MAX, len: usize::MAX, caller_address: 4096 };
        for message in [
            ToWorker::Welcome { sent: 9 },
            map,
            ToWorker::Unmap { id: 3 },
            ToWorker::Wake,
            ToWorker::Leave,
        ] {
            assert_eq!(ToWorker::decode(message.encode(7), 7), Some(message));
            assert_eq!(ToWorker::decode(message.encode(7), 8), None, "for its predecessor");
        }
    }
}
