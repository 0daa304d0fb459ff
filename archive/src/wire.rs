//! The encoding of everything that is not payload: numbers, strings, lists.
//!
//! **Promise.** Reading never panics and never allocates more than the input could hold, whatever
//! the bytes are.
//!
//! **How.** A number is a LEB128 varint (seven bits a byte, lowest first); bytes and strings are a
//! length and the bytes; a list is a count and its members. A record starts with its version;
//! a reader ignores what follows the last field that it knows, so that fields can be added.

use crate::error::{Error, Result};

/// Builds one record.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(crate) fn count(&mut self, value: usize) -> &mut Self {
        self.number(value as u64)
    }

    /// Bytes whose length the reader knows.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).fixed(bytes)
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads one record; `subject` is the object that errors name.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    subject: &'a str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], subject: &'a str) -> Self {
        Self { rest: bytes, subject }
    }

    pub(crate) fn damaged(&self, detail: &'static str) -> Error {
        Error::damaged(self.subject, detail)
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number is too long"))
    }

    pub(crate) fn number_u32(&mut self) -> Result<u32> {
        let value = self.number()?;
        u32::try_from(value).map_err(|_| self.damaged("a number is too large"))
    }

    /// The count of a list whose members take at least `member_bytes_min` bytes each.
    pub(crate) fn count(&mut self, member_bytes_min: usize) -> Result<usize> {
        let count = self.number()?;
        let most = self.rest.len() / member_bytes_min.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(self.damaged("a list is longer than its object")),
        }
    }

    pub(crate) fn fixed(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.damaged("it ends too early"));
        };
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.fixed(N)?);
        Ok(bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count(1)?;
        self.fixed(length)
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.damaged("a name is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// Reads the version that a record starts with.
    pub(crate) fn version(&mut self, known: u64) -> Result<()> {
        match self.number()? {
            version if version == known => Ok(()),
            _ => Err(self.damaged("its version is not known to this program")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers: Vec<u64>, bytes: Vec<u8>, text: String) {
            let mut writer = Writer::default();
            writer.count(numbers.len());
            for number in &numbers {
                writer.number(*number);
            }
            writer.bytes(&bytes).text(&text);
            let record = writer.finish();
            let mut reader = Reader::new(&record, "record");
            let count = reader.count(1).unwrap();
            for number in &numbers[..count] {
                prop_assert_eq!(reader.number().unwrap(), *number);
            }
            prop_assert_eq!(reader.bytes().unwrap(), &bytes[..]);
            prop_assert_eq!(reader.text().unwrap(), text);
            prop_assert!(reader.array::<1>().is_err());
        }

        #[test]
        fn rubbish_is_refused_and_never_panics(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes, "record");
            while reader.text().is_ok() && !reader.rest.is_empty() {}
            let mut reader = Reader::new(&bytes, "record");
            while reader.number_u32().is_ok() {}
        }
    }
}
