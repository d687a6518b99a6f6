//! A pair of connected sockets for messages of one size, each with a descriptor if need be: between
//! a pool's caller, its zygote and its workers. Neither side ever waits for the other to read.
//!
//! Allocates nothing: both sides may be forked children.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Words of a message.
pub(crate) const MESSAGE_WORDS: usize = 6;

/// A message: as many words, whatever they mean.
pub(crate) type Message = [u64; MESSAGE_WORDS];

const MESSAGE_BYTES: usize = MESSAGE_WORDS * size_of::<u64>();

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What there is to be received.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Message, Option<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// Nothing any more: the other end is closed, or what came is no message.
    Closed,
}

impl Channel {
    /// Both ends. A stream, since the kernel lets few datagrams wait: what is sent in one piece of
    /// this size stays in one.
    ///
    /// # Errors
    /// Too many descriptors.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message, and a descriptor with it. `false` when the other side has read too little
    /// for there to be room.
    ///
    /// # Errors
    /// That of `sendmsg`: the other end is closed, or too many descriptors are under way.
    pub(crate) fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let bytes: &[u8] = bytemuck::cast_slice(message);
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(
                &self.0,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            )
        });
        match sent {
            Ok(MESSAGE_BYTES) => Ok(true),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives a message, if there is one; or waits for one.
    pub(crate) fn receive(&self, wait: bool) -> Received {
        let mut message = Message::default();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags =
            if wait { RecvFlags::WAITALL } else { RecvFlags::DONTWAIT } | RecvFlags::CMSG_CLOEXEC;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut message);
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], &mut control, flags);
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match received {
            Ok(received) if received.bytes == MESSAGE_BYTES => Received::Message(message, fd),
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            _ => Received::Closed,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn messages_arrive_one_by_one_with_their_descriptors() {
        let (here, there) = Channel::pair().unwrap();
        assert!(matches!(there.receive(false), Received::Nothing));
        let file = tempfile::tempfile().unwrap();
        assert!(here.send(&[1; MESSAGE_WORDS], Some(file.as_fd())).unwrap());
        assert!(here.send(&[2; MESSAGE_WORDS], None).unwrap());
        assert!(here.send(&[3; MESSAGE_WORDS], Some(file.as_fd())).unwrap());
        for (word, with_fd) in [(1, true), (2, false), (3, true)] {
            let Received::Message(message, fd) = there.receive(true) else {
                panic!("no message {word}")
            };
            assert_eq!((message, fd.is_some()), ([word; MESSAGE_WORDS], with_fd));
            let inode = |file: &File| file.metadata().unwrap().ino();
            assert!(fd.is_none_or(|fd| inode(&fd.into()) == inode(&file)));
        }
        drop(here);
        assert!(matches!(there.receive(true), Received::Closed));
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (here, there) = Channel::pair().unwrap();
        let sent = (0..100_000).find(|_| !here.send(&[7; MESSAGE_WORDS], None).unwrap());
        assert!(sent.is_some_and(|sent| sent > 100), "{sent:?}");
        assert!(matches!(there.receive(false), Received::Message(..)));
    }
}
