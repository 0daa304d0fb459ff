//! What a caller says first, and what the host says to one that it does not pass on.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
};

use super::refusal::Refusal;

/// So much is set aside before anything of a message is there.
const AHEAD: u32 = 4 << 10;

/// Reads one message of up to `bytes_max` bytes, and nothing after it.
///
/// Descriptors that come along are closed: the system does so when what they came with is read by
/// who has no room for them.
pub(super) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    bytes_max: u32,
) -> Result<Vec<u8>, Refusal> {
    let ended = |error: std::io::Error| Refusal::new("ingress.ended", error.to_string());
    let mut length = [0; 4];
    from.read_exact(&mut length).await.map_err(ended)?;
    let length = u32::from_be_bytes(length);
    if length > bytes_max {
        let why = format!("a first message of {length} bytes, and {bytes_max} is the most");
        return Err(Refusal::new("ingress.too_long", why));
    }
    // As much memory as was really said, whatever was announced.
    let mut message = Vec::with_capacity(length.min(AHEAD) as usize);
    from.take(length.into()).read_to_end(&mut message).await.map_err(ended)?;
    match message.len() == length as usize {
        true => Ok(message),
        false => {
            let why = format!("{} of {length} bytes were said", message.len());
            Err(Refusal::new("ingress.ended", why))
        }
    }
}

/// Says `answer`, as it is, and hangs up.
pub(super) async fn tell(mut caller: UnixStream, answer: &[u8]) {
    if !answer.is_empty() && write(&mut caller, answer).await.is_err() {
        tracing::debug!("a caller did not wait for its answer");
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), answer: &[u8]) -> std::io::Result<()> {
    to.write_all(answer).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use super::*;

    async fn check(said: &[u8], expected: Result<&[u8], &str>) {
        let mut from = said;
        let read = read(&mut from, 8).await;
        let read = read.as_deref().map_err(|refusal| refusal.code.as_str());
        assert_eq!(read, expected, "{said:02x?}");
    }

    #[tokio::test]
    async fn a_first_message_is_its_length_and_its_bytes() {
        check(b"\0\0\0\x05hello", Ok(b"hello")).await;
        check(b"\0\0\0\0", Ok(b"")).await;
        check(b"\0\0\0\x08eight by", Ok(b"eight by")).await;
        check(b"\0\0\0\x09nine byte", Err("ingress.too_long")).await;
        check(b"\xff\xff\xff\xff", Err("ingress.too_long")).await;
        check(b"", Err("ingress.ended")).await;
        check(b"\0\0\0", Err("ingress.ended")).await;
        check(b"\0\0\0\x05hell", Err("ingress.ended")).await;
    }

    #[tokio::test]
    async fn what_follows_is_left_where_it_is() {
        let mut from: &[u8] = b"\0\0\0\x02hi and more";
        assert_eq!(read(&mut from, 8).await.unwrap(), b"hi");
        assert_eq!(from, b" and more");
    }
}
