//! Reading an export from its start to its end, believing nothing.
//!
//! Invariants:
//! * one frame is held at a time, and its length is believed only after its header's checksum has matched;
//! * the end is reached only through a trailer that agrees with everything that passed.

use super::error::Error;
use super::export::ExportReport;
use super::frame::{
    Announced, ExportHeader, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, TRAILER_BYTES, Trailer,
    announced, chain_origin,
};
use super::streams::Streams;
use crate::types::{Position, Record};
use std::io::{self, Read};

/// A frame with its records, and where it starts in the export.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) offset: u64,
    pub(crate) records: Vec<Record>,
}

/// An export being read.
pub(crate) struct Streaming<R> {
    input: R,
    pub(crate) header: ExportHeader,
    pub(crate) streams: Streams,
    /// What the trailer has to say.
    pub(crate) sums: Trailer,
    offset: u64,
    stored: Vec<u8>,
}

impl<R: Read> Streaming<R> {
    pub(crate) fn start(mut input: R) -> Result<Self, Error> {
        let mut bytes = [0u8; HEADER_BYTES];
        let read = fill(&mut input, &mut bytes)?;
        if read == 0 {
            return Err(Error::NotAnExport);
        }
        // A header that is cut off may still be told from something else by its start.
        let header = match ExportHeader::decode(&bytes) {
            Err(Error::Damaged { .. }) if read < HEADER_BYTES => {
                return Err(Error::Truncated { frame: 0, position: Position::new(1) });
            }
            header => header?,
        };
        let last = Position::new(header.first.get() - 1);
        let sums = Trailer { chain: chain_origin(&header), last, ..Trailer::default() };
        let offset = HEADER_BYTES as u64;
        Ok(Self { input, header, streams: Streams::default(), sums, offset, stored: Vec::new() })
    }

    fn next_position(&self) -> Position {
        self.sums.last.next()
    }

    fn damaged(&self, detail: impl Into<String>) -> Error {
        Error::Damaged { frame: self.sums.frames + 1, position: self.next_position(), detail: detail.into() }
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        if fill(&mut self.input, buffer)? == buffer.len() {
            return Ok(());
        }
        Err(Error::Truncated { frame: self.sums.frames + 1, position: self.next_position() })
    }

    /// The next frame; `None` behind the trailer.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Error> {
        let mut bytes = [0u8; FRAME_HEADER_BYTES];
        self.exactly(&mut bytes)?;
        let header = match announced(&bytes) {
            Announced::Frame(header) => header,
            Announced::Trailer => return self.end(&bytes).map(|()| None),
            Announced::Bad(detail) => return Err(self.damaged(detail)),
        };
        if header.first != self.next_position()
            || header.chain != self.sums.chain
            || header.last() > self.header.last
        {
            return Err(self.damaged("the frame does not follow the one before it"));
        }
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(header.stored_bytes as usize, 0);
        self.exactly(&mut stored)?;
        let records = header.unpack(&stored).map_err(|detail| self.damaged(detail))?;
        self.stored = stored;
        for record in &records {
            let added = self.streams.add(record, self.header.first);
            added.map_err(|detail| self.damaged(detail))?;
        }
        let offset = self.offset;
        self.offset += (FRAME_HEADER_BYTES + header.stored_bytes as usize) as u64;
        self.sums.frames += 1;
        self.sums.records += u64::from(header.records);
        self.sums.raw_bytes += u64::from(header.raw_bytes);
        self.sums.last = header.last();
        self.sums.chain = header.chain_after();
        Ok(Some(Frame { header, offset, records }))
    }

    fn end(&mut self, start: &[u8; FRAME_HEADER_BYTES]) -> Result<(), Error> {
        let mut bytes = [0u8; TRAILER_BYTES];
        bytes[..FRAME_HEADER_BYTES].copy_from_slice(start);
        self.exactly(&mut bytes[FRAME_HEADER_BYTES..])?;
        let trailer = Trailer::decode(&bytes).map_err(|detail| self.damaged(detail))?;
        if trailer != self.sums || trailer.last != self.header.last {
            return Err(self.damaged("the trailer does not agree with what stands before it"));
        }
        if fill(&mut self.input, &mut [0])? != 0 {
            return Err(self.damaged("there are bytes behind the trailer"));
        }
        Ok(())
    }
}

/// Reads an export to its end and answers what it holds; whatever is not as it was written is an error that
/// names frame and position.
pub fn verify_export(input: impl Read) -> Result<ExportReport, Error> {
    let mut streaming = Streaming::start(input)?;
    while streaming.next()?.is_some() {}
    let Trailer { records, raw_bytes, last, .. } = streaming.sums;
    let bytes = streaming.offset + TRAILER_BYTES as u64;
    Ok(ExportReport { first: streaming.header.first, last, records, raw_bytes, bytes })
}

/// Reads until the buffer is full or the input ends; answers how much there was.
pub(crate) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    let mut done = 0;
    while done < buffer.len() {
        match input.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Stream { doing: "reading", source }),
        }
    }
    Ok(done)
}
