//! A state's data as the journal keeps it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::Fault;

/// Opaque bytes to everyone but the state that they belong to.
///
/// [`Data::encode`] writes JSON, which an operator can read with any SQLite tool; a state that
/// wants another form wraps it in its own serde implementation. In a message, data that is text
/// travels as a string, anything else as a list of numbers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Data(Vec<u8>);

impl Data {
    /// Wraps bytes that came from a journal or over a boundary.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Data(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are text.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Writes `value` as JSON.
    ///
    /// # Errors
    ///
    /// A [`Class::Bug`](crate::Class::Bug) fault if the value has no JSON form (a map with keys
    /// that are not text, say).
    pub fn encode<T: Serialize>(value: &T) -> Result<Self, Fault> {
        serde_json::to_vec(value).map(Data).map_err(|error| {
            Fault::bug("data.encode", format!("{} has no JSON form", short_name::<T>()))
                .caused_by(&error)
        })
    }

    /// Reads a value that [`Data::encode`] wrote.
    ///
    /// # Errors
    ///
    /// A [`Class::Permanent`](crate::Class::Permanent) fault if the bytes are not such a value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.0).map_err(|error| {
            Fault::permanent("data.decode", format!("the data is no {}", short_name::<T>()))
                .caused_by(&error)
        })
    }
}

/// A type's name without its path.
fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_text() {
            Some(text) => write!(f, "Data({text})"),
            None => write!(f, "Data({} bytes)", self.0.len()),
        }
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_text() {
            Some(text) => serializer.serialize_str(text),
            None => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Text(text) => Data(text.into_bytes()),
            Form::Bytes(bytes) => Data(bytes),
        })
    }
}
