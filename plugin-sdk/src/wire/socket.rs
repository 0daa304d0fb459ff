//! Frames and descriptors over a Unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::frame::{Decoder, Descriptors, Outgoing, WireError};

/// A frame carries one descriptor, and a read ends with the message that one came with.
const DESCRIPTORS_MAX: usize = 4;

/// How far a read or a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Something was moved.
    Moved,
    /// Not now.
    Blocked,
    /// The other side has closed its end.
    Ended,
}

/// Reads once into `decoder` and `descriptors`. The descriptors are closed on exec.
pub(super) fn receive(
    socket: impl AsFd,
    decoder: &mut Decoder,
    descriptors: &mut Descriptors,
) -> io::Result<Flow> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut room = decoder.room();
    let received = {
        let mut parts = [IoSliceMut::new(room.bytes())];
        rustix::io::retry_on_intr(|| {
            recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        })
    };
    let received = match received {
        Ok(received) => received,
        Err(rustix::io::Errno::AGAIN) => return Ok(Flow::Blocked),
        // What the other side had not read when it died.
        Err(rustix::io::Errno::CONNRESET) => return Ok(Flow::Ended),
        Err(error) => return Err(error.into()),
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(owned) = message {
            descriptors.extend(owned);
        }
    }
    let too_many = descriptors.len() > DESCRIPTORS_MAX;
    if too_many || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, WireError::Descriptors));
    }
    room.filled(received.bytes);
    Ok(if received.bytes == 0 { Flow::Ended } else { Flow::Moved })
}

/// Sends what is left of `frame`, or as much as there is room for.
pub(crate) fn send(socket: impl AsFd, frame: &mut Outgoing) -> io::Result<Flow> {
    while frame.len() > 0 {
        let descriptor = frame.descriptor.take();
        let sent = {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let carried = descriptor.as_ref().map(AsFd::as_fd);
            if let Some(carried) = &carried {
                let pushed =
                    control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(carried)));
                assert!(pushed, "the space is made for one descriptor");
            }
            let parts = [IoSlice::new(&frame.head), IoSlice::new(&frame.payload)];
            rustix::io::retry_on_intr(|| {
                sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL)
            })
        };
        match sent {
            Ok(sent) => frame.sent(sent),
            Err(rustix::io::Errno::AGAIN) => {
                frame.descriptor = descriptor;
                return Ok(Flow::Blocked);
            }
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Ok(Flow::Ended),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Flow::Moved)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use bytes::Bytes;

    use super::super::{Handed, Receiver, Status, ToChild};
    use super::*;

    fn answer(handed: Option<Handed>) -> Outgoing {
        let message = ToChild::Answer { call: 1, status: Status::Ok, handed };
        Outgoing::new(&message, Bytes::from(vec![7; 3000])).expect("a short frame")
    }

    #[test]
    fn a_descriptor_arrives_with_its_message_and_the_senders_is_closed() {
        let (near, far) = UnixStream::pair().expect("a socket pair");
        let (mut here, there) = UnixStream::pair().expect("a socket pair");
        for mut frame in
            [answer(None), answer(Some(Handed::Descriptor)).with(Some(there.into())), answer(None)]
        {
            assert_eq!(send(&near, &mut frame).expect("there is room"), Flow::Moved);
        }
        let mut receiver = Receiver::<ToChild>::default();
        let mut got = Vec::new();
        while got.len() < 3 {
            match receiver.next().expect("sound frames") {
                Some(incoming) => got.push(incoming),
                None => assert_eq!(receiver.fill(&far).expect("readable"), Flow::Moved),
            }
        }
        assert_eq!(
            got.iter().map(|got| got.descriptor.is_some()).collect::<Vec<_>>(),
            [false, true, false]
        );
        // The only other end is the one that arrived.
        drop(got);
        assert_eq!(here.read(&mut [0]).expect("the end is closed"), 0);
    }

    #[test]
    fn a_message_without_its_descriptor_and_a_descriptor_without_a_message_are_errors() {
        let (near, far) = UnixStream::pair().expect("a socket pair");
        let mut receiver = Receiver::<ToChild>::default();
        send(&near, &mut answer(Some(Handed::Descriptor))).expect("there is room");
        receiver.fill(&far).expect("readable");
        assert_eq!(receiver.next().map(|_| ()), Err(WireError::NoDescriptor));

        let (near, far) = UnixStream::pair().expect("a socket pair");
        let mut receiver = Receiver::<ToChild>::default();
        let other = near.try_clone().expect("a clone");
        send(&near, &mut answer(None).with(Some(other.into()))).expect("there is room");
        receiver.fill(&far).expect("readable");
        assert!(receiver.next().expect("the message is sound").is_some());
        assert_eq!(receiver.next().map(|_| ()), Err(WireError::Descriptors));
    }
}
