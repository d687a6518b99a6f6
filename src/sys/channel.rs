//! A pair of connected sockets for messages of one size, each with a descriptor if need be.
//!
//! The sockets connect a pool's caller with its zygote and with each of its workers. Neither side
//! ever waits for the other to read: a sender that finds no room is told so, and goes on.
//!
//! Nothing here allocates, because both sides may be forked children.
//!
//! Descriptors travel as `SCM_RIGHTS`, see
//! [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// How many words a message has. All messages are equally long, so a reader of the stream knows
/// where the next one begins.
pub(crate) const MESSAGE_WORDS: usize = 6;

/// A message. What its words mean is for the two sides to agree.
pub(crate) type Message = [u64; MESSAGE_WORDS];

const MESSAGE_BYTES: usize = MESSAGE_WORDS * size_of::<u64>();

/// One end. Its drop closes the descriptor, and the other end then receives
/// [`Closed`](Received::Closed) after the messages that are still under way.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What a look at the channel has found.
#[derive(Debug)]
pub(crate) enum Received {
    /// A whole message, and the descriptor that came with it. The kernel drops a descriptor for
    /// which this process has no number free, so a message may arrive without the one that was
    /// sent.
    Message(Message, Option<OwnedFd>),
    /// No message is there now, or a signal has ended the wait.
    Nothing,
    /// No message will come any more: the other end is closed, or the bytes that came are no
    /// message.
    Closed,
}

impl Channel {
    /// Makes both ends.
    ///
    /// They are stream sockets, since the kernel lets few datagrams wait: what is sent in one piece
    /// of this size stays in one. They are close-on-exec: a program that the host starts must not
    /// hold an end open, or the death of the end's owner would never show as
    /// [`Closed`](Received::Closed).
    ///
    /// See [socketpair(2)](https://man7.org/linux/man-pages/man2/socketpair.2.html).
    ///
    /// # Errors
    /// Too many descriptors.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message, and a descriptor with it. Returns `false` if the other side has read too
    /// little for the message to find room.
    ///
    /// See [sendmsg(2)](https://man7.org/linux/man-pages/man2/sendmsg.2.html).
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
        // DONTWAIT: the receiver may be stopped or dead, and the caller must not hang with it.
        // NOSIGNAL: a closed end would otherwise raise SIGPIPE, which kills a host that leaves it
        // at its default.
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

    /// Receives a message if there is one. With `wait` it sleeps until one comes, the other end is
    /// closed, or a signal is handled.
    ///
    /// See [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html).
    pub(crate) fn receive(&self, wait: bool) -> Received {
        let mut message = Message::default();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // WAITALL: a sleeping receiver is woken for a whole message only. CMSG_CLOEXEC: without it
        // another thread's `exec` could inherit the descriptor in the instant before it is marked.
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
