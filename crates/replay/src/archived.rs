//! A log together with the files that retention made of it: what has left the log is read from its file.
//!
//! Invariant: the log is asked first. A file speaks only of a stream of which the log says that it is archived.

use crate::source::Source;
use eventlog::portable::read_stream_file;
use eventlog::{Position, ReadError, Record, StreamId, Version};
use journal::StreamName;
use std::path::{Path, PathBuf};

/// The log, and the archive directory beside it.
#[derive(Clone, Debug)]
pub struct WithArchive<S> {
    log: S,
    archive: Option<PathBuf>,
}

impl<S> WithArchive<S> {
    /// Reads `log`, and what has left it from the files in `archive`, which need not exist.
    pub fn new(log: S, archive: Option<&Path>) -> Self {
        Self { log, archive: archive.map(Path::to_owned) }
    }

    /// The file that a stream's events would be in, if there is one of that name.
    fn file_of(&self, stream: StreamId) -> Option<PathBuf> {
        let file = self.archive.as_ref()?.join(StreamName::parse(stream)?.archive_file());
        file.exists().then_some(file)
    }
}

impl<S: Source> Source for WithArchive<S> {
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        match self.log.read_stream(stream, from, limit) {
            Err(archived @ ReadError::Archived { .. }) => {
                let Some(file) = self.file_of(stream) else {
                    return Err(archived);
                };
                let records = read_stream_file(&file, from, limit)
                    .map_err(|error| ReadError::Io(format!("{}: {error}", file.display())))?;
                // A file of another stream under this name says nothing about this one.
                if records.iter().any(|record| record.stream != stream) {
                    return Err(ReadError::Io(format!("{} is of another stream", file.display())));
                }
                self.and_its_end(stream, from, limit, records)
            }
            read => read,
        }
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.log.read_all(from, limit)
    }

    fn durable(&self) -> Position {
        self.log.durable()
    }
}

impl<S: Source> WithArchive<S> {
    /// What is behind the file's last version, such as the fact that it was archived, is in the log still.
    fn and_its_end(
        &self,
        stream: StreamId,
        from: Version,
        limit: usize,
        mut records: Vec<Record>,
    ) -> Result<Vec<Record>, ReadError> {
        let next = records.last().map_or(from, |record| record.version.next());
        if records.len() < limit && next > Version::ZERO {
            match self.log.read_stream(stream, next, limit - records.len()) {
                Ok(end) => records.extend(end),
                // It has left, too: the file is all there is.
                Err(ReadError::Archived { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }
}
