//! An open file, pipe or connection that changes hands.
//!
//! Both sides live in one process, so the number is the object; whoever holds the wrapper owns it
//! and closes it.

use abi_stable::StableAbi;

/// The platform's owned handle of an open file, pipe or connection.
#[cfg(unix)]
pub type OwnedDescriptor = std::os::fd::OwnedFd;
/// The platform's owned handle of an open file, pipe or connection.
#[cfg(windows)]
pub type OwnedDescriptor = std::os::windows::io::OwnedHandle;

/// An owned descriptor as it crosses.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct AbiDescriptor {
    pub(super) raw: i64,
}

impl From<OwnedDescriptor> for AbiDescriptor {
    #[cfg(unix)]
    fn from(owned: OwnedDescriptor) -> Self {
        use std::os::fd::IntoRawFd;
        Self { raw: i64::from(owned.into_raw_fd()) }
    }

    #[cfg(windows)]
    fn from(owned: OwnedDescriptor) -> Self {
        use std::os::windows::io::IntoRawHandle;
        Self { raw: owned.into_raw_handle() as isize as i64 }
    }
}

impl AbiDescriptor {
    pub(super) fn into_owned(self) -> OwnedDescriptor {
        let this = std::mem::ManuallyDrop::new(self);
        this.take()
    }

    /// The owner behind the number. Called once in the life of a value: by `into_owned`, which
    /// forgets the value, or by `drop`.
    #[cfg(unix)]
    #[allow(clippy::cast_possible_truncation)]
    fn take(&self) -> OwnedDescriptor {
        use std::os::fd::FromRawFd;
        // SAFETY: `raw` came from `into_raw_fd` in `from`, and is taken once.
        unsafe { OwnedDescriptor::from_raw_fd(self.raw as i32) }
    }

    #[cfg(windows)]
    #[allow(clippy::cast_possible_truncation)]
    fn take(&self) -> OwnedDescriptor {
        use std::os::windows::io::FromRawHandle;
        // SAFETY: `raw` came from `into_raw_handle` in `from`, and is taken once.
        unsafe { OwnedDescriptor::from_raw_handle(self.raw as isize as *mut _) }
    }
}

impl Drop for AbiDescriptor {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[cfg_attr(miri, ignore = "Miri's sockets have no such writes")]
    #[test]
    fn a_connection_changes_hands_and_is_closed_by_its_last_owner() {
        let (mut near, far) = UnixStream::pair().expect("a socket pair");
        let mut far =
            UnixStream::from(AbiDescriptor::from(OwnedDescriptor::from(far)).into_owned());
        far.write_all(b"hello").expect("the other end is open");
        drop(AbiDescriptor::from(OwnedDescriptor::from(far)));
        let mut heard = String::new();
        near.read_to_string(&mut heard).expect("the other end was closed");
        assert_eq!(heard, "hello");
    }
}
