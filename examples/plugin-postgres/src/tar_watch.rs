//! Reads a few lines of a base backup while it goes by.
//!
//! **Promise.** Bytes are looked at, never changed or held back. [`TarWatch::end`] answers only if
//! the whole archive went by: its last file is the manifest, which the program writes last.
//!
//! **How.** A `tar` archive is blocks of 512 bytes: a header, then the file. Headers are read with
//! the crate `tar`; of files, only the label and the end of the manifest are kept.

use plugin_sdk::Fault;
use serde::Deserialize;
use tar::Header;

use crate::lsn::Lsn;

const BLOCK: usize = 512;
const LABEL: &str = "backup_label";
const MANIFEST: &str = "backup_manifest";
/// The positions are at the manifest's end, behind a line for each file.
const MANIFEST_TAIL: usize = 4096;
const LABEL_MAX: usize = 64 << 10;

/// What a base backup says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Whose history.
    pub(crate) timeline: u32,
    /// Where replay begins.
    pub(crate) start: Lsn,
    /// The checkpoint that it begins with.
    pub(crate) checkpoint: Lsn,
    /// Where it is consistent.
    pub(crate) stop: Lsn,
}

/// The watch over one archive.
#[derive(Debug, Default)]
pub(crate) struct TarWatch {
    /// Of a header that has not gone by whole.
    header: Vec<u8>,
    /// Bytes of the file, and of the padding behind it, that have not gone by.
    file_left: u64,
    padding_left: u64,
    keeps: Option<Keeps>,
    label: Vec<u8>,
    manifest: Vec<u8>,
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Label,
    Manifest,
}

impl TarWatch {
    /// A watch over an archive of which nothing has gone by.
    pub(crate) fn new() -> Self {
        TarWatch::default()
    }

    /// Looks at the bytes that follow.
    pub(crate) fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.broken.is_none() {
            if self.file_left > 0 {
                let (file, rest) = split(bytes, self.file_left);
                self.keep(file);
                self.file_left -= file.len() as u64;
                bytes = rest;
            } else if self.padding_left > 0 {
                let (padding, rest) = split(bytes, self.padding_left);
                self.padding_left -= padding.len() as u64;
                bytes = rest;
            } else {
                let missing = BLOCK - self.header.len();
                let (part, rest) = split(bytes, missing as u64);
                self.header.extend_from_slice(part);
                bytes = rest;
                if self.header.len() == BLOCK {
                    self.enter();
                    self.header.clear();
                }
            }
        }
    }

    /// A header is complete.
    fn enter(&mut self) {
        if self.header.iter().all(|byte| *byte == 0) {
            // The end of the archive, or its second block.
            return;
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&self.header);
        let Ok(size) = header.entry_size() else {
            self.broken = Some("a header of the archive cannot be read");
            return;
        };
        self.file_left = size;
        self.padding_left = size.next_multiple_of(BLOCK as u64) - size;
        self.keeps = match header.path_bytes().as_ref() {
            path if path == LABEL.as_bytes() => Some(Keeps::Label),
            path if path == MANIFEST.as_bytes() => Some(Keeps::Manifest),
            _ => None,
        };
    }

    fn keep(&mut self, file: &[u8]) {
        match self.keeps {
            Some(Keeps::Label) if self.label.len() + file.len() <= LABEL_MAX => {
                self.label.extend_from_slice(file);
            }
            Some(Keeps::Label) => self.broken = Some("the label is too long"),
            Some(Keeps::Manifest) => {
                self.manifest.extend_from_slice(file);
                let surplus = self.manifest.len().saturating_sub(MANIFEST_TAIL);
                self.manifest.drain(..surplus);
            }
            None => {}
        }
    }

    /// What the backup says of itself, once all of it has gone by.
    ///
    /// # Errors
    ///
    /// A retryable fault if it is not whole.
    pub(crate) fn end(self) -> Result<Said, Fault> {
        let ended = self.file_left == 0 && self.padding_left == 0 && self.header.is_empty();
        let said = match (self.broken, ended) {
            (Some(why), _) => Err(why),
            (None, false) => Err("it ends within a file"),
            (None, true) => read(&self.label, &self.manifest),
        };
        said.map_err(|why| {
            Fault::retryable("postgres.base", format!("the base backup is not whole: {why}"))
        })
    }
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

/// Reads the label and the end of the manifest
/// (<https://www.postgresql.org/docs/15/backup-manifest-wal.html>).
fn read(label: &[u8], manifest: &[u8]) -> Result<Said, &'static str> {
    let label = std::str::from_utf8(label).map_err(|_| "its label is no text")?;
    let line =
        |name: &str| label.lines().find_map(|line| line.strip_prefix(name)?.split(' ').next());
    let checkpoint = line("CHECKPOINT LOCATION: ").and_then(|text| text.parse().ok());
    let manifest = String::from_utf8_lossy(manifest);
    let (_, ranges) = manifest.rsplit_once("\"WAL-Ranges\":").ok_or("it has no manifest")?;
    let (ranges, _) = ranges.split_once(']').ok_or("its manifest is cut off")?;
    let ranges: Vec<Range> =
        serde_json::from_str(&format!("{ranges}]")).map_err(|_| "its manifest cannot be read")?;
    let [Range { timeline, start, end }] = ranges[..] else {
        return Err("the server's timeline changed meanwhile");
    };
    let checkpoint = checkpoint.ok_or("its label names no checkpoint")?;
    Ok(Said { timeline, start, checkpoint, stop: end })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nSTART TIMELINE: 1\n";

    /// An archive as `pg_basebackup` writes it, with so many files in its manifest.
    fn archive(files: usize) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let file = "{ \"Path\": \"base/1/1\", \"Size\": 8192 },\n".repeat(files);
        let manifest = format!(
            "{{ \"Files\": [\n{file}],\n\"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \
             \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n\"Manifest-Checksum\": \"ab\"}}\n"
        );
        let table = vec![7; 8192];
        for (path, content) in [
            (LABEL, OF_LABEL.as_bytes()),
            ("base/1/1", &table[..]),
            ("global/backup_label", b"not this one"),
            (MANIFEST, manifest.as_bytes()),
        ] {
            let mut header = Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            archive.append_data(&mut header, path, content).expect("memory takes it");
        }
        archive.into_inner().expect("memory takes it")
    }

    fn watched(archive: &[u8], chunk: usize) -> Result<Said, Fault> {
        let mut watch = TarWatch::new();
        archive.chunks(chunk).for_each(|chunk| watch.see(chunk));
        watch.end()
    }

    #[test]
    fn positions_are_found_however_the_bytes_are_cut() {
        let lsn = |text: &str| text.parse().expect("a fixed number is valid");
        let (start, checkpoint) = (lsn("0/2000028"), lsn("0/2000060"));
        let said = Said { timeline: 1, start, checkpoint, stop: lsn("0/2000100") };
        for files in [0, 1, 1000] {
            let archive = archive(files);
            for chunk in [1, 7, 511, 512, 513, 4096, archive.len()] {
                assert_eq!(watched(&archive, chunk), Ok(said), "{files} files, {chunk}");
            }
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_is_not_whole() {
        let archive = archive(3);
        // The two blocks of zeros at its end add nothing.
        for length in 0..archive.len() - 2 * BLOCK - 32 {
            let fault = watched(&archive[..length], 1000).expect_err("it is cut off");
            assert!(fault.is_retryable() && fault.code() == "postgres.base", "{length}");
        }
    }
}
